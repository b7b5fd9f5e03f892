"""Damaged metadata cost no picture: its pixels are those that OpenCV and libvips decode."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from googlenet.images.decoding import ImageDecodeError, decode_rgb
from googlenet.images.inspection import UNREADABLE_EXIF, inspect
from tests.picture_files import (
    TIFF_SHORT,
    encode,
    exif_block,
    exif_entry,
    libvips,
    opencv,
    photograph,
    png_chunk,
    tiff,
    with_chunks,
    with_segment,
)

ORIENTATION, RESOLUTION, ASCII, RATIONAL = 274, 282, 2, 5
PHOTO = photograph(64, 48)
TURNED = exif_entry(ORIENTATION, TIFF_SHORT, 1, 6)
# A rational of denominator 0 at offset 38, behind the directory of two entries.
ZERO_DENOMINATOR = exif_block(TURNED, exif_entry(RESOLUTION, RATIONAL, 1, 38))
TEXT_FOR_A_NUMBER = exif_block(
    TURNED, exif_entry(RESOLUTION, ASCII, 4, b"abc\0"), exif_entry(37386, ASCII, 4, b"5\0\0\0")
)
BEYOND_THE_END = exif_block(TURNED, exif_entry(34665, 4, 1, 99_999_999), exif_entry(700, 1, 4_000_000_000, 8))
READABLE = {"zero denominator": ZERO_DENOMINATOR, "text": TEXT_FOR_A_NUMBER, "beyond the end": BEYOND_THE_END}
UNREADABLE = {
    "rubbish": b"Exif\0\0" + bytes(range(200, 256)) * 3,
    "nothing": b"Exif\0\0",
    "half a directory": b"Exif\0\0" + struct.pack(">2sHIH", b"MM", 42, 8, 40) + bytes(12),
    "text for the orientation": exif_block(exif_entry(ORIENTATION, ASCII, 2, b"6\0")),
    "a BigTIFF whose directory lies at 2^64 - 1": b"Exif\0\0II+\0\x08\0\0\0" + b"\xff" * 8,
    "a BigTIFF whose orientation lies at 2^63": b"Exif\0\0II+\0\x08\0\0\0"
    + struct.pack("<QQHHQQ", 16, 1, ORIENTATION, TIFF_SHORT, 5, 1 << 63),
    "orientation 77": exif_block(exif_entry(ORIENTATION, TIFF_SHORT, 1, 77)),
    "orientation beyond the end": exif_block(exif_entry(ORIENTATION, TIFF_SHORT, 9, b"\0\1\0\0")),
}


def jpeg_with(exif: bytes) -> bytes:
    return with_segment(encode(PHOTO, quality=95), 0xE1, exif)


def png_with(exif: bytes) -> bytes:
    return with_chunks(encode(PHOTO, "PNG"), png_chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")))


def webp_with(exif: bytes) -> bytes:
    return encode(PHOTO, "WEBP", lossless=True, exif=exif)


FORMATS = {"JPEG": jpeg_with, "PNG": png_with, "WebP": webp_with}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", READABLE)
def test_only_the_orientation_is_needed_of_exif(form: str, kind: str) -> None:
    data = FORMATS[form](READABLE[kind])
    decoded = decode_rgb(data).astype(int)
    assert np.abs(decoded - opencv(data)).max() <= 1
    assert np.abs(decoded - libvips(data)).max() <= 1
    seen = inspect(data)
    assert (seen.width, seen.height, seen.notes) == (48, 64, ())


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", UNREADABLE)
def test_an_exif_block_that_cannot_be_read_counts_as_none_and_is_noted(form: str, kind: str) -> None:
    data = FORMATS[form](UNREADABLE[kind])
    if (form, kind) == ("WebP", "nothing"):
        pytest.skip("Pillow writes no empty block")
    decoded = decode_rgb(data).astype(int)
    assert np.abs(decoded - opencv(data)).max() <= 1
    assert np.abs(decoded - libvips(data)).max() <= 1
    seen = inspect(data)
    assert (seen.width, seen.height, seen.notes) == (64, 48, (UNREADABLE_EXIF,))


@pytest.mark.parametrize("orientation", range(9))  # some cameras write 0, for unknown
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_every_orientation_is_turned_as_others_turn_it(form: str, orientation: int, byte_order: str) -> None:
    exif = exif_block(exif_entry(ORIENTATION, TIFF_SHORT, 1, orientation, byte_order), byte_order=byte_order)
    data = FORMATS[form](exif)
    decoded = decode_rgb(data).astype(int)
    assert np.abs(decoded - libvips(data)).max() <= 1
    assert np.abs(decoded - opencv(data)).max() <= 1
    seen = inspect(data)
    assert (seen.width, seen.notes) == (decoded.shape[1], ())


def test_orientation_in_other_places_is_read_too() -> None:
    """In XMP, and in the text of a PNG by ImageMagick, where OpenCV and libvips do not look."""
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    block = exif_block(TURNED)
    profile = b"\nexif\n%8d\n%s\n" % (len(block), block.hex().encode())
    raw = png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile))
    text = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
    for data in (
        encode(PHOTO, "WEBP", lossless=True, xmp=xmp),
        *(with_chunks(encode(PHOTO, "PNG"), c) for c in (raw, text)),
    ):
        assert np.array_equal(decode_rgb(data), np.rot90(np.asarray(PHOTO), -1))


def large_text() -> bytes:
    return png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(PngImagePlugin.MAX_TEXT_CHUNK + 1)))


LARGE_OR_WRONG = {
    "a compressed text over Pillow's limit": [large_text()],
    "texts over Pillow's limit together": [png_chunk(b"tEXt", b"Comment\0" + b"a" * (1 << 20))] * 65,
    "a profile over Pillow's limit": [png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes((1 << 20) + 1)))],
    "a profile in an unknown compression": [png_chunk(b"iCCP", b"icc\0\7" + b"abc")],
    "a text with a wrong checksum": [png_chunk(b"tEXt", b"Comment\0good", crc_error=1)],
    "a gamma with a wrong checksum": [png_chunk(b"gAMA", bytes(4), crc_error=1)],
    "a resolution that is too short": [png_chunk(b"pHYs", b"\0")],
    "a text with the name of a property": [png_chunk(b"tEXt", b"transparency\0red")],
}


@pytest.mark.parametrize("kind", LARGE_OR_WRONG)
def test_pngs_with_large_or_damaged_metadata_are_used(kind: str) -> None:
    data = with_chunks(encode(PHOTO, "PNG"), *LARGE_OR_WRONG[kind])
    decoded = decode_rgb(data)
    assert np.array_equal(decoded, libvips(data))
    assert np.array_equal(decoded, opencv(data))
    assert inspect(data).notes == ()


def test_an_orientation_with_a_wrong_checksum_is_noted() -> None:
    data = with_chunks(encode(PHOTO, "PNG"), png_chunk(b"eXIf", exif_block(TURNED)[6:], crc_error=1))
    assert np.array_equal(decode_rgb(data), np.asarray(PHOTO))
    assert inspect(data).notes == (UNREADABLE_EXIF,)


def test_transparency_is_no_metadata() -> None:
    data = with_chunks(encode(PHOTO, "PNG"), png_chunk(b"tRNS", bytes(6), crc_error=1))
    with pytest.raises(ImageDecodeError, match=r"tRNS\) is damaged"):
        decode_rgb(data)


def test_rubbish_in_other_segments_of_a_jpeg_costs_nothing() -> None:
    plain = encode(PHOTO)
    for marker in (0xE1, 0xE2, 0xED, 0xEF, 0xFE):
        for start in (b"", b"Photoshop 3.0\0" + b"8BIM\x03\xed", b"MPF\0MM", b"ICC_PROFILE\0", b"FPXR\0"):
            data = with_segment(plain, marker, start + b"\x01")
            assert np.array_equal(decode_rgb(data), opencv(plain)), (marker, start)
            assert inspect(data).notes == ()


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_a_tiff_with_a_damaged_description_is_used_and_turned(byte_order: str) -> None:
    grey = np.asarray(PHOTO.convert("L"))
    damaged = [(282, ASCII, b"abc\0"), (283, ASCII, b"abc\0"), (296, TIFF_SHORT, 3), (34665, 4, 1 << 30)]
    sound = tiff(grey, byte_order=byte_order)
    data = tiff(grey, byte_order=byte_order, extra=[*damaged, (ORIENTATION, TIFF_SHORT, 6)])
    assert np.array_equal(decode_rgb(data), np.rot90(opencv(sound), -1))
    data = tiff(grey, byte_order=byte_order, extra=[*damaged, (ORIENTATION, ASCII, b"6\0")])
    assert np.array_equal(decode_rgb(data), opencv(sound))
    assert inspect(data).notes == (UNREADABLE_EXIF,)


def test_a_bigtiff_whose_directory_lies_beyond_all_files_is_refused_like_any_damaged_one() -> None:
    with pytest.raises(ImageDecodeError):
        inspect(b"II+\0\x08\0\0\0" + b"\xff" * 8)


def test_an_avif_with_rubbish_in_exif_is_used() -> None:
    data = encode(PHOTO, "AVIF", exif=exif_block(exif_entry(RESOLUTION, TIFF_SHORT, 1, 9)))
    at = data.rindex(b"MM\0*")
    damaged = data[:at] + b"\xfe" * 20 + data[at + 20 :]
    assert np.array_equal(decode_rgb(damaged), decode_rgb(data))
    assert np.abs(decode_rgb(damaged).astype(int) - opencv(data)).max() <= 3
    turned = encode(PHOTO, "AVIF", exif=exif_block(TURNED))
    assert np.array_equal(decode_rgb(turned), np.rot90(decode_rgb(encode(PHOTO, "AVIF")), -1))


def test_the_first_picture_of_an_animated_png_is_taken_as_before() -> None:
    for options in ({}, {"default_image": True}):
        frames = [Image.new("RGB", (9, 9), colour) for colour in ("green", "blue")]
        data = encode(Image.new("RGB", (9, 9), "red"), "PNG", save_all=True, append_images=frames, **options)
        assert decode_rgb(data)[0, 0].tolist() == [255, 0, 0]
