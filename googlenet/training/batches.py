"""Batches of a training, as a pure function of (sampling seed, epoch, index).

They do not depend on the number of loader processes and data-parallel workers, nor on crashes. To resume in the middle
of an epoch, only the number of the step is needed.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from googlenet.images.record import RecordsByIndex
from googlenet.randomness import numpy_generator
from googlenet.shapes import UInt8
from googlenet.training.augment import Sampling, alternating_mirror, draw_sample_from
from googlenet.training.crop_sizes import CropPx, crop_px_in
from googlenet.training.data_parallel import ALONE, Share
from googlenet.training.epoch_order import EpochOrder
from googlenet.training.loader import Batch, Request, crop_px_of, load_batches, stacked

Place = tuple[int, int]
SAMPLES = "train"


class TrainingSamples:
    """Samples of a replica: item (epoch, i) is that of record i in this epoch, in every process and at any time."""

    def __init__(self, records: RecordsByIndex, crop_px: CropPx, sampling: Sampling, seed: int) -> None:
        self.records, self._sampling = records, sampling
        self._crop_px, self.seed = crop_px, seed

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, place: Place) -> tuple[UInt8[Tensor, "crop crop 3"], int]:
        epoch, index = place
        image, label = self.records.labelled_image(index)
        generator = numpy_generator(self.seed, "sampling", epoch, index)
        mirrored = alternating_mirror(self._sampling, self.seed, epoch, index)
        crop_px = crop_px_in(epoch, self._crop_px)
        sample = draw_sample_from(image, crop_px, self._sampling, generator, mirrored)
        return torch.from_numpy(sample), label

    def load(self, request: Request) -> Batch:
        """Return the samples of a request."""
        return stacked((self[place] for place in request.keys), crop_px_of(request, self._crop_px), request)


def requests_of_epoch(
    order: EpochOrder, batch_size: int, epoch: int, first_step: int = 0, share: Share = ALONE
) -> Iterator[Request]:
    """Yield this worker's share of the batches of an epoch from ``first_step`` on; the last one holds the remainder."""
    for start in range(first_step * batch_size, len(order), batch_size):
        indices = order[start : start + batch_size].tolist()
        yield Request(SAMPLES, [(epoch, index) for index in share.of(indices)], len(indices))


def training_batches(
    samples: TrainingSamples,
    batch_size: int,
    epochs: Iterable[int],
    *,
    first_step: int = 0,
    loader_processes: int = 0,
    share: Share = ALONE,
) -> Iterator[Batch]:
    """Yield the batches of ``epochs``, one after the other, from processes that outlive an epoch.

    Args:
        samples: samples of the replica.
        batch_size: images in a batch, over all data-parallel workers.
        epochs: numbers of the epochs.
        first_step: number of the first batch in the first of them, from 0.
        loader_processes: processes that load; 0 loads in this one. Affects the speed, never a batch.
        share: part of each batch to load.
    """

    def requests() -> Iterator[Request]:
        for number, epoch in enumerate(epochs):
            order = EpochOrder(len(samples), samples.seed, epoch)
            yield from requests_of_epoch(order, batch_size, epoch, 0 if number else first_step, share)

    return load_batches({SAMPLES: samples}, requests(), loader_processes=loader_processes)
