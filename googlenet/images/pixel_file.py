"""An image file without its metadata, which may be damaged or enormous, and the metadata that decoding needs."""

import re
from dataclasses import dataclass

from googlenet.images import png
from googlenet.images.jpeg_damage import completed_jpeg
from googlenet.images.jpeg_segments import START, pixel_jpeg
from googlenet.images.tiff import DamagedBlockError, exif_orientation, pixel_tiff, xmp_orientation

UPRIGHT = 1
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# An entry of an AVIF's list of items: version and flags, number, protection, kind. The orientation is no part of Exif.
AVIF_EXIF_ITEM = re.compile(rb"(infe\x02.{7})Exif", re.DOTALL)


@dataclass(frozen=True)
class PixelFile:
    """A file that decodes to the same pixels, without metadata.

    Attributes:
        data: the file.
        exif: its Exif block, None if it has none, or if the decoder has to find it.
        xmp: its XMP, likewise.
        bits: bits per channel, if they matter.
        transparent: the transparent colour of a PNG without alpha channel, empty if it has none.
        is_white_zero: deep grey values are to be inverted.
        is_unsigned: grey values of 32 bits are unsigned.
        is_signed: grey values of 8 or 16 bits are signed.
    """

    data: bytes
    exif: bytes | None = None
    xmp: bytes = b""
    bits: int = 8
    transparent: tuple[int, ...] = ()
    is_white_zero: bool = False
    is_unsigned: bool = False
    is_signed: bool = False


def pixel_file(data: bytes) -> PixelFile:
    """Return the file without its metadata; of a format that is not taken apart here, the file as it is.

    Raises:
        googlenet.images.png.DamagedChunkError: a part that decides pixels is damaged.
    """
    if data.startswith(START):
        jpeg = pixel_jpeg(data)
        return PixelFile(completed_jpeg(jpeg) or jpeg.data, jpeg.exif, jpeg.xmp)
    if data.startswith(png.SIGNATURE):
        picture = png.pixel_png(data)
        return PixelFile(picture.data, picture.exif, picture.xmp, picture.bits, picture.transparent)
    if data.startswith(TIFF_STARTS):
        try:
            tiff = pixel_tiff(data)
        except DamagedBlockError:  # the decoder says what is wrong
            return PixelFile(data)
        return PixelFile(tiff.data, data, tiff.xmp, tiff.bits, (), tiff.is_white_zero, tiff.is_unsigned, tiff.is_signed)
    if data[4:12] == b"ftypavif":
        return PixelFile(AVIF_EXIF_ITEM.sub(rb"\1skip", data))
    return PixelFile(data)


@dataclass(frozen=True)
class Orientation:
    """How to turn a picture upright: a number from 1 to 8, as in Exif.

    ``is_unreadable`` if there is an Exif block that cannot be read; it counts as none.
    """

    number: int = UPRIGHT
    is_unreadable: bool = False


def orientation_of(exif: bytes | None, xmp: bytes) -> Orientation:
    """Return the orientation from an Exif block, or else from XMP."""
    number, is_unreadable = None, False
    if exif is not None:
        try:
            number = exif_orientation(exif)
        except DamagedBlockError:
            is_unreadable = True
    return Orientation(number or xmp_orientation(xmp) or UPRIGHT, is_unreadable)
