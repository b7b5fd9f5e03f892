"""Decoding of every format and colour mode found in image folders."""

import numpy as np
import pytest
from PIL import Image

from googlenet.images import decoding as images
from googlenet.images.decoding import ImageDecodeError, decode_rgb
from tests.picture_files import encode, png

COLOURS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [250, 250, 250]]], np.uint8).repeat(16, 0).repeat(16, 1)


@pytest.mark.parametrize("mode", ["RGB", "P", "CMYK", "RGBA"])
def test_colours_survive_every_mode(mode: str) -> None:
    image = Image.fromarray(COLOURS).convert(mode, palette=Image.Palette.ADAPTIVE)
    data = encode(image, "TIFF" if mode == "CMYK" else "PNG")
    decoded = decode_rgb(data)
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - COLOURS).max() <= 3


def test_a_cmyk_jpeg_is_not_inverted() -> None:
    data = encode(Image.fromarray(COLOURS).convert("CMYK"), "JPEG", quality=98)
    assert np.abs(decode_rgb(data)[8, 8].astype(int) - (255, 0, 0)).max() < 12


def test_greyscale_becomes_three_equal_channels() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    decoded = decode_rgb(encode(Image.fromarray(grey), "PNG"))
    assert (decoded == grey[:, :, None]).all()


def test_16_bit_greyscale_keeps_its_levels() -> None:
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    decoded = decode_rgb(encode(Image.fromarray(levels), "PNG"))
    assert (decoded[:, :, 0] == np.arange(256).reshape(16, 16)).all()


@pytest.mark.parametrize(("dtype", "white"), [(np.float32, 1.0), (np.float32, 255.0), (np.int32, 255)])
def test_floating_point_and_32_bit_greyscale_are_scaled_by_their_range(dtype: type, white: float) -> None:
    grey = np.linspace(0, 1, 256).reshape(16, 16)
    decoded = decode_rgb(encode(Image.fromarray((grey * white).astype(dtype)), "TIFF"))
    assert np.abs(decoded[:, :, 0] - grey * 255).max() <= 1


def test_16_bit_colour_becomes_8_bit() -> None:
    decoded = decode_rgb(png(COLOURS.astype(np.uint16) * 257, bits=16))
    assert np.abs(decoded.astype(int) - COLOURS).max() <= 1


def test_what_is_transparent_is_white() -> None:
    image = Image.fromarray(np.dstack([COLOURS, np.zeros(COLOURS.shape[:2], np.uint8)]))
    assert (decode_rgb(encode(image, "PNG")) == 255).all()
    palette = Image.fromarray(COLOURS).convert("P", palette=Image.Palette.ADAPTIVE)
    red = palette.getpixel((0, 0))
    decoded = decode_rgb(encode(palette, "PNG", transparency=red))
    assert (decoded[0, 0] == 255).all()
    assert (decoded[0, 31] == COLOURS[0, 31]).all()


@pytest.mark.parametrize(("orientation", "turned"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_exif_orientation_turns_the_image_upright(orientation: int, turned: int) -> None:
    image = Image.fromarray(COLOURS[:, :24])
    exif = image.getexif()
    exif[0x0112] = orientation
    decoded = decode_rgb(encode(image, "PNG", exif=exif))
    assert np.array_equal(decoded, np.rot90(COLOURS[:, :24], turned))


def test_a_truncated_file_is_refused_with_a_reason() -> None:
    data = encode(Image.fromarray(COLOURS.repeat(8, 0).repeat(8, 1)), "JPEG")
    with pytest.raises(ImageDecodeError, match="truncated"):
        decode_rgb(data[: len(data) // 2])


@pytest.mark.parametrize(("data", "reason"), [(b"", "empty"), (b"no image at all", "not an image")])
def test_what_is_no_image_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ImageDecodeError, match=reason):
        decode_rgb(data)


def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageDecodeError, match="32x32"):
        decode_rgb(encode(Image.fromarray(COLOURS), "PNG"))


def test_a_strip_is_refused_before_it_is_scaled_to_an_enormous_width() -> None:
    with pytest.raises(ImageDecodeError, match="10001x100 px is a strip"):
        decode_rgb(encode(Image.new("L", (10_001, 100)), "PNG"))


def test_a_program_in_an_image_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would pass Encapsulated PostScript to Ghostscript."""
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("something was run"))
    with pytest.raises(ImageDecodeError, match="PostScript, which is not run"):
        decode_rgb(encode(Image.new("RGB", (30, 30)), "EPS"))


def test_absurdly_many_bytes_are_refused_before_they_are_read() -> None:
    images.check_number_of_bytes(images.MAX_IMAGE_BYTES)
    with pytest.raises(ImageDecodeError, match=r"268,435,457 bytes are too many"):
        images.check_number_of_bytes(images.MAX_IMAGE_BYTES + 1)
