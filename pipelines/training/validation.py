"""Validation during training: centre crops of the validation images, or of some of them, every epoch or less often.

It changes no weight. The crops come from the loader of the training, so that they are ready when an epoch ends.
"""

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from googlenet.evaluation.crops import distinct_views, policy_scales_px
from googlenet.evaluation.views import cut_views
from googlenet.images.records import Records
from googlenet.images.scaled_image import ScaledImage
from googlenet.training.data_parallel import Share
from googlenet.training.loader import Batch, Request, stacked
from googlenet.training.loop import LoopSettings, TrainState, count_errors
from pipelines.training.validation_plan import ValidationPlan

# Images that are answered at once; of no effect on the answers.
BATCH_SIZE = 64
# Memory for crops of earlier validations, in each process that loads them: all those of a small data set.
KEPT_CROPS_BYTES = 16 << 20
CROPS = "val"
ONE_CROP, CHANNELS = 1, 3


class CentreCrops:
    """Centre crops of images, those of an evaluation with one crop, by the number of the record."""

    def __init__(self, records: Records, crop_px: int) -> None:
        self.records, self.crop_px = records, crop_px
        self._kept: dict[int, tuple[Tensor, int]] = {}
        self._most_kept = KEPT_CROPS_BYTES // (crop_px * crop_px * CHANNELS)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return (crop_px, crop_px, 3) uint8, and the label."""
        if index in self._kept:
            return self._kept[index]
        image, label = self.records.labelled_image(index)
        item = centre_crop(image, self.crop_px), label
        if len(self._kept) < self._most_kept:
            self._kept[index] = item
        return item

    def load(self, request: Request) -> Batch:
        """Return the crops of a request."""
        return stacked((self[index] for index in request.keys), self.crop_px, request)


def centre_crop(data: bytes, crop_px: int) -> Tensor:
    """Return the centre crop of an encoded image, (crop_px, crop_px, 3) uint8.

    Raises:
        ImageDecodeError: the bytes cannot be decoded as an image.
    """
    image = ScaledImage.decode_fast(data, policy_scales_px(ONE_CROP, crop_px))
    boxes = distinct_views(image.width, image.height, crop_px, policies=(ONE_CROP,)).boxes
    return cut_views(image.scaled, boxes, crop_px)[0].permute(1, 2, 0)


class Validation:
    """Validation of one replica; each of its workers counts its share of the images."""

    def __init__(self, plan: ValidationPlan, images: int, epochs: int, share: Share) -> None:
        self._plan, self._epochs, self._share = plan, epochs, share
        self._is_subset = plan.number_of(images) < images
        own = share.of(plan.indices(images))
        self._groups = [own[start : start + BATCH_SIZE] for start in range(0, len(own), BATCH_SIZE)]

    def requests(self, epoch: int) -> Iterator[Request]:
        """Yield the batches of the validation after ``epoch``, if there is one."""
        if self._plan.is_due(epoch, self._epochs):
            yield from (Request(CROPS, group, len(group)) for group in self._groups)

    def errors(
        self, epoch: int, state: TrainState, batches: Iterator[Batch], settings: LoopSettings
    ) -> dict[str, float]:
        """Return the top-1 errors in percent, with the averaged weights and the raw ones; nothing if none is due.

        ``batches`` are the loader's: those that :meth:`requests` asked for come next. Of a subset, its size is returned
        as well.
        """
        if not self._plan.is_due(epoch, self._epochs):
            return {}
        candidates: dict[str, dict[str, torch.Tensor]] = {
            "val_top1_error": state.average.weights,
            "val_top1_error_raw_weights": {},
        }
        own = islice(batches, len(self._groups))
        counts = count_errors(state.model, list(candidates.values()), own, settings)
        *wrong, seen = self._share.all_reduce_sum(counts).tolist()
        errors = {name: 100 * count / seen for name, count in zip(candidates, wrong, strict=True)}
        return {**errors, **({"val_images": seen} if self._is_subset else {})}
