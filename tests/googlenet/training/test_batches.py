"""Batches: a pure function of (seed, epoch, index), for any number of processes and workers."""

import os
import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from googlenet.images.decoding import decode_rgb
from googlenet.randomness import numpy_generator
from googlenet.training.augment import Sampling, draw_sample
from googlenet.training.batches import SAMPLES, TrainingSamples, requests_of_epoch, training_batches
from googlenet.training.data_parallel import Share
from googlenet.training.epoch_order import EpochOrder
from googlenet.training.loader import Batch, Request, load_batches
from tests.googlenet.images.test_records import jpeg, open_all, write_shards

SEED, EPOCH, IMAGES, BATCH = 3, 2, 104, 16


@pytest.fixture
def samples(tmp_path: Path) -> TrainingSamples:
    return TrainingSamples(open_all(write_shards(tmp_path)), 35, Sampling(), SEED)


def batches(samples: TrainingSamples, epochs: Sequence[int] = (EPOCH,), **options: object) -> list[Batch]:
    return list(training_batches(samples, BATCH, epochs, **options))  # type: ignore[arg-type]


def same(ours: list[Batch], others: list[Batch]) -> bool:
    return len(ours) == len(others) and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and a.num_images == b.num_images
        for a, b in zip(ours, others, strict=True)
    )


def test_a_batch_holds_the_samples_of_its_place_in_the_epoch(samples: TrainingSamples) -> None:
    found = batches(samples)
    assert [batch.num_images for batch in found] == [16] * 6 + [8]
    assert found[0].images.shape == (16, 3, 35, 35)
    assert found[0].images.is_contiguous(memory_format=torch.channels_last)
    order = EpochOrder(IMAGES, SEED, EPOCH)[:]
    for place in [0, 15, 16, 77, 103]:
        index = int(order[place])
        generator = numpy_generator(SEED, "sampling", EPOCH, index)
        expected = draw_sample(decode_rgb(jpeg(index)), 35, Sampling(), generator)
        batch = found[place // BATCH]
        assert np.array_equal(batch.images[place % BATCH].permute(1, 2, 0).numpy(), expected)
        assert batch.labels[place % BATCH] == index % 3


@pytest.mark.processes
def test_they_are_the_same_for_any_number_of_loader_processes_and_any_start(samples: TrainingSamples) -> None:
    alone = batches(samples)
    assert same(alone, batches(samples, loader_processes=2))
    assert same(alone[3:], batches(samples, first_step=3))
    assert same(alone[6:], batches(samples, first_step=6, loader_processes=1))
    following = batches(samples, (EPOCH, EPOCH + 1), first_step=5, loader_processes=2)
    assert same(following, alone[5:] + batches(samples, (EPOCH + 1,)))


class ProcessIds:
    """A source of the ids of the processes that load."""

    def __init__(self, samples: TrainingSamples) -> None:
        self.records = samples.records

    def load(self, _: Request) -> int:
        return os.getpid()


@pytest.mark.processes
def test_one_set_of_processes_loads_all_that_a_training_needs(samples: TrainingSamples) -> None:
    sources = {"first": ProcessIds(samples), "second": ProcessIds(samples)}
    requests = [Request(name, [0, 1], 2) for _ in range(10) for name in sources]
    loaded = set(load_batches(sources, requests, loader_processes=2))
    assert len(loaded) == 2
    assert os.getpid() not in loaded


def without_room() -> None:
    """Let this process write no file as large as a batch, as if /dev/shm were full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def without_descriptors() -> None:
    """Let this process open no further file."""
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


class Limited:
    """A source whose loader process reaches a limit when it has loaded the first batch."""

    def __init__(self, samples: TrainingSamples, warnings: Path, limit: Callable[[], None]) -> None:
        self.records, self._samples, self._warnings, self._limit = samples.records, samples, warnings, limit

    def load(self, request: Request) -> Batch:
        batch = self._samples.load(request)
        if not self._warnings.exists():
            for index in range(IMAGES):
                self.records.labelled_image(index)  # opens all files, which stay open
            sys.stderr = self._warnings.open("a", buffering=1)
            self._limit()
        return batch


@pytest.mark.processes
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("limit", "remedy", "other"),
    [(without_room, "--shm-size", "ulimit"), (without_descriptors, "ulimit -n", "--shm-size")],
)
@pytest.mark.linux
def test_batches_that_shared_memory_does_not_take_arrive(
    samples: TrainingSamples, tmp_path: Path, limit: Callable[[], None], remedy: str, other: str
) -> None:
    requests = list(requests_of_epoch(EpochOrder(IMAGES, SEED, EPOCH), BATCH, EPOCH))
    source = Limited(samples, tmp_path / "warnings", limit)
    found = list(load_batches({SAMPLES: source}, requests, loader_processes=1))
    assert same(batches(samples), found)
    assert all(batch.images.is_contiguous(memory_format=torch.channels_last) for batch in found)
    assert not any(batch.images.is_shared() for batch in found)
    warnings = (tmp_path / "warnings").read_text()
    assert warnings.count(remedy) == 1
    assert other not in warnings


@pytest.mark.parametrize("workers", [2, 3, 12])
def test_the_shares_of_data_parallel_workers_make_up_the_batch(samples: TrainingSamples, workers: int) -> None:
    alone = batches(samples)
    shares = [batches(samples, share=Share(rank, workers)) for rank in range(workers)]
    for number, batch in enumerate(alone):
        for rank in range(workers):
            share = shares[rank][number]
            assert share.num_images == batch.num_images
            assert torch.equal(share.images, batch.images[rank::workers])
            assert torch.equal(share.labels, batch.labels[rank::workers])
    if workers == 12:
        assert len(shares[11][6].labels) == 0  # 8 images remain for 12 workers
