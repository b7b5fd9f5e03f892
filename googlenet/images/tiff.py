"""TIFF directories: the tags that pixels need, and the orientation. An Exif block has the structure of a TIFF file."""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from googlenet.images.jpeg_segments import EXIF

ORIENTATION, XMP = 274, 700
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLES_PER_PIXEL, SAMPLE_FORMAT = 258, 262, 277, 339
SUBFILE_TYPE, DNG_VERSION = 254, 50706
# Bits of SUBFILE_TYPE: the picture is a smaller copy of another one in the file, or says where that is transparent.
REDUCED, MASK = 1, 4
WHITE_IS_ZERO, BLACK_IS_ZERO = 0, 1
UNSIGNED, SIGNED = 1, 2
# Offsets and lengths of the strips, and of the tiles.
EXTENTS = ((273, 279), (324, 325))
# Tags below 700 that describe a picture without changing its pixels: names, resolution, date, page, thumbnails.
DESCRIPTIONS = {269, 270, 271, 272, 274, 282, 283, 285, 286, 287, 296, 297, 305, 306, 315, 316, 330, 333, 337}
BYTE, SHORT, LONG, LONG8 = 1, 3, 4, 16
TYPE_FORMATS = {BYTE: "B", SHORT: "H", LONG: "I", LONG8: "Q"}
# More than any file needs; a damaged number of tags may be enormous.
MAX_TAGS = 4096
XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([1-8])')


class DamagedBlockError(ValueError):
    """A directory of tags cannot be read."""


@dataclass(frozen=True)
class Entry:
    """One tag of a directory: where its 12 bytes (20 in a BigTIFF) lie, and where its value does."""

    tag: int
    type: int
    count: int
    at: int
    value_at: int


@dataclass(frozen=True)
class Directory:
    """The first directory of a block: its layout, and its tags; not ``is_whole`` if some lie beyond the end."""

    byte_order: str
    is_big: bool
    at: int
    entries: tuple[Entry, ...]
    is_whole: bool

    def number(self, block: bytes, tag: int) -> int | None:
        """Return the first value of a tag; None if the directory lacks it.

        Raises:
            DamagedBlockError: it is not a whole number, or lies beyond the end.
        """
        numbers = self.numbers(block, tag, at_most=1)
        return numbers[0] if numbers else None

    def numbers(self, block: bytes, tag: int, at_most: int = 1 << 20) -> tuple[int, ...]:
        """Return the values of a tag, ``at_most`` so many; none if the directory lacks it.

        Raises:
            DamagedBlockError: they are not whole numbers, or lie beyond the end.
        """
        entry = next((entry for entry in self.entries if entry.tag == tag), None)
        if entry is None:
            return ()
        if entry.type not in TYPE_FORMATS or entry.count < 1:
            raise DamagedBlockError(f"tag {tag} is not a whole number")
        count = min(entry.count, at_most)
        return _unpack(f"{self.byte_order}{count}{TYPE_FORMATS[entry.type]}", block, entry.value_at)


def read_directory(block: bytes) -> Directory:
    """Return the first directory of a TIFF file or of an Exif block.

    Raises:
        DamagedBlockError: there is none.
    """
    byte_order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if byte_order is None:
        raise DamagedBlockError("it does not begin like a TIFF file")
    version, at = _unpack(byte_order + "HI", block, 2)
    is_big = version == 43
    if is_big:
        (at,) = _unpack(byte_order + "Q", block, 8)
    elif version != 42:
        raise DamagedBlockError(f"it has version {version} instead of 42")
    (count,) = _unpack(byte_order + ("Q" if is_big else "H"), block, at)
    entries = tuple(_entries(block, byte_order, is_big, at, count))
    return Directory(byte_order, is_big, at, entries, len(entries) == count)


def _entries(block: bytes, byte_order: str, is_big: bool, at: int, count: int) -> Iterator[Entry]:
    size, first = (20, at + 8) if is_big else (12, at + 2)
    bytes_inside = size - (12 if is_big else 8)
    for place in range(first, min(first + size * min(count, MAX_TAGS), len(block) - size + 1), size):
        tag, kind, values = _unpack(byte_order + ("HHQ" if is_big else "HHI"), block, place)
        inside = place + size - bytes_inside
        if kind in TYPE_FORMATS and values * struct.calcsize(TYPE_FORMATS[kind]) <= bytes_inside:
            yield Entry(tag, kind, values, place, inside)
        else:
            offset = _unpack(byte_order + ("Q" if is_big else "I"), block, inside)[0]
            yield Entry(tag, kind, values, place, offset)


def stated_size(data: bytes) -> int:
    """Return where the pixel data of a TIFF file end by its directory, or where a missing directory begins."""
    byte_order = "<" if data[:2] == b"II" else ">"
    try:
        directory = read_directory(data)
        ends = [
            offset + length
            for offsets, lengths in EXTENTS
            for offset, length in zip(directory.numbers(data, offsets), directory.numbers(data, lengths), strict=False)
        ]
        return max(ends, default=0)
    except DamagedBlockError:
        return _unpack(byte_order + "I", data.ljust(8, b"\0"), 4)[0] + 2


def begins_with_preview(data: bytes) -> bool:
    """Return whether the first picture of a TIFF file is a small copy of another, as in the raw files of cameras."""
    try:
        directory = read_directory(data)
        is_reduced = bool((directory.number(data, SUBFILE_TYPE) or 0) & REDUCED)
    except DamagedBlockError:
        return False
    return is_reduced or data[8:10] == b"CR" or any(entry.tag == DNG_VERSION for entry in directory.entries)


def exif_orientation(block: bytes) -> int | None:
    """Return the orientation of an Exif block, 1 to 8; None if it has none, or 0 for unknown. Reads no other tag.

    Raises:
        DamagedBlockError: the block or the tag cannot be read.
    """
    block = block.removeprefix(EXIF)
    directory = read_directory(block)
    orientation = directory.number(block, ORIENTATION)
    if orientation is None and not directory.is_whole:
        raise DamagedBlockError("its directory is cut off")
    if orientation is not None and not 0 <= orientation <= 8:
        raise DamagedBlockError(f"its orientation is {orientation}")
    return orientation or None  # some cameras write 0


def xmp_orientation(xmp: bytes) -> int | None:
    """Return the orientation that XMP names, 1 to 8; None if it names none."""
    match = XMP_ORIENTATION.search(xmp)
    return int(match[1]) if match else None


@dataclass(frozen=True)
class PixelTiff:
    """A TIFF file with the tags that its pixels need.

    Attributes:
        data: the file; deep grey values are stored as black-is-zero and signed, which Pillow reads.
        xmp: its XMP, empty if it has none.
        bits: bits per sample.
        is_white_zero: the values are to be inverted.
        is_unsigned: values of 32 bits are unsigned.
        is_signed: values of 8 or 16 bits are signed.
    """

    data: bytes
    xmp: bytes
    bits: int
    is_white_zero: bool
    is_unsigned: bool
    is_signed: bool


def pixel_tiff(data: bytes) -> PixelTiff:
    """Return the file without the tags that only describe the picture.

    Raises:
        DamagedBlockError: it has no directory that can be read.
    """
    directory = read_directory(data)
    bits = directory.number(data, BITS_PER_SAMPLE) or 1
    sample_format = directory.number(data, SAMPLE_FORMAT) or UNSIGNED
    is_signed = bits <= 16 and sample_format == SIGNED
    # Pillow inverts values of 8 bits itself, if they are unsigned.
    is_white_zero = (bits > 8 or is_signed) and directory.number(data, PHOTOMETRIC) == WHITE_IS_ZERO
    is_unsigned = bits == 32 and sample_format == UNSIGNED
    changed = bytearray(data)
    for entry in directory.entries:
        if entry.tag == PHOTOMETRIC and is_white_zero:
            _write_number(changed, directory, entry, BLACK_IS_ZERO)
        if entry.tag == SAMPLE_FORMAT and is_unsigned:
            _write_number(changed, directory, entry, SIGNED)
        if entry.tag == ORIENTATION:
            # Pillow would turn the picture as well; 0 is a tag that nobody knows.
            struct.pack_into(directory.byte_order + "H", changed, entry.at, 0)
    xmp = next((data[e.value_at : e.value_at + e.count] for e in directory.entries if e.tag == XMP), b"")
    return PixelTiff(_without_descriptions(changed, directory), xmp, bits, is_white_zero, is_unsigned, is_signed)


def _write_number(data: bytearray, directory: Directory, entry: Entry, value: int) -> None:
    struct.pack_into(directory.byte_order + TYPE_FORMATS[entry.type], data, entry.value_at, value)


def _without_descriptions(data: bytearray, directory: Directory) -> bytes:
    """Move the remaining entries together, in place; only if the directory is whole."""
    if not directory.is_whole or not directory.entries:
        return bytes(data)
    kept = [entry for entry in directory.entries if entry.tag < XMP and entry.tag not in DESCRIPTIONS]
    size = 20 if directory.is_big else 12
    first = directory.entries[0].at
    packed = b"".join(bytes(data[entry.at : entry.at + size]) for entry in kept)
    end = first + size * len(directory.entries)
    next_directory = bytes(data[end : end + (8 if directory.is_big else 4)])
    data[first : first + len(packed) + len(next_directory)] = packed + next_directory
    struct.pack_into(directory.byte_order + ("Q" if directory.is_big else "H"), data, directory.at, len(kept))
    return bytes(data)


def _unpack(form: str, block: bytes, at: int) -> tuple[int, ...]:
    try:
        return struct.unpack_from(form, block, at)
    except (struct.error, OverflowError) as error:  # the latter for offsets from 2^63 on, which a BigTIFF can state
        raise DamagedBlockError(f"it ends at byte {len(block)}, before byte {at}") from error
