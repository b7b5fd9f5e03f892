"""Batches of an epoch, as a pure function of (sampling seed, epoch, index).

They do not depend on the number of loader processes and data-parallel workers, nor on crashes. To resume in the middle
of an epoch, only the number of the step is needed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from googlenet.images.records import Records
from googlenet.randomness import numpy_generator
from googlenet.training.augment import Sampling, draw_sample_from
from googlenet.training.data_parallel import ALONE, Share
from googlenet.training.epoch_order import EpochOrder


@dataclass(frozen=True)
class Batch:
    """Samples ready for the network.

    Attributes:
        images: (N, 3, H, W) uint8, channels-last in memory; this worker's share of the batch, possibly empty.
        labels: (N,) int64.
        num_images: images in the whole batch, over all data-parallel workers.
    """

    images: UInt8[Tensor, "n 3 crop crop"]
    labels: Int64[Tensor, " n"]
    num_images: int

    @classmethod
    def whole(cls, images: UInt8[Tensor, "n 3 crop crop"], labels: Int64[Tensor, " n"]) -> "Batch":
        """Return a batch that is not shared."""
        return cls(images, labels, len(labels))


class TrainingSamples(Dataset[tuple[Tensor, int]]):
    """Samples of one epoch: item i is the sample of record i, in every process and at any time."""

    def __init__(self, records: Records, crop_px: int, sampling: Sampling, seed: int, epoch: int) -> None:
        self.records, self._sampling = records, sampling
        self.crop_px, self.seed, self.epoch = crop_px, seed, epoch

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[UInt8[Tensor, "crop crop 3"], int]:
        record = self.records[index]
        generator = numpy_generator(self.seed, "sampling", self.epoch, index)
        return torch.from_numpy(draw_sample_from(record.image, self.crop_px, self._sampling, generator)), record.label


class _Shares(Sampler[list[int]]):
    """Indices of the records in this worker's share of each batch, from ``first_step`` on."""

    def __init__(self, order: EpochOrder, batch_size: int, first_step: int, share: Share) -> None:
        self._order, self._batch_size, self._first_step, self._share = order, batch_size, first_step, share

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(self._first_step * self._batch_size, len(self._order), self._batch_size):
            yield self._share.of(self._order[start : start + self._batch_size].tolist())


class _Collate:
    """Collation of samples into a share's tensors; those of an empty share keep their shape."""

    def __init__(self, crop_px: int) -> None:
        self._crop_px = crop_px

    def __call__(self, samples: list[tuple[Tensor, int]]) -> tuple[UInt8[Tensor, "n 3 crop crop"], Int64[Tensor, " n"]]:
        pixels = torch.empty(len(samples), self._crop_px, self._crop_px, 3, dtype=torch.uint8)
        for row, (sample, _) in enumerate(samples):
            pixels[row] = sample
        return pixels.permute(0, 3, 1, 2), torch.tensor([label for _, label in samples], dtype=torch.int64)


def training_batches(
    samples: TrainingSamples,
    batch_size: int,
    *,
    first_step: int = 0,
    loader_processes: int = 0,
    share: Share = ALONE,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """Yield the batches of the epoch from ``first_step`` on; the last one holds the remainder.

    Args:
        samples: samples of the epoch.
        batch_size: images in a batch, over all data-parallel workers.
        first_step: number of the first batch, from 0.
        loader_processes: processes that load; 0 loads in this one. Affects the speed, never a batch.
        share: part of each batch to load.
        pin_memory: pin memory, for asynchronous copies to a GPU.
    """
    order = EpochOrder(len(samples), samples.seed, samples.epoch)
    loader: DataLoader[tuple[Tensor, int]] = DataLoader(
        samples,
        batch_sampler=_Shares(order, batch_size, first_step, share),
        num_workers=loader_processes,
        collate_fn=_Collate(samples.crop_px),
        # A fork of a process that runs threads (Ray's, Arrow's) can hang.
        multiprocessing_context="forkserver" if loader_processes else None,
        worker_init_fn=_settle if loader_processes else None,
        pin_memory=pin_memory,
    )
    first_image = first_step * batch_size
    for number, (images, labels) in enumerate(loader):
        yield Batch(images, labels, min(batch_size, len(samples) - first_image - number * batch_size))


def _settle(_: int) -> None:
    """Limit a new loader process to one OpenCV thread and its part of the cache."""
    cv2.setNumThreads(0)
    info: Any = get_worker_info()
    info.dataset.records.share_cache(info.num_workers)
