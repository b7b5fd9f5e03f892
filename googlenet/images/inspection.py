"""Inspection of an image before it becomes part of a data set: its size, its peculiarities, and whether it is whole."""

from dataclasses import dataclass

from googlenet.images.decoding import ImageDecodeError, Pixels, decode_rgb, read_size
from googlenet.images.jpeg import read_header
from googlenet.images.jpeg_damage import Condition, Finding, check_pixel_data
from googlenet.images.jpeg_segments import START, pixel_jpeg
from googlenet.images.refusals import CONVERT
from googlenet.images.tiff import begins_with_preview

UNREADABLE_EXIF = "the Exif block cannot be read (taken as upright)"
SEVERAL_PICTURES = "the file holds several pictures (only the first is used)"


@dataclass(frozen=True)
class Inspection:
    """A usable image.

    Attributes:
        width: in pixels, upright.
        height: in pixels, upright.
        notes: what is peculiar about it, in words.
        pixels: its pixels, if they had to be decoded.
    """

    width: int
    height: int
    notes: tuple[str, ...]
    pixels: Pixels | None = None


def inspect(data: bytes) -> Inspection:
    """Check that an image can be decoded, and is whole.

    Raises:
        ImageDecodeError: it cannot be decoded, is a JPEG with damaged pixel data, or a camera's raw file.
    """
    _refuse_preview(data)
    width, height, orientation, has_more = read_size(data)
    finding = _check_jpeg(data)
    about = {UNREADABLE_EXIF: orientation.is_unreadable, SEVERAL_PICTURES: has_more, finding.text: bool(finding.text)}
    notes = tuple(note for note, is_so in about.items() if is_so)
    is_known_whole = finding.condition is Condition.WHOLE and read_header(data) is not None
    return Inspection(width, height, notes, None if is_known_whole else decode_rgb(data))


def decode_whole(data: bytes) -> Pixels:
    """Decode an image as :func:`googlenet.images.decoding.decode_rgb` does, but refuse damaged pixel data.

    Raises:
        ImageDecodeError: it cannot be decoded, is a JPEG with damaged pixel data, or a camera's raw file.
    """
    _refuse_preview(data)
    _check_jpeg(data)
    return decode_rgb(data)


def _refuse_preview(data: bytes) -> None:
    """Refuse a raw file of a camera: Pillow would decode only its preview."""
    if begins_with_preview(data):
        raise ImageDecodeError(f"a camera's raw file, or a TIFF that begins with a preview: {CONVERT}")


def _check_jpeg(data: bytes) -> Finding:
    """Return the condition of the pixel data of a JPEG; unknown for other formats."""
    if not data.startswith(START):
        return Finding(Condition.UNKNOWN)
    finding = check_pixel_data(pixel_jpeg(data))
    if finding.condition is Condition.DAMAGED:
        raise ImageDecodeError(finding.text)
    return finding
