"""Decoding of image bytes to pixels, for every format and colour mode found in image folders."""

import io
from functools import cache

import numpy as np
import numpy.typing as npt
from jaxtyping import UInt8
from PIL import Image, ImageOps

# Any height, any width: one call may take images of several sizes.
Pixels = UInt8[np.ndarray, "_ _ 3"]

# Beyond 178 megapixels Pillow itself raises an error about a decompression bomb.
MAX_IMAGE_PIXELS = 178_956_970
MAX_IMAGE_BYTES = 256 << 20
# Images are scaled by their shorter side, so a strip would become enormous.
MAX_ASPECT_RATIO = 100
# Pillow passes these to an external program.
REFUSED_FORMATS = {"EPS", "WMF"}
# The colour behind transparent pixels.
BACKGROUND_RGB = (255, 255, 255)


class ImageDecodeError(ValueError):
    """The bytes cannot be used as an image; the message gives the reason."""


def check_number_of_bytes(num_bytes: int) -> None:
    """Check that an image of ``num_bytes`` may be read.

    Raises:
        ImageDecodeError: these are more than ``MAX_IMAGE_BYTES``.
    """
    if num_bytes > MAX_IMAGE_BYTES:
        raise ImageDecodeError(f"{num_bytes:,} bytes are too many for an image ({MAX_IMAGE_BYTES:,} at most)")


def decode_rgb(data: bytes) -> Pixels:
    """Decode an image of any mode to (height, width, 3) uint8 RGB, turned upright by its EXIF orientation.

    Greyscale, palette and CMYK become RGB, 16 bits per channel become 8, transparency is composited on white.

    Raises:
        ImageDecodeError: not an image, a truncated one, one of more than ``MAX_IMAGE_PIXELS``, a strip of more than
            ``MAX_ASPECT_RATIO``, or a format that Pillow would pass to an external program.
    """
    if not data:
        raise ImageDecodeError("the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=_formats()) as image:
            check_size(*image.size)
            image.load()
            # Pillow does not rescale grey values: 16-bit and floating-point greyscale is converted to 8 bits first.
            upright = ImageOps.exif_transpose(_to_8_bit(image))
            return np.asarray(_to_rgb(upright))
    except (ImageDecodeError, MemoryError):  # an image that does not fit into memory may be valid
        raise
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, ValueError and others
        raise ImageDecodeError(_reason(error)) from error


def check_size(width: int, height: int) -> None:
    """Check that an image of ``width`` x ``height`` pixels may be processed.

    Raises:
        ImageDecodeError: it has too many pixels, or is a strip, which scaling would enlarge to many more.
    """
    if width * height > MAX_IMAGE_PIXELS:
        raise ImageDecodeError(f"{width}x{height} px is more than {MAX_IMAGE_PIXELS} pixels")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise ImageDecodeError(f"{width}x{height} px is a strip: its sides differ more than {MAX_ASPECT_RATIO}-fold")


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in Image.ID if name not in REFUSED_FORMATS)


def _to_8_bit(image: Image.Image) -> Image.Image:
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image).astype(np.float64)
    eight_bit = Image.fromarray(np.clip(np.rint(values * 255 / _white(image.mode, values)), 0, 255).astype(np.uint8))
    eight_bit.getexif().update(image.getexif())
    return eight_bit


def _white(mode: str, values: npt.NDArray[np.float64]) -> float:
    """Return the value of white: given by 16-bit modes, guessed from the values of 32-bit and floating-point ones."""
    if mode.startswith("I;16"):
        return 65535.0
    largest = values.max(initial=0.0)
    return 1.0 if mode == "F" and largest <= 1 else 255.0 if largest <= 255 else 65535.0


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode in ("RGBA", "LA", "La", "PA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        background = Image.new("RGBA", rgba.size, (*BACKGROUND_RGB, 255))
        return Image.alpha_composite(background, rgba).convert("RGB")
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    text = str(error)
    if "cannot identify image file" in text:
        return "not an image in any format that Pillow knows"
    return text or type(error).__name__
