"""PNG: the chunks that pixels need, the transparent colour, and the orientation."""

import itertools
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIXEL_CHUNKS = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
TRANSPARENCY = b"tRNS"
GREY, COLOUR, PALETTE = 0, 2, 3
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
EXIF_KEYWORD, XMP_KEYWORD = b"Raw profile type exif", b"XML:com.adobe.xmp"
# An orientation lies within these bytes of a text; a decompressed text may be enormous.
MAX_TEXT_BYTES = 1 << 20
# Interlacing: first column, first row, and the steps to the next of each pass.
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


class DamagedChunkError(ValueError):
    """A chunk that changes pixels is damaged."""


@dataclass(frozen=True)
class Chunk:
    """One chunk as it stands in the file; ``is_intact`` if it is whole and has the right checksum."""

    kind: bytes
    body: bytes
    stored: bytes
    is_intact: bool


@dataclass(frozen=True)
class PixelPng:
    """A PNG with the chunks that its pixels need.

    Attributes:
        data: the file.
        exif: its Exif block, None if it has none; empty if that is damaged.
        xmp: its XMP, empty if it has none.
        bits: bits per channel.
        transparent: the value of each channel of the transparent colour; empty if there is none.
    """

    data: bytes
    exif: bytes | None
    xmp: bytes
    bits: int
    transparent: tuple[int, ...]


def chunks(data: bytes) -> Iterator[Chunk]:
    """Yield the chunks in order; the last one may be cut off."""
    at = len(SIGNATURE)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        stored = data[at : at + 12 + length]
        is_intact = len(stored) == 12 + length and zlib.crc32(kind + body) == int.from_bytes(stored[-4:], "big")
        yield Chunk(kind, body, stored, is_intact)
        if kind == b"IEND":
            return
        at += 12 + length


def pixel_png(data: bytes) -> PixelPng:
    """Return the file without its metadata. Animations become their first picture, as everywhere.

    Raises:
        DamagedChunkError: the chunk of the transparent colour is damaged.
    """
    kept, bits, colour_type = [SIGNATURE], 8, COLOUR
    exif: bytes | None = None
    xmp, transparent = b"", tuple[int, ...]()
    for chunk in chunks(data):
        if chunk.kind == b"IHDR" and len(chunk.body) >= 13:
            bits, colour_type = chunk.body[8], chunk.body[9]
        if chunk.kind == TRANSPARENCY:
            transparent = _transparent_colour(chunk, colour_type)
        if chunk.kind in PIXEL_CHUNKS or (chunk.kind == TRANSPARENCY and colour_type == PALETTE):
            kept.append(chunk.stored)
        elif chunk.kind == b"eXIf":
            exif = chunk.body if chunk.is_intact else b""
        elif chunk.kind in (b"tEXt", b"zTXt", b"iTXt"):
            keyword, text = _text(chunk)
            if keyword == EXIF_KEYWORD and exif is None:
                exif = exif_of_profile(text)
            elif keyword == XMP_KEYWORD:
                xmp = text
    return PixelPng(b"".join(kept), exif, xmp, bits, transparent)


def is_animated(data: bytes) -> bool:
    """Return whether a file has more pictures than the first one."""
    return b"acTL" in itertools.takewhile(lambda kind: kind != b"IDAT", (chunk.kind for chunk in chunks(data)))


def _transparent_colour(chunk: Chunk, colour_type: int) -> tuple[int, ...]:
    values = {GREY: 1, COLOUR: 3, PALETTE: 0}.get(colour_type)
    if values is None:  # such a picture has an alpha channel; the chunk is not allowed
        return ()
    if not chunk.is_intact or len(chunk.body) < 2 * values:
        raise DamagedChunkError("the chunk that says what is transparent (tRNS) is damaged; save the picture again")
    return struct.unpack_from(f">{values}H", chunk.body)


def _text(chunk: Chunk) -> tuple[bytes, bytes]:
    """Return keyword and text, or what of it can be read; the text is empty for keywords that are not needed."""
    keyword, _, text = chunk.body.partition(b"\0")
    if keyword not in (EXIF_KEYWORD, XMP_KEYWORD):
        return keyword, b""
    is_compressed = chunk.kind == b"zTXt"
    if chunk.kind == b"iTXt":
        is_compressed, text = text[:1] == b"\1", text[2:].split(b"\0", 2)[-1]
    elif is_compressed:
        text = text[1:]
    return keyword, _inflate(text) if is_compressed else text[:MAX_TEXT_BYTES]


def _inflate(compressed: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(compressed, MAX_TEXT_BYTES)
    except zlib.error:
        return b""


def exif_of_profile(profile: bytes) -> bytes:
    """Return the Exif block of a text by ImageMagick: an empty line, its kind, its length, hexadecimal digits."""
    try:
        return bytes.fromhex("".join(profile.decode("ascii").split("\n")[3:]))
    except ValueError:
        return b""


def damaged_chunk(data: bytes) -> str | None:
    """Return the kind of the first chunk that pixels need and whose checksum is wrong; None if there is none."""
    return next((c.kind.decode() for c in chunks(data) if c.kind in PIXEL_CHUNKS and not c.is_intact), None)


def missing_share(data: bytes) -> float:
    """Return the share of the pixel data that a truncated file lacks; an interlaced one has a part of every row.

    A file that reaches its end chunk is not truncated.
    """
    if any(chunk.kind == b"IEND" for chunk in chunks(data)):
        return 0.0
    header = next((chunk.body for chunk in chunks(data) if chunk.kind == b"IHDR"), b"")
    if len(header) < 13:
        return 1.0
    width, height, bits, colour_type = struct.unpack_from(">IIBB", header)
    bits_per_pixel = bits * CHANNELS.get(colour_type, 1)
    passes = ADAM7 if header[12] else ((0, 0, 1, 1),)
    total = 0
    for column, row, columns, rows in passes:
        pass_width, pass_height = -(-max(0, width - column) // columns), -(-max(0, height - row) // rows)
        total += pass_height * (1 + -(-pass_width * bits_per_pixel // 8)) if pass_width else 0
    present = sum(map(len, _inflated(b"".join(c.body for c in chunks(data) if c.kind == b"IDAT"), total)))
    return max(0.0, 1 - present / total) if total else 1.0


def _inflated(compressed: bytes, limit: int) -> Iterator[bytes]:
    """Yield what can be decompressed, in pieces, up to about ``limit`` bytes."""
    inflater, done = zlib.decompressobj(), 0
    try:
        while compressed and done < limit and not inflater.eof:
            piece = inflater.decompress(compressed, MAX_TEXT_BYTES)
            compressed, done = inflater.unconsumed_tail, done + len(piece)
            yield piece
    except zlib.error:
        return
