"""Loading as in torchvision's reference scripts, for `benchmarks.gpu` where torchvision is installed."""

import io
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision.transforms import v2

from googlenet.training.loader import forkserver


class PillowImages(Dataset[tuple[Any, int]]):
    """Images that Pillow decodes, with the transforms of the reference scripts and this project's distortions."""

    def __init__(self, encoded: Sequence[bytes], classes: int, crop_px: int) -> None:
        self._encoded, self._classes = encoded, classes
        self._transform = v2.Compose(
            [
                v2.RandomResizedCrop(crop_px),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(0.5, 0.5, 0.5),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )

    def __len__(self) -> int:
        return len(self._encoded)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = Image.open(io.BytesIO(self._encoded[index])).convert("RGB")
        return self._transform(image), index % self._classes


def loader(
    encoded: Sequence[bytes], classes: int, crop_px: int, batch_size: int, processes: int
) -> DataLoader[tuple[Any, int]]:
    """Return full batches, practically without end: at the end of an epoch its processes would have nothing to do."""
    images = PillowImages(encoded, classes, crop_px)
    return DataLoader(
        images,
        batch_size,
        sampler=RandomSampler(images, replacement=True, num_samples=10**9),
        num_workers=processes,
        pin_memory=torch.cuda.is_available(),
        multiprocessing_context=forkserver(),  # the process's only server, which this project's loader uses as well
    )
