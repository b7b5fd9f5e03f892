"""Decoding of image bytes to pixels, for every format and colour mode found in image folders."""

import io
import itertools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

from googlenet.images import png
from googlenet.images.grey_levels import FLOAT, SIGNED, UNSIGNED, to_8_bit, white_of
from googlenet.images.limits import MAX_ASPECT_RATIO, MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS
from googlenet.images.pixel_file import Orientation, PixelFile, orientation_of, pixel_file
from googlenet.images.refusals import reason_for_refusal
from googlenet.images.tiff import MASK, REDUCED, SUBFILE_TYPE
from googlenet.shapes import UInt8

# Any height, any width: one call may take images of several sizes.
Pixels = UInt8[np.ndarray, "_ _ 3"]

# Pillow passes these to an external program.
REFUSED_FORMATS = {"EPS", "WMF"}
# A file may hold several pictures, and Pillow says so. Behind the first one of a JPEG lie previews and maps of it.
FORMATS_OF_SEVERAL = {"AVIF", "GIF", "HEIF", "TIFF", "WEBP"}
# The colour behind transparent pixels.
BACKGROUND_RGB = (255, 255, 255)
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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
    """Decode an image of any mode to (height, width, 3) uint8 RGB, turned upright by its orientation tag.

    Greyscale, palette and CMYK become RGB, 16 bits per channel become 8, transparency is composited on white. Damaged
    metadata are ignored. A JPEG with damaged pixel data is decoded as far as possible; see
    :func:`googlenet.images.inspection.inspect`.

    Raises:
        ImageDecodeError: not an image, a truncated one, one of more than ``MAX_IMAGE_PIXELS``, a strip of more than
            ``MAX_ASPECT_RATIO``, or a format that Pillow would pass to an external program.
    """
    with _opened(data) as (image, file, orientation):
        image.load()
        rgb = _to_rgb(image, file)
        turn = TURNS.get(orientation.number)
        return np.asarray(rgb if turn is None else rgb.transpose(turn))


def read_size(data: bytes) -> tuple[int, int, Orientation, bool]:
    """Return the width and height in pixels of the upright image, its orientation tag, and whether more images follow.

    Nothing is decoded.

    Raises:
        ImageDecodeError: as :func:`decode_rgb`, as far as the header tells.
    """
    with _opened(data) as (image, _, orientation):
        width, height = image.size if orientation.number < 5 else reversed(image.size)
        return width, height, orientation, _has_more(image, data)


@contextmanager
def _opened(data: bytes) -> Iterator[tuple[Image.Image, PixelFile, Orientation]]:
    """Open an image of an allowed size; turn errors within the context into ImageDecodeError."""
    if not data:
        raise ImageDecodeError("the file is empty")
    try:
        file = pixel_file(data)
        with Image.open(io.BytesIO(file.data), formats=_formats()) as image:
            check_size(*image.size)
            yield image, file, _orientation(image, file)
    except (ImageDecodeError, MemoryError):  # an image that does not fit into memory may be valid
        raise
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, ValueError and others
        raise ImageDecodeError(reason_for_refusal(data, error)) from error


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
    try:
        import pillow_heif

        pillow_heif.register_heif_opener()
    except ImportError:  # HEIC is refused, with the advice to install it
        pass
    return tuple(name for name in Image.ID if name not in REFUSED_FORMATS)


def _has_more(image: Image.Image, data: bytes) -> bool:
    """Return whether other frames or pages follow in a file; smaller copies and masks of the picture are none."""
    if image.format == "PNG":
        return png.is_animated(data)
    with suppress(Exception):  # EOFError behind the last page, and others where what follows is damaged
        if image.format not in FORMATS_OF_SEVERAL or not getattr(image, "is_animated", False):
            return False
        if not isinstance(image, TiffImagePlugin.TiffImageFile):
            return True
        for page in itertools.count(1):
            image.seek(page)
            if not image.tag_v2.get(SUBFILE_TYPE, 0) & (REDUCED | MASK):
                return True
    return False


def _orientation(image: Image.Image, file: PixelFile) -> Orientation:
    exif, xmp = image.info.get("exif"), image.info.get("xmp", b"")
    return orientation_of(file.exif if exif is None else exif, file.xmp or (xmp if isinstance(xmp, bytes) else b""))


def _to_rgb(image: Image.Image, file: PixelFile) -> Image.Image:
    if file.is_signed or _is_deep_grey(image):
        rgb = _grey_to_8_bit(image, file).convert("RGB")
    else:
        rgb = _on_background(image.convert("RGB") if _alpha_is_unused(image, file) else image)
    if not file.transparent:
        return rgb
    pixels = np.array(rgb)
    pixels[_has_colour(image, file)] = BACKGROUND_RGB
    return Image.fromarray(pixels)


def _is_deep_grey(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _grey_to_8_bit(image: Image.Image, file: PixelFile) -> Image.Image:
    values = np.asarray(image)
    if file.is_signed:
        values = values.view(np.int8) if file.bits == 8 else values
        white = 2.0 ** (file.bits - 1) - 1
    elif image.mode.startswith("I;16"):
        white = 2.0**12 - 1 if file.bits == 12 else 2.0**16 - 1
    elif image.mode == "I" and image.format == "PPM":
        white = 2.0**16 - 1  # Pillow scales by the white that the file names
    elif file.is_unsigned:
        values = values.view(np.uint32)
        white = white_of(values, UNSIGNED)
    else:
        white = white_of(values, FLOAT if image.mode == "F" else SIGNED)
    return Image.fromarray(to_8_bit(values, white, file.is_white_zero))


def _alpha_is_unused(image: Image.Image, file: PixelFile) -> bool:
    """Return whether a file says that its fourth channel has no meaning; Pillow takes it for alpha."""
    return image.format == "TGA" and file.data[17] & 0x0F == 0


def _on_background(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode in ("RGBA", "LA", "La", "PA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        background = Image.new("RGBA", rgba.size, (*BACKGROUND_RGB, 255))
        return Image.alpha_composite(background, rgba).convert("RGB")
    return image.convert("RGB")


def _has_colour(image: Image.Image, file: PixelFile) -> npt.NDArray[np.bool_]:
    """Return (height, width): where a PNG has its transparent colour, compared in all of its bits."""
    largest = 2**file.bits - 1
    colour = [value & largest for value in file.transparent]
    if len(colour) == 1 and file.bits < 16:
        channels, colour = np.asarray(image.convert("L")), [colour[0] * 255 // largest]
    elif len(colour) == 1 or file.bits == 8:
        channels = np.asarray(image)
    else:
        import cv2  # Pillow reduces 16 bits per colour to 8

        stored = np.frombuffer(file.data, np.uint8)
        channels = np.asarray(cv2.imdecode(stored, cv2.IMREAD_UNCHANGED))[:, :, ::-1]
    is_same: npt.NDArray[np.bool_] = channels.reshape(*channels.shape[:2], -1) == colour
    return np.asarray(is_same.all(axis=2))
