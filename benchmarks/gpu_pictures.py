"""Pictures in memory for `benchmarks.gpu`, and samples of them with or without simplejpeg."""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec

import cv2
import numpy as np
import torch

from googlenet.images.decoding import Pixels, decode_rgb
from googlenet.images.record import Record
from googlenet.randomness import numpy_generator
from googlenet.training.augment import Sampling, draw_sample
from googlenet.training.batches import TrainingSamples
from googlenet.training.loader import Batch, Request, Source, stacked

WIDTH_PX, HEIGHT_PX, JPEG_QUALITY = 500, 375, 85


@cache
def pictures(number: int) -> list[bytes]:
    """Return JPEGs of ImageNet's usual size, of about 110 KB: soft colours and some noise."""
    generator = np.random.default_rng(0)
    encoded = []
    for _ in range(number):
        colours = generator.integers(0, 256, (12, 16, 3)).astype(np.float32)
        pixels = cv2.resize(colours, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_CUBIC)
        pixels += generator.normal(0, 12, pixels.shape).astype(np.float32)
        image = np.clip(pixels, 0, 255).astype(np.uint8)
        encoded.append(bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]))
    return encoded


class MemoryRecords:
    """Records whose images are in memory."""

    def __init__(self, encoded: Sequence[bytes], classes: int) -> None:
        self._encoded, self._classes = encoded, classes

    def __len__(self) -> int:
        return len(self._encoded)

    def __getitem__(self, index: int) -> Record:
        return Record(str(index), self._encoded[index], index % self._classes)

    def labelled_image(self, index: int) -> tuple[bytes, int]:
        """Return the bytes of an image and its label."""
        return self._encoded[index], index % self._classes

    def share_cache(self, processes: int) -> None:
        """Do nothing: there is no cache."""


def decoded(data: bytes) -> Pixels:
    """Decode a JPEG, by OpenCV if simplejpeg is not installed."""
    if find_spec("simplejpeg"):
        return decode_rgb(data)
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB), np.uint8)


class WholeImageSamples:
    """The samples of TrainingSamples, from images that OpenCV decodes completely."""

    def __init__(self, records: MemoryRecords, crop_px: int) -> None:
        self.records, self.crop_px = records, crop_px

    def load(self, request: Request) -> Batch:
        """Return the samples of a request."""
        return stacked((self._sample(*place) for place in request.keys), self.crop_px, request)

    def _sample(self, epoch: int, index: int) -> tuple[torch.Tensor, int]:
        record, generator = self.records[index], numpy_generator(0, "sampling", epoch, index)
        return torch.from_numpy(draw_sample(decoded(record.image), self.crop_px, Sampling(), generator)), record.label


def samples_of(records: MemoryRecords, crop_px: int) -> Source:
    """Return the training samples of ``records``."""
    if find_spec("simplejpeg"):
        return TrainingSamples(records, crop_px, Sampling(), 0)
    return WholeImageSamples(records, crop_px)
