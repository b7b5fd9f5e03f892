"""Pixels of an image in any form that a program may have it in: a path, a file or its bytes, a PIL image, an array."""

import errno
import inspect
import io
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from PIL import Image

from googlenet.images.decoding import ImageDecodeError, Pixels, check_number_of_bytes, check_size
from googlenet.images.inspection import decode_whole
from googlenet.images.pixel_file import UPRIGHT, orientation_of
from googlenet.images.png import EXIF_KEYWORD, XMP_KEYWORD, exif_of_profile
from googlenet.images.tiff import ORIENTATION
from googlenet.network.weight_files import local_path


@runtime_checkable
class OpenFile(Protocol):
    """A file that was opened to read bytes, or what behaves like one."""

    def read(self) -> bytes:
        """Return its bytes."""


# A path (text or Path), the bytes of an image file, the open file, a PIL image, or pixels: (H, W, 3) in the order RGB,
# (H, W, 1) or (H, W), whole numbers, in an array or in nested lists.
GivenImage = str | Path | bytes | bytearray | memoryview | OpenFile | Image.Image | npt.NDArray[Any] | list[Any]
EXPECTED = "an image is a path, the bytes of a file, an open file, a PIL image or an array of pixels"
LARGEST = 255
NO_NUMBERS = "OUSV"
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
        return decode_whole(_bytes_at(local_path(image)))
    if isinstance(image, Image.Image):
        return decode_whole(_encoded(image))
    if isinstance(image, bytes | bytearray | memoryview):
        return decode_whole(bytes(image))
    # Files of a template or a web server hand their methods on, which isinstance does not see from Python 3.12 on.
    read = getattr(image, "read", None)
    return decode_whole(_read_by(read)) if callable(read) else _rgb(image)


def _read_by(read: Callable[[], object]) -> bytes:
    data = read()
    if isinstance(data, bytes | bytearray | memoryview):
        if not len(data):
            raise ImageDecodeError(
                "the open file has nothing left to read; if it is not empty, go back to its beginning with seek(0)"
            )
        return bytes(data)
    if isinstance(data, str):
        raise ValueError(f"{EXPECTED}, got a file open for text; open it with mode rb")  # noqa: TRY004 - as of others
    if inspect.iscoroutine(data):
        data.close()  # nobody will await it
        raise ValueError(f"{EXPECTED}, got an upload whose read() must be awaited; pass await upload.read() instead")
    raise ValueError(f"{EXPECTED}, got a file whose read() returns {type(data).__name__}")


def _bytes_at(path: Path) -> bytes:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # a named pipe would be waited for
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    check_number_of_bytes(status.st_size)
    return path.read_bytes()


def _encoded(image: Image.Image) -> bytes:
    """Return an image as the bytes of a file without loss, so that it is decoded by the rules of files."""
    check_size(*image.size)
    exif = Image.Exif()
    try:
        _load(image)  # what stands behind the pixels is in its information only now
        # Also if it is upright: of a TIFF, Pillow would write the XMP as it was before it turned the picture.
        exif[ORIENTATION] = _orientation(image)
        if image.mode in CONVERTED:
            image = image.convert(CONVERTED[image.mode])
        file = io.BytesIO()
        kind = "TIFF" if image.mode in TIFF_MODES else "PNG"
        image.save(file, kind, icc_profile=None, compress_level=1, exif=exif)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's, for what is truncated, damaged or unknown
        raise ImageDecodeError(f"the PIL image of mode {image.mode} cannot be read: {error}") from error
    return file.getvalue()


def _load(image: Image.Image) -> None:
    """Read the pixels of an image that Pillow has opened.

    Raises:
        ValueError: its file was closed before; Pillow asserts that it was not, and otherwise has an error of its own.
    """
    try:
        image.load()
    except (AssertionError, AttributeError) as error:
        raise ValueError(
            "its file was closed before its pixels were read; use it inside the with block, or call its load() there"
        ) from error


def _orientation(image: Image.Image) -> int:
    """Return how to turn a loaded image upright: what its file says, unless it was turned since."""
    if image.format == "TIFF":
        return UPRIGHT  # Pillow has turned it
    exif, profile = image.info.get("exif"), image.info.get(EXIF_KEYWORD.decode())
    if isinstance(exif, Image.Exif):
        exif = exif.tobytes()
    elif exif is None and isinstance(profile, str):
        exif = exif_of_profile(profile.encode())
    xmp = image.info.get("xmp") or image.info.get(XMP_KEYWORD.decode()) or b""
    return orientation_of(exif, xmp.encode() if isinstance(xmp, str) else xmp).number


def _rgb(pixels: Any) -> Pixels:
    """Convert pixels to (H, W, 3) uint8, from which views are cut."""
    try:
        array = np.asarray(pixels)
    except ValueError as error:  # NumPy's words for lists of different lengths
        raise ValueError("pixels must be in rows of one length, with the same number of channels each") from error
    if array.ndim == 0 or array.dtype.kind in NO_NUMBERS:
        raise ValueError(f"{EXPECTED}, got {type(pixels).__name__}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim == 2:
        array = np.repeat(array[:, :, None], 3, axis=2)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        shape = f"(height, width, 3) or (height, width), got {array.shape}"
        raise ValueError(f"pixels must be of shape {shape}{_advice_on_shape(array.shape)}")
    check_size(array.shape[1], array.shape[0])
    if array.dtype != np.uint8:
        # Numbers from JSON arrive as int64.
        if not np.issubdtype(array.dtype, np.integer) or array.min() < 0 or array.max() > LARGEST:
            got = f"{array.dtype} from {array.min()} to {array.max()}{_advice_on_values(array)}"
            raise ValueError(f"pixels must be whole numbers from 0 to {LARGEST}, got {got}")
        array = array.astype(np.uint8)
    return np.ascontiguousarray(array)


def _advice_on_values(array: npt.NDArray[Any]) -> str:
    if array.dtype.kind != "f" or not 0 <= array.min() <= array.max() <= 1:
        return ""
    return ": of values from 0 to 1, give (255 * pixels).round().astype(np.uint8)"


def _advice_on_shape(shape: tuple[int, ...]) -> str:
    if len(shape) != 3 or 0 in shape:
        return ""
    if shape[2] == 4:
        return ": of pixels with transparency, give PIL.Image.fromarray(pixels)"
    return ": the channels come last" if shape[0] in (1, 3, 4) else ""
