"""Speed of PyTorch's DataLoader, which the project uses, against grain and torchdata on the same training samples.

    python -m benchmarks.loader_libraries

Each visits the same records in the same order and draws the same samples; only fetching and collating differ, in this
process or in two others. Needs the extra 'bench'.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow.fs as pafs
import tyro

from benchmarks.measure import Contender, Round, print_circumstances, print_rates, race
from benchmarks.photographs import photographs_of_size
from benchmarks.training import write_shard
from googlenet.images.records import Records
from googlenet.training.augment import Sampling
from googlenet.training.batches import TrainingSamples, training_batches
from googlenet.training.epoch_order import EpochOrder
from googlenet.training.loader import forkserver


@dataclass(frozen=True)
class Arguments:
    """Compare loader libraries."""

    rounds: int = 5
    """Rounds of one epoch."""
    images: int = 8192
    """Images in an epoch; each epoch starts its own loader processes."""
    batch_size: int = 32
    """Images in a batch."""
    crop_px: int = 224
    """Side of the samples."""
    processes: int = 2
    """Loader processes of the contenders that use them."""


def _samples(folder: str, arguments: Arguments) -> TrainingSamples:
    cv2.setNumThreads(0)
    records = Records(pafs.LocalFileSystem(), [f"{folder}/shard.parquet"], [arguments.images])
    return TrainingSamples(records, arguments.crop_px, Sampling(), 0)


def _epochs(epoch_of: Callable[[int], Iterator[Any]], images: int) -> Round:
    epoch = 0

    def one_epoch() -> float:
        nonlocal epoch
        epoch += 1
        for _ in epoch_of(epoch):
            pass
        return images

    return one_epoch


def _data_loader(folder: str, arguments: Arguments, processes: int) -> Round:
    def epoch_of(epoch: int) -> Iterator[Any]:
        samples = _samples(folder, arguments)
        return training_batches(samples, arguments.batch_size, [epoch], loader_processes=processes)

    return _epochs(epoch_of, arguments.images)


def _collate(samples: list[Any]) -> Any:
    return np.stack([pixels.numpy() for pixels, _ in samples]), np.array([label for _, label in samples])


class _Source:
    """Data source for grain: the samples of an epoch in their order."""

    def __init__(self, samples: TrainingSamples, epoch: int) -> None:
        self._samples, self._epoch = samples, epoch
        self._order = EpochOrder(len(samples), samples.seed, epoch)[:]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, place: int) -> Any:
        pixels, label = self._samples[self._epoch, int(self._order[place])]
        return pixels.numpy(), label


def _grain(folder: str, arguments: Arguments, processes: int) -> Round:
    import grain

    def epoch_of(epoch: int) -> Iterator[Any]:
        data = grain.MapDataset.source(_Source(_samples(folder, arguments), epoch))
        batches = data.to_iter_dataset(
            grain.ReadOptions(num_threads=0 if processes else 1, prefetch_buffer_size=0 if processes else 2)
        ).batch(arguments.batch_size)
        if processes:
            batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=processes))
        return iter(batches)

    return _epochs(epoch_of, arguments.images)


def _torchdata(folder: str, arguments: Arguments, processes: int) -> Round:
    from torchdata import nodes

    forkserver()  # by its name, torchdata uses the same server, which is to import PyTorch once

    def epoch_of(epoch: int) -> Iterator[Any]:
        samples = _samples(folder, arguments)
        places = nodes.IterableWrapper(EpochOrder(len(samples), samples.seed, epoch)[:].tolist())
        method = "process" if processes else "thread"
        drawn = nodes.ParallelMapper(
            nodes.Batcher(places, arguments.batch_size, drop_last=False),
            _Fetch(samples, epoch),
            num_workers=max(1, processes),
            method=method,
            multiprocessing_context="forkserver" if processes else None,
        )
        return iter(nodes.Loader(drawn))

    return _epochs(epoch_of, arguments.images)


class _Fetch:
    def __init__(self, samples: TrainingSamples, epoch: int) -> None:
        self._samples, self._epoch = samples, epoch

    def __call__(self, indices: list[int]) -> Any:
        return _collate([self._samples[self._epoch, index] for index in indices])


def main(arguments: Arguments) -> None:
    """Print samples per second of each library."""
    encoded = photographs_of_size("", arguments.images, 500, 375)
    makers = {"DataLoader": _data_loader, "grain": _grain, "torchdata": _torchdata}
    with tempfile.TemporaryDirectory() as folder:
        write_shard(folder, encoded)
        contenders = [
            Contender(f"{name}, {processes} processes", make, (folder, arguments, processes))
            for processes in (0, arguments.processes)
            for name, make in makers.items()
        ]
        rates = race(contenders, arguments.rounds)
    print_rates(rates, "images/s", [contenders[0].name, contenders[3].name])
    print_circumstances(arguments.rounds)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
