"""Training samples made on the device that trains: encoded images in, the same draws, tensor operations.

What a sample shows is the same function of (seed, epoch, index) as in :mod:`googlenet.training.augment`, so its
distribution is the same. Its pixels are not, bit for bit: decoders and interpolations of tensors round differently,
interpolation by area uses whole pixels, and torchvision's decoder on a GPU repeats the colours of most JPEGs, which
have half of the picture's resolution, where those on a CPU interpolate them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from googlenet.images.decoding import Pixels, decode_rgb
from googlenet.images.jpeg import read_header
from googlenet.images.record import RecordsByIndex
from googlenet.randomness import numpy_generator
from googlenet.shapes import Float32, Int64, UInt8
from googlenet.training.augment import LUMINANCE, Draw, Sampling, alternating_mirror, draw
from googlenet.training.crop_sizes import CropPx
from googlenet.training.loader import Batch, Request, crop_px_of

MODES = {"bilinear": "bilinear", "nearest": "nearest", "cubic": "bicubic", "area": "area"}


@dataclass(frozen=True)
class EncodedBatch:
    """Images that are still encoded, and what was drawn for their samples.

    Attributes:
        images: the bytes of each JPEG that a GPU can decode, and the pixels of all other images.
        draws: the draw of each sample.
        labels: (N,) int64.
        num_images: images in the whole batch, over all data-parallel workers.
        crop_px: side of the samples.
    """

    images: Sequence[bytes | Pixels]
    draws: Sequence[Draw]
    labels: Int64[Tensor, " n"]
    num_images: int
    crop_px: int

    def pin_memory(self) -> "EncodedBatch":
        """Return the batch as it is: what is decoded on the device needs no pinned memory."""
        return self

    def on(self, device: torch.device) -> Batch:
        """Decode and render the samples on ``device``."""
        samples = torch.empty(
            (len(self.images), 3, self.crop_px, self.crop_px),
            dtype=torch.uint8,
            device=device,
            memory_format=torch.channels_last,
        )
        for row, (image, drawn) in enumerate(zip(_decoded(self.images, device), self.draws, strict=True)):
            samples[row] = render(image, self.crop_px, drawn)
        return Batch(samples, self.labels.to(device, non_blocking=True), self.num_images)


class EncodedSamples:
    """Samples of a replica by (epoch, index), whose pixels are made on the device; see :class:`EncodedBatch`."""

    def __init__(self, records: RecordsByIndex, crop_px: CropPx, sampling: Sampling, seed: int) -> None:
        self.records, self._sampling = records, sampling
        self._crop_px, self.seed = crop_px, seed

    def __len__(self) -> int:
        return len(self.records)

    def load(self, request: Request) -> EncodedBatch:
        """Read the images of a request, and draw their samples."""
        images: list[bytes | Pixels] = []
        draws, labels = [], []
        crop_px = crop_px_of(request, self._crop_px)
        for epoch, index in request.keys:
            data, label = self.records.labelled_image(index)
            header = read_header(data)
            image: bytes | Pixels = data if header else decode_rgb(data)
            width, height = (header.width, header.height) if header else (image.shape[1], image.shape[0])  # type: ignore[union-attr]
            generator = numpy_generator(self.seed, "sampling", epoch, index)
            mirrored = alternating_mirror(self._sampling, self.seed, epoch, index)
            draws.append(draw(width, height, self._sampling, generator, mirrored))
            images.append(image)
            labels.append(label)
        return EncodedBatch(images, draws, torch.tensor(labels, dtype=torch.int64), request.num_images, crop_px)


def _decoded(images: Sequence[bytes | Pixels], device: torch.device) -> list[UInt8[Tensor, "3 _ _"]]:
    """Return the pixels of each image on ``device``; a GPU decodes all JPEGs of the batch together."""
    if device.type != "cuda":
        arrays = [decode_rgb(image) if isinstance(image, bytes) else image for image in images]
        return [_to_tensor(array) for array in arrays]
    from torchvision.io import ImageReadMode, decode_jpeg

    encoded = [torch.frombuffer(bytearray(image), dtype=torch.uint8) for image in images if isinstance(image, bytes)]
    jpegs = iter(decode_jpeg(encoded, mode=ImageReadMode.RGB, device=device) if encoded else [])
    return [next(jpegs) if isinstance(image, bytes) else _to_tensor(image).to(device) for image in images]


def _to_tensor(pixels: Pixels) -> UInt8[Tensor, "3 _ _"]:
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)


def render(image: UInt8[Tensor, "3 h w"], crop_px: int, drawn: Draw) -> UInt8[Tensor, "3 {crop_px} {crop_px}"]:
    """Make a sample of an image, on the image's device; rounded to 8 bits after each operation."""
    patch = drawn.patch
    window = image[:, patch.top : patch.top + patch.height, patch.left : patch.left + patch.width]
    sample = _resized(window.float(), crop_px, drawn.interpolation)
    if drawn.mirrored:
        sample = sample.flip(-1)
    for name, factor in drawn.distortions:
        sample = _distorted(sample, name, factor)
    if drawn.lighting:
        # Added one by one: a tensor of them would have to be copied to the device.
        channels = [(channel + shift).clamp(0, 255) for channel, shift in zip(sample, drawn.lighting, strict=True)]
        sample = torch.stack(channels)
    return sample.to(torch.uint8)


def _resized(window: Float32[Tensor, "3 h w"], crop_px: int, interpolation: str) -> Float32[Tensor, "3 crop crop"]:
    mode = MODES[interpolation]
    if interpolation == "area" and min(window.shape[-2:]) < crop_px:
        mode = "bilinear"  # averaging whole pixels does not enlarge
    corners = False if mode in ("bilinear", "bicubic") else None
    resized = functional.interpolate(window[None], size=(crop_px, crop_px), mode=mode, align_corners=corners)[0]
    return resized.round().clamp(0, 255)


def _distorted(sample: Float32[Tensor, "3 h w"], name: str, factor: float) -> Float32[Tensor, "3 h w"]:
    if name == "brightness":
        changed = sample * factor
    else:
        red, green, blue = LUMINANCE.tolist()
        grey = red * sample[0] + green * sample[1] + blue * sample[2]
        # Contrast moves values away from the mean luminance, colour away from the pixel's own.
        changed = factor * sample + (1 - factor) * (grey.mean() if name == "contrast" else grey)
    return changed.round().clamp(0, 255)
