"""Pixels of an image in any form that a program may have it in: a path, the bytes of a file, a PIL image, an array."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from googlenet.images.decoding import ImageDecodeError, Pixels, check_number_of_bytes, check_size
from googlenet.images.inspection import decode_whole

# A path (text or Path), the bytes of an image file, a PIL image, or pixels: (H, W, 3) or (H, W), whole numbers.
GivenImage = str | Path | bytes | Image.Image | npt.NDArray[Any]
LARGEST = 255
# Modes that PNG does not hold. The others are written as PNG, which keeps transparent colours.
TIFF_MODES = ("I", "F", "CMYK", "YCbCr")
# Modes that neither format holds, and one that does not lose what is needed of them.
CONVERTED = {"La": "LA", "PA": "RGBA", "RGBa": "RGBA", "RGBX": "RGB", "HSV": "RGB", "LAB": "RGB"}


def pixels_of(image: GivenImage) -> Pixels:
    """Return the (H, W, 3) uint8 RGB pixels of an image, upright.

    Raises:
        OSError: a path cannot be read.
        ImageDecodeError: the file, the bytes or the PIL image cannot be decoded, or are a JPEG with missing pixel data.
        ValueError: an array has another shape or other values; the limits are those of files.
    """
    if isinstance(image, str | Path):
        path = Path(image)
        check_number_of_bytes(path.stat().st_size)
        return decode_whole(path.read_bytes())
    if isinstance(image, Image.Image):
        return decode_whole(_encoded(image))
    return decode_whole(image) if isinstance(image, bytes) else _rgb(image)


def _encoded(image: Image.Image) -> bytes:
    """Return an image as the bytes of a file without loss, so that it is decoded by the rules of files."""
    check_size(*image.size)
    exif = image.info.get("exif")  # for its orientation
    try:
        image.load()
        if image.mode in CONVERTED:
            image = image.convert(CONVERTED[image.mode])
        file = io.BytesIO()
        kind = "TIFF" if image.mode in TIFF_MODES else "PNG"
        image.save(file, kind, icc_profile=None, compress_level=1, **({"exif": exif} if exif else {}))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's, for what is truncated, damaged or unknown
        raise ImageDecodeError(f"the PIL image of mode {image.mode} cannot be read: {error}") from error
    return file.getvalue()


def _rgb(pixels: npt.ArrayLike) -> Pixels:
    """Convert pixels to (H, W, 3) uint8, from which views are cut."""
    array = np.asarray(pixels)
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ValueError(f"pixels must be of shape (height, width, 3) or (height, width), got {array.shape}")
    check_size(array.shape[1], array.shape[0])
    if array.dtype != np.uint8:
        # Numbers from JSON arrive as int64.
        if not np.issubdtype(array.dtype, np.integer) or array.min() < 0 or array.max() > LARGEST:
            raise ValueError(f"pixels must be whole numbers from 0 to {LARGEST}, got {array.dtype}")
        array = array.astype(np.uint8)
    return np.ascontiguousarray(array)
