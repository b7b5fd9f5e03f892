"""Image files made by hand, for what Pillow cannot write; and other decoders to compare with."""

import io
import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
import pyvips
from PIL import Image

TIFF_SHORT, TIFF_LONG = 3, 4


def encode(image: Image.Image, form: str = "JPEG", **options: object) -> bytes:
    """Return the image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def heic(*pictures: Image.Image, **options: object) -> bytes:
    """Return the pictures as a file of iPhones, without telling Pillow of the format: that is for the product to do."""
    import pillow_heif  # not above: the checks of a GPU do without it

    file, buffer = pillow_heif.HeifFile(), io.BytesIO()
    for picture in pictures:
        file.add_from_pillow(picture)
    file.save(buffer, quality=90, **options)
    return buffer.getvalue()


@lru_cache(16)
def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth shapes and fine noise; the same image each time, not to be changed."""
    generator = np.random.default_rng(seed)
    small = Image.fromarray(generator.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    pixels = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).astype(float)
    return Image.fromarray(np.clip(pixels + generator.normal(0, 12, pixels.shape), 0, 255).astype(np.uint8))


def exif_block(*entries: bytes, byte_order: str = ">") -> bytes:
    """An Exif block with these 12-byte entries."""
    mark = b"MM" if byte_order == ">" else b"II"
    head = struct.pack(byte_order + "2sHIH", mark, 42, 8, len(entries))
    return b"Exif\0\0" + head + b"".join(entries) + bytes(4) + bytes(16)


def exif_entry(tag: int, kind: int, count: int, value: int | bytes, byte_order: str = ">") -> bytes:
    """One entry; a number is stored as its type demands, bytes as they are."""
    if isinstance(value, int) and kind == TIFF_SHORT:
        value = struct.pack(byte_order + "HH", value, 0)
    elif isinstance(value, int):
        value = struct.pack(byte_order + "I", value)
    return struct.pack(byte_order + "HHI", tag, kind, count) + value.ljust(4, b"\0")


def png_chunk(kind: bytes, body: bytes, crc_error: int = 0) -> bytes:
    """One chunk; with a wrong checksum, if asked for."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ crc_error)


def png(pixels: np.ndarray, bits: int, *extra: bytes) -> bytes:
    """A PNG of (height, width) grey or (height, width, 3) colour, with further chunks before the pixels."""
    height, width = pixels.shape[:2]
    if bits >= 8:
        rows = pixels.astype(f">u{bits // 8}").reshape(height, -1)
        packed = [row.tobytes() for row in rows]
    else:
        wide = [np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :].ravel() for row in pixels]
        packed = [np.packbits(row).tobytes() for row in wide]
    header = struct.pack(">IIBBBBB", width, height, bits, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in packed))
    chunks = [png_chunk(b"IHDR", header), *extra, png_chunk(b"IDAT", data), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def with_chunks(file: bytes, *extra: bytes) -> bytes:
    """A PNG with further chunks after its header."""
    after_header = 8 + 25
    return file[:after_header] + b"".join(extra) + file[after_header:]


def with_segment(file: bytes, marker: int, body: bytes) -> bytes:
    """A JPEG with a further segment at its beginning."""
    return file[:2] + struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body + file[2:]


def tiff(
    values: np.ndarray,
    white_is_zero: bool = False,
    byte_order: str = "<",
    extra: Sequence[tuple] = (),
    bits: int | None = None,
    width: int | None = None,
) -> bytes:
    """An uncompressed TIFF of (height, width) grey values of any type; packed ones state ``bits`` and ``width``."""
    height = len(values)
    bits, width = bits or 8 * values.itemsize, width or values.shape[1]
    payload = values.astype(values.dtype.newbyteorder(byte_order)).tobytes()
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    tags: list[tuple] = [
        (256, TIFF_SHORT, width), (257, TIFF_SHORT, height), (258, TIFF_SHORT, bits), (259, TIFF_SHORT, 1),
        (262, TIFF_SHORT, 0 if white_is_zero else 1), (273, TIFF_LONG, 0), (277, TIFF_SHORT, 1),
        (278, TIFF_SHORT, height), (279, TIFF_LONG, len(payload)), (339, TIFF_SHORT, kind), *extra,
    ]  # fmt: skip
    start = 8 + 2 + 12 * len(tags) + 4
    entries = [
        exif_entry(tag, form, 1, start if tag == 273 else value, byte_order) for tag, form, value in sorted(tags)
    ]
    mark = b"II" if byte_order == "<" else b"MM"
    return struct.pack(byte_order + "2sHIH", mark, 42, 8, len(tags)) + b"".join(entries) + bytes(4) + payload


def tga(pixels: np.ndarray, descriptor: int) -> bytes:
    """An uncompressed TGA of (height, width, 4) RGBA, top row first."""
    height, width = pixels.shape[:2]
    header = struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, width, height, 32, 0x20 | descriptor)
    return header + pixels[:, :, [2, 1, 0, 3]].tobytes()


def opencv(file: bytes) -> np.ndarray | None:
    """(height, width, 3) RGB of 8 bits by OpenCV, turned upright; None if it refuses the file."""
    pixels = cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR)
    return None if pixels is None else pixels[:, :, ::-1]


def libvips(file: bytes) -> np.ndarray:
    """(height, width, 3) RGB of 8 bits on white by libvips, turned upright; raises pyvips.Error if it refuses."""
    image = pyvips.Image.new_from_buffer(file, "").autorot().colourspace("srgb")
    if image.hasalpha():
        image = image.flatten(background=255)
    return image.cast("uchar").numpy()
