"""Pixels mean what their format says: the colours are those that OpenCV and libvips decode, or follow a stated rule."""

import numpy as np
import pytest
from PIL import Image

from googlenet.images.decoding import ImageDecodeError, decode_rgb
from tests.picture_files import encode, libvips, opencv, photograph, png, png_chunk, tga, tiff

PHOTO = photograph(40, 30)
RAMP = np.linspace(0, 1, 256).reshape(16, 16)
EIGHT_BIT_RAMP = np.arange(256).reshape(16, 16)


def transparent(*colour: int) -> bytes:
    return png_chunk(b"tRNS", np.array(colour, ">u2").tobytes())


@pytest.mark.parametrize("bits", [8, 16])
def test_the_transparent_colour_of_a_colour_png_is_laid_on_white(bits: int) -> None:
    """In 16 bits the colour is compared in all of them: its neighbour in the lower byte stays."""
    pixels = np.asarray(PHOTO).astype(np.uint16) * (1 if bits == 8 else 257)
    pixels[3, 4] = pixels[5, 6] = (1, 2, 3) if bits == 8 else (0x0102, 0x0304, 0x0506)
    pixels[7, 8] = pixels[3, 4] + np.array([0, 0, 1], np.uint16)
    data = png(pixels, bits, transparent(*pixels[3, 4].tolist()))
    decoded = decode_rgb(data)
    assert np.abs(decoded.astype(int) - libvips(data)).max() <= 1
    assert decoded[3, 4].tolist() == decoded[5, 6].tolist() == [255, 255, 255]
    assert decoded[7, 8].max() < 10
    opaque = opencv(png(pixels, bits))
    others = np.ones((30, 40), bool)
    others[3, 4] = others[5, 6] = False
    assert np.abs(decoded.astype(int) - opaque)[others].max() <= 1


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_value_of_a_grey_png_is_laid_on_white(bits: int) -> None:
    levels = np.arange(256).reshape(16, 16) * (257 if bits == 16 else 1) % 2**bits
    key = int(levels[0, 1])
    data = png(levels, bits, transparent(key))
    decoded = decode_rgb(data)
    assert np.abs(decoded.astype(int) - libvips(data)).max() <= 1
    assert (decoded[levels == key] == 255).all()
    opaque = opencv(png(levels, bits))
    assert np.abs(decoded.astype(int) - opaque)[levels != key].max() <= 1


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_grey_tiffs_are_not_inverted(byte_order: str, dtype: type, white_is_zero: bool) -> None:
    data = tiff((RAMP * np.iinfo(dtype).max).astype(dtype), white_is_zero, byte_order)
    decoded = decode_rgb(data).astype(int)
    assert np.abs(decoded - opencv(data)).max() <= 1
    assert np.abs(decoded - libvips(data)).max() <= 1
    assert (decoded[0, 0] == (255 if white_is_zero else 0)).all()


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate"])
def test_compressed_16_bit_tiffs_are_not_inverted(compression: str) -> None:
    image = Image.fromarray((RAMP * 65535).astype(np.uint16))
    for photometric in (0, 1):
        data = encode(image, "TIFF", compression=compression, tiffinfo={262: photometric})
        assert np.abs(decode_rgb(data).astype(int) - opencv(data)).max() <= 1


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_floating_point_values_reach_one_of_three_whites(byte_order: str, white: float, white_is_zero: bool) -> None:
    data = tiff((RAMP * white).astype(np.float32), white_is_zero, byte_order)
    expected = EIGHT_BIT_RAMP[::-1, ::-1] if white_is_zero else EIGHT_BIT_RAMP
    assert np.abs(decode_rgb(data)[:, :, 0].astype(int) - expected).max() <= 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1.0001, 3e38])
def test_one_value_out_of_range_does_not_darken_the_picture(value: float) -> None:
    values = RAMP.astype(np.float32)
    values[0, 0] = value
    decoded = decode_rgb(tiff(values))[:, :, 0].astype(int)
    expected = EIGHT_BIT_RAMP.copy()
    expected[0, 0] = 255 if value > 1 else 0
    assert np.abs(decoded - expected).max() <= 1


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize(
    ("dtype", "white"),
    [(np.uint32, 2**32 - 1), (np.uint32, 65535), (np.uint32, 255), (np.int32, 2**31 - 1), (np.int32, 255)],
)
def test_32_bit_values_keep_their_levels(byte_order: str, dtype: type, white: int) -> None:
    data = tiff((RAMP * white).round().astype(dtype), byte_order=byte_order)
    assert np.abs(decode_rgb(data)[:, :, 0].astype(int) - EIGHT_BIT_RAMP).max() <= 1


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.int8, np.int16])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_white_of_signed_values_is_the_largest_number_of_their_type(
    byte_order: str, dtype: type, white_is_zero: bool
) -> None:
    values = (RAMP * np.iinfo(dtype).max).round().astype(dtype)
    expected = EIGHT_BIT_RAMP.copy()
    values[0, 0], expected[0, 0] = -5, 0  # a value below black
    expected = 255 - expected if white_is_zero else expected
    decoded = decode_rgb(tiff(values, white_is_zero, byte_order))[:, :, 0].astype(int)
    assert np.abs(decoded - expected).max() <= 1


@pytest.mark.parametrize("brightest", [7.0, 1000.0, 1e6, 1e30])
def test_values_without_a_clear_white_are_refused_with_the_fix(brightest: float) -> None:
    with pytest.raises(ImageDecodeError, match=r"not clear which value is white; rescale .* white is 1, 255 or 65535"):
        decode_rgb(tiff((RAMP * brightest).astype(np.float32)))


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_samples_that_pillow_does_not_read_are_named(dtype: type) -> None:
    with pytest.raises(ImageDecodeError, match=r"1 x (64|16) bits \(floating-point\).* save it with 8 bits"):
        decode_rgb(tiff(RAMP.astype(dtype)))


def test_the_white_of_a_pgm_comes_from_its_header() -> None:
    grey = np.array([[0, 100, 255], [0, 100, 255]])
    data = b"P5 3 2 1023\n" + (grey * 4).astype(">u2").tobytes()
    assert np.abs(decode_rgb(data)[:, :, 0].astype(int) - grey).max() <= 1
    dark = b"P5 3 2 65535\n" + grey.astype(">u2").tobytes()
    assert decode_rgb(dark).max() == 1  # not stretched to white


def test_12_bits_end_at_4095() -> None:
    packed = np.frombuffer(bytes.fromhex("000800fff000"), np.uint8)  # 0, 2048, 4095, 0
    data = tiff(packed[None], bits=12, width=4)
    assert decode_rgb(data)[0, :, 0].tolist() == [0, 128, 255, 0]


@pytest.mark.parametrize("descriptor", [0, 8])
def test_the_fourth_channel_of_a_tga_is_alpha_only_if_its_descriptor_says_so(descriptor: int) -> None:
    """Neither OpenCV nor this libvips reads the format; the pixels are known."""
    rgb = np.asarray(PHOTO)
    data = tga(np.dstack([rgb, np.zeros(rgb.shape[:2], np.uint8)]), descriptor)
    assert np.array_equal(decode_rgb(data), rgb if descriptor == 0 else np.full_like(rgb, 255))


def test_what_pillow_itself_writes_as_tga_keeps_its_alpha() -> None:
    image = PHOTO.copy()
    image.putalpha(0)
    assert (decode_rgb(encode(image, "TGA")) == 255).all()
