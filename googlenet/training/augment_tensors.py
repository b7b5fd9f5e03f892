"""Training samples made on the device that trains: JPEGs in, the same draws, tensor operations.

What a sample shows is the same function of (seed, epoch, index) as in :mod:`googlenet.training.augment`, so its
distribution is the same. Its pixels are not, bit for bit: decoders and interpolations of tensors round differently,
interpolation by area uses whole pixels, and torchvision's decoder on a GPU repeats the colours of most JPEGs, which
have half of the picture's resolution, where those on a CPU interpolate them.

Images that a GPU cannot decode become samples where they are loaded: a sample is much smaller than a photograph, and
has to reach the process that trains.
"""

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from googlenet.images.decoding import Pixels, decode_rgb
from googlenet.images.jpeg import JpegHeader, may_store_rgb, read_header
from googlenet.images.record import RecordsByIndex
from googlenet.network.arithmetic import first_line
from googlenet.randomness import numpy_generator
from googlenet.shapes import Float32, Int64, UInt8
from googlenet.training.augment import LUMINANCE, Draw, Sampling, alternating_mirror, draw, draw_sample_from
from googlenet.training.crop_sizes import CropPx
from googlenet.training.loader import Batch, Request, crop_px_of

MODES = {"bilinear": "bilinear", "nearest": "nearest", "cubic": "bicubic", "area": "area"}
Decode = Callable[[Sequence[bytes]], Sequence[UInt8[Tensor, "3 _ _"]]]


class DecoderError(ValueError):
    """The decoder of a device decodes no JPEG at all."""


@dataclass(frozen=True)
class EncodedBatch:
    """JPEGs, what was drawn for their samples, and the samples of other images.

    Attributes:
        images: the bytes of each JPEG that is left to the device, and the samples of all other images.
        draws: the draw of each JPEG's sample.
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

    def on(self, device: torch.device, tell: Callable[[str], None] = warnings.warn) -> Batch:
        """Decode and render the samples on ``device``; ``tell`` gets a line on each JPEG that its decoder refuses."""
        samples = torch.empty(
            (len(self.images), 3, self.crop_px, self.crop_px),
            dtype=torch.uint8,
            device=device,
            memory_format=torch.channels_last,
        )
        jpegs = [image for image in self.images if isinstance(image, bytes)]
        decoded = zip(decoded_by(decoder_of(device), jpegs, tell), self.draws, strict=True)
        rendered = (render(pixels, self.crop_px, drawn) for pixels, drawn in decoded)
        for row, image in enumerate(self.images):
            samples[row] = next(rendered) if isinstance(image, bytes) else _to_tensor(image)
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
            generator = numpy_generator(self.seed, "sampling", epoch, index)
            mirrored = alternating_mirror(self._sampling, self.seed, epoch, index)
            if header := header_for_device(data):
                images.append(data)
                draws.append(draw(header.width, header.height, self._sampling, generator, mirrored))
            else:
                images.append(draw_sample_from(data, crop_px, self._sampling, generator, mirrored))
            labels.append(label)
        return EncodedBatch(images, draws, torch.tensor(labels, dtype=torch.int64), request.num_images, crop_px)


def header_for_device(data: bytes) -> JpegHeader | None:
    """Return the header of a JPEG that is left to the device; None for any other image."""
    header = read_header(data)
    return None if header and may_store_rgb(data) else header


def check_decoder(decode: Decode) -> None:
    """Decode a small JPEG: torchvision may be built for CPUs alone, and Pillow would decode all, one by one.

    Raises:
        DecoderError: it cannot be decoded.
    """
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "JPEG")
    try:
        decode([buffer.getvalue()])
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise DecoderError(
            f"torchvision cannot decode JPEGs on this GPU ({first_line(error)}): leave --gpu-augmentation out"
        ) from error


def decoded_by(decode: Decode, jpegs: Sequence[bytes], tell: Callable[[str], None]) -> list[UInt8[Tensor, "3 _ _"]]:
    """Return the pixels of each JPEG by ``decode``, or by Pillow where it fails, of which ``tell`` gets a line.

    A GPU's decoder refuses some of what is a JPEG, and with it all that it was to decode together.
    """
    if not jpegs:
        return []
    try:
        return list(decode(jpegs))
    except torch.OutOfMemoryError:  # a RuntimeError as well, but no fault of a JPEG
        raise
    except RuntimeError as error:
        if len(jpegs) > 1:
            return [pixels for jpeg in jpegs for pixels in decoded_by(decode, [jpeg], tell)]
        tell(f"the GPU's decoder refuses a JPEG ({first_line(error)}): Pillow decodes it, which is slower")
        return _decoded_on_cpu(jpegs)


def decoder_of(device: torch.device) -> Decode:
    """Return what decodes JPEGs on a device."""
    if device.type != "cuda":
        return _decoded_on_cpu
    from torchvision.io import ImageReadMode, decode_jpeg

    def decode(jpegs: Sequence[bytes]) -> list[Tensor]:
        encoded = [torch.frombuffer(bytearray(jpeg), dtype=torch.uint8) for jpeg in jpegs]
        return list(decode_jpeg(encoded, mode=ImageReadMode.RGB, device=device))

    return decode


def _decoded_on_cpu(jpegs: Sequence[bytes]) -> list[UInt8[Tensor, "3 _ _"]]:
    return [_to_tensor(decode_rgb(jpeg)) for jpeg in jpegs]


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
