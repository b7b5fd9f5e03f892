"""Images that cannot be decoded are refused with the cause in the user's words."""

import json
import sys
from collections.abc import Iterator

import numpy as np
import pillow_heif
import pytest
import pyvips
from PIL import Image

from googlenet.images import decoding
from googlenet.images.decoding import ImageDecodeError, decode_rgb
from googlenet.images.inspection import decode_whole, inspect
from tests.picture_files import TIFF_SHORT, encode, exif_block, exif_entry, heic, opencv, photograph, tiff

PHOTO = photograph(160, 120)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
OTHERS = {
    b"": "the file is empty",
    bytes(3000): "3,000 zeros instead of the file",
    b"<!DOCTYPE html>\n<html><head><title>404</title>": "a web page (HTML) instead of the file",
    b"\xef\xbb\xbf\r\n <HTML lang=en>": "a web page (HTML)",
    json.dumps({"error": "not found"}, indent=2).encode(): "JSON text, not an image",
    LFS: "a Git-LFS pointer instead of the file: run `git lfs pull`",
    b"/annex/objects/SHA256E-s1234--4d7a2146.jpg\n": "a git-annex pointer instead of the file: run `git annex get`",
    b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>': "an SVG drawing, which has no pixels",
    b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>': "an XML document",
    b"Just a note about this class\n": "text, not an image",
    "Grüße aus Köln\n".encode(): "text, not an image",
    b"%PDF-1.7\n%\xe2\xe3": "a PDF document",
    b"PK\x03\x04\x14\0\0\0": "a ZIP archive",
    b"\x1f\x8b\x08\0": "compressed by gzip",
    b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + bytes(40): "a video, not an image",
    b"\xff\x0a" + bytes(range(40)): "JPEG XL",
    b"\x01\x02\x03\x04" * 9: "not an image in any format that Pillow knows",
}


@pytest.mark.parametrize("data", OTHERS, ids=OTHERS.values())
def test_what_is_no_picture_is_named(data: bytes) -> None:
    with pytest.raises(ImageDecodeError) as refused:
        decode_rgb(data)
    assert OTHERS[data] in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.fixture
def without_pillow_heif(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The library as it is where the optional package is not installed."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    decoding._formats.cache_clear()
    yield
    monkeypatch.undo()
    decoding._formats.cache_clear()


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (6, -1), (8, 1)])
def test_heic_is_decoded_and_turned_upright_with_pillow_heif(orientation: int, turns: int) -> None:
    data = heic(PHOTO, exif=exif_block(exif_entry(274, TIFF_SHORT, 1, orientation)))
    upright = np.asarray(pillow_heif.open_heif(heic(PHOTO)).to_pillow())
    assert np.array_equal(decode_rgb(data), np.rot90(upright, turns))


@pytest.mark.parametrize(
    "data", [heic(PHOTO), b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50)], ids=["whole", "header"]
)
def test_heic_is_named_where_pillow_heif_is_missing(data: bytes, without_pillow_heif: None) -> None:
    with pytest.raises(
        ImageDecodeError, match=r"HEIC, the format of iPhones: pip install pillow-heif .* or convert it"
    ):
        decode_rgb(data)


@pytest.mark.parametrize("tags", [{254: 1}, {50706: b"\1\4\0\0"}], ids=["reduced copy", "DNG"])
def test_the_preview_in_a_raw_file_is_not_taken_for_the_picture(tags: dict[int, object]) -> None:
    raw = encode(PHOTO, "TIFF", tiffinfo=tags)
    assert opencv(raw) is not None  # decoders read its first picture
    for read in (inspect, decode_whole):
        with pytest.raises(
            ImageDecodeError, match="a camera's raw file, or a TIFF that begins with a preview: convert"
        ):
            read(raw)
        read(encode(PHOTO, "TIFF", tiffinfo={254: 0}))


def test_avif_is_decoded() -> None:
    data = encode(PHOTO, "AVIF", quality=90)
    assert np.abs(decode_rgb(data).astype(int) - opencv(data)).max() <= 3


TRUNCATED = {
    "JPEG": encode(PHOTO),
    "PNG": encode(PHOTO, "PNG"),
    "BMP": encode(PHOTO, "BMP"),
    "WebP": encode(PHOTO, "WEBP", lossless=True),
    "TIFF": tiff(np.asarray(PHOTO.convert("L"))),
    "TIFF by Pillow": encode(PHOTO, "TIFF"),
    "AVIF": encode(PHOTO, "AVIF", quality=90),
    "HEIC": heic(PHOTO),
}


@pytest.mark.parametrize("form", TRUNCATED)
@pytest.mark.parametrize("share", [0.3, 0.75])
def test_of_a_truncated_picture_the_missing_part_is_given(form: str, share: float) -> None:
    data = TRUNCATED[form]
    assert decode_rgb(data).shape == (120, 160, 3)
    cut = data[: int(share * len(data))]
    with pytest.raises(
        ImageDecodeError, match=r"truncated: the last \d+ % of the (picture|file) is missing"
    ) as refused:
        decode_rgb(cut)
    missing = int(str(refused.value).split("the last ")[1].split(" %")[0])
    assert abs(missing - 100 * (1 - share)) < 8


def test_an_interlaced_png_lacks_a_part_of_every_row() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (61, 67, 3), np.uint8)
    data = pyvips.Image.new_from_array(noise).pngsave_buffer(interlace=True)
    assert np.array_equal(decode_rgb(data), noise)
    with pytest.raises(ImageDecodeError, match=r"the last (49|50|51) % of the picture"):
        decode_rgb(data[: len(data) // 2])


def test_damaged_pixel_data_are_not_called_missing() -> None:
    png = bytearray(TRUNCATED["PNG"])
    png[len(png) // 2 : len(png) // 2 + 9] = bytes(9)
    with pytest.raises(ImageDecodeError, match="damaged: its IDAT chunk has a wrong checksum"):
        decode_rgb(bytes(png))
    with pytest.raises(ImageDecodeError, match="truncated: its end is missing"):
        decode_rgb(encode(PHOTO, "GIF")[:3000])
    with pytest.raises(ImageDecodeError, match="truncated within its header"):
        decode_rgb(b"\xff\xd8\xff\xe0" + bytes(range(100)))
    with pytest.raises(ImageDecodeError, match="a WebP file that Pillow cannot decode"):
        decode_rgb(b"RIFF\x40\0\0\0WEBPVP8 " + bytes(56))
    lzw = encode(PHOTO, "TIFF", compression="tiff_lzw")
    with pytest.raises(ImageDecodeError, match="damaged: its pixel data cannot be decoded"):
        decode_rgb(lzw[:2000] + bytes(2000) + lzw[4000:])


def test_a_file_cut_within_its_header_has_no_pixels() -> None:
    with pytest.raises(ImageDecodeError, match="truncated within its header"):
        decode_rgb(TRUNCATED["JPEG"][:100])
    with pytest.raises(ImageDecodeError, match="the last 100 % of the picture is missing"):
        decode_rgb(TRUNCATED["PNG"][:30])
