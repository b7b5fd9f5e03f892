"""An image at the scales that its views need, as sent to a predictor. Needs no PyTorch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from googlenet.images.decoding import Pixels, decode_rgb
from googlenet.images.jpeg import decode_factor, decode_rows, read_header

CHANNELS = 3


@dataclass(frozen=True)
class ScaledImage:
    """An image on its way to a predictor: its size in pixels, and its pixels at the scales that the views need."""

    width: int
    height: int
    scaled: tuple[Pixels, ...]

    @classmethod
    def decode(cls, data: bytes, scales_px: Sequence[int]) -> "ScaledImage":
        """Decode, and scale the shorter side to each of ``scales_px``; once for all views and replicas.

        Raises:
            ImageDecodeError: the bytes cannot be decoded as an image.
        """
        image = decode_rgb(data)
        height, width = image.shape[:2]
        return cls(width, height, tuple(scale_image(image, scales_px)))

    @classmethod
    def decode_fast(cls, data: bytes, scales_px: Sequence[int]) -> "ScaledImage":
        """Like :meth:`decode`, for validation during training, bit-identical up to four times the largest scale.

        A JPEG that is larger is decoded to a half, a quarter or an eighth of its size.

        Raises:
            ImageDecodeError: the bytes cannot be decoded as an image.
        """
        header = read_header(data)
        if header is None:
            return cls.decode(data, scales_px)
        try:
            factor = decode_factor(min(header.width, header.height) / max(scales_px))
            image = decode_rows(data, header, header.height, factor)
        except ValueError:  # Pillow may still read it, or gives the reason why not
            return cls.decode(data, scales_px)
        source = Image.fromarray(image)
        sizes = [scaled_size(header.width, header.height, scale_px) for scale_px in scales_px]
        return cls(header.width, header.height, tuple(_resized(source, size) for size in sizes))

    def to_row(self) -> dict[str, Any]:
        """Return values for a table: sizes in pixels (alternating height, width), and the pixels of all scales."""
        sizes_px = [side for pixels in self.scaled for side in pixels.shape[:2]]
        pixels = b"".join(pixels.tobytes() for pixels in self.scaled)
        return {"width": self.width, "height": self.height, "sizes_px": sizes_px, "pixels": pixels}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "ScaledImage":
        """Inverse of :meth:`to_row`; the pixels are not copied."""
        scaled, start = [], 0
        for height, width in np.asarray(row["sizes_px"]).reshape(-1, 2).tolist():
            flat = np.frombuffer(row["pixels"], np.uint8, count=height * width * CHANNELS, offset=start)
            scaled.append(flat.reshape(height, width, CHANNELS))
            start += flat.size
        return cls(int(row["width"]), int(row["height"]), tuple(scaled))


def scale_image(image: Pixels, scales_px: Sequence[int]) -> list[Pixels]:
    """Scale (H, W, 3) so that its shorter side is each of ``scales_px``; bilinear with antialiasing.

    The four results are sent to a predictor: 1 to 2 MB at 224 px, whereas 144 crops take 22 MB.
    """
    source = Image.fromarray(image)
    sizes = [scaled_size(source.width, source.height, scale_px) for scale_px in scales_px]
    return [_resized(source, size) for size in sizes]


def _resized(source: Image.Image, size: tuple[int, int]) -> Pixels:
    pixels: Pixels = np.asarray(source.resize(size, Image.Resampling.BILINEAR))
    return pixels


def scaled_size(width: int, height: int, scale_px: int) -> tuple[int, int]:
    """Return (width, height) in pixels with ``scale_px`` as the shorter side; the longer is rounded to the nearest.

    Raises:
        ValueError: a side is not positive.
    """
    if width <= 0 or height <= 0:
        raise ValueError(f"an image needs a positive size, got {width}x{height}")
    shorter = min(width, height)
    # Integer arithmetic: halves round up on every machine.
    longer = (2 * max(width, height) * scale_px + shorter) // (2 * shorter)
    return (longer, scale_px) if width >= height else (scale_px, longer)
