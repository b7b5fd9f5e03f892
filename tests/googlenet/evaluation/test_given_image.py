"""An image is the same pixels in every form, and the pixels of a PIL image are those of its file in every mode."""

import io
import os
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from googlenet.evaluation.given_image import pixels_of
from googlenet.images.decoding import ImageDecodeError, decode_rgb
from tests.picture_files import TIFF_SHORT, exif_block, exif_entry, png_chunk, with_chunks

GRADIENT = np.stack(np.broadcast_arrays(*np.ogrid[0:240:5, 0:256:4], np.arange(64) * 3), -1).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def files() -> dict[str, bytes]:
    """Files of every mode that Pillow opens."""
    rgb = Image.fromarray(GRADIENT)
    rgba = rgb.copy()
    rgba.putalpha(Image.fromarray(GRADIENT[:, :, 1]))
    grey = GRADIENT[:, :, 0]
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "RGB": saved(rgb, "JPEG"),
        "RGB, turned": saved(rgb, "JPEG", exif=turned),
        "RGB, turned TIFF": saved(rgb, "TIFF", exif=turned),
        "RGBA": saved(rgba, "PNG"),
        "RGB with a transparent colour": saved(rgb, "PNG", transparency=tuple(map(int, GRADIENT[3, 5]))),
        "L": saved(Image.fromarray(grey), "PNG"),
        "LA": saved(rgba.convert("LA"), "PNG"),
        "1": saved(rgb.convert("1"), "PNG"),
        "P": saved(rgb.quantize(16), "PNG", transparency=3),
        "CMYK": saved(rgb.convert("CMYK"), "JPEG"),
        "I;16": saved(Image.fromarray(grey.astype(np.uint16) * 257), "PNG"),
        "I": saved(Image.fromarray(grey.astype(np.int32) * 200), "TIFF"),
        "F": saved(Image.fromarray(grey.astype(np.float32) / 255), "TIFF"),
        "YCbCr": saved(rgb.convert("YCbCr"), "TIFF"),
    }


@pytest.mark.parametrize("name", files())
def test_a_pil_image_has_the_pixels_of_its_file(name: str) -> None:
    data = files()[name]
    image = Image.open(io.BytesIO(data))
    before = (image.mode, image.size, dict(image.info))
    np.testing.assert_array_equal(pixels_of(image), decode_rgb(data))
    assert (image.mode, image.size, dict(image.info)) == before or "TIFF" in name  # Pillow turns those itself
    np.testing.assert_array_equal(pixels_of(image), decode_rgb(data))  # once more, now that Pillow has loaded it


@pytest.mark.parametrize("mode", ["HSV", "LAB", "PA", "RGBa", "La", "RGBX"])
def test_modes_without_a_file_format_are_read_too(mode: str) -> None:
    image = Image.new("RGB", (8, 8), (200, 100, 50))
    between = {"PA": "P", "La": "LA", "RGBa": "RGBA", "LAB": "RGB"}.get(mode, "RGB")
    image = Image.new("LAB", (8, 8), (150, 150, 150)) if mode == "LAB" else image.convert(between).convert(mode)
    opaque = image.convert({"La": "LA", "RGBa": "RGBA"}.get(mode, "RGB"))
    expected = np.asarray(opaque.convert("RGB"))
    np.testing.assert_array_equal(pixels_of(image), expected)


def turned_files() -> dict[str, bytes]:
    """Files that say in different places that they lie on their side."""
    rgb, block = Image.fromarray(GRADIENT), exif_block(exif_entry(0x0112, TIFF_SHORT, 1, 6))
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    png = saved(rgb, "PNG")
    profile = zlib.compress(b"\nexif\n%8d\n%s\n" % (len(block), block.hex().encode()))
    end = png_chunk(b"IEND", b"")
    return {
        "JPEG, Exif": files()["RGB, turned"],
        "JPEG, XMP": saved(rgb, "JPEG", xmp=xmp),
        "JPEG, Exif without it and XMP": saved(rgb, "JPEG", xmp=xmp, exif=exif_block()),
        "WebP, XMP": saved(rgb, "WEBP", lossless=True, xmp=xmp),
        "PNG, XMP": with_chunks(png, png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)),
        "PNG, XMP as plain text": with_chunks(png, png_chunk(b"tEXt", b"XML:com.adobe.xmp\0" + xmp)),
        "PNG, ImageMagick's text": with_chunks(png, png_chunk(b"zTXt", b"Raw profile type exif\0\0" + profile)),
        "PNG, behind the pixels": png.removesuffix(end) + png_chunk(b"eXIf", block[6:]) + end,
        "TIFF, XMP": saved(rgb, "TIFF", tiffinfo={700: xmp}),
        "TIFF of numbers, XMP": saved(
            Image.fromarray(GRADIENT[:, :, 0] / np.float32(255)), "TIFF", tiffinfo={700: xmp}
        ),
        "TIFF, Exif against XMP": saved(rgb, "TIFF", tiffinfo={700: xmp, 0x0112: 3}),
    }


@pytest.mark.parametrize("name", turned_files())
def test_a_pil_image_is_turned_by_whatever_turns_its_file_and_once_only(name: str) -> None:
    data = turned_files()[name]
    expected, size = decode_rgb(data), GRADIENT.shape[1::-1]
    assert expected.shape[:2] == (size if "against" not in name else size[::-1])
    np.testing.assert_array_equal(pixels_of(Image.open(io.BytesIO(data))), expected)
    loaded = Image.open(io.BytesIO(data))
    loaded.load()
    np.testing.assert_array_equal(pixels_of(loaded), expected)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(pixels_of(upright), expected)


def test_a_path_bytes_and_an_array_are_the_same_image(tmp_path: Path) -> None:
    data = files()["RGBA"]
    (tmp_path / "a.png").write_bytes(data)
    images = [tmp_path / "a.png", str(tmp_path / "a.png"), data, bytearray(data), memoryview(data), io.BytesIO(data)]
    for image in (*images, decode_rgb(data), Image.open(tmp_path / "a.png")):
        np.testing.assert_array_equal(pixels_of(image), decode_rgb(data))
    with (tmp_path / "a.png").open("rb") as file:
        np.testing.assert_array_equal(pixels_of(file), decode_rgb(data))


@pytest.mark.usefixtures("unchecked_types")
def test_what_behaves_like_an_open_file_and_a_name_that_begins_with_a_tilde_are_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = files()["RGBA"]
    # It hands on its methods by __getattr__, which checks of types do not see from Python 3.12 on.
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.seek(0)
        np.testing.assert_array_equal(pixels_of(file), decode_rgb(data))
    monkeypatch.chdir(tmp_path)
    Path("~cat.png").write_bytes(data)
    np.testing.assert_array_equal(pixels_of("~cat.png"), decode_rgb(data))
    with pytest.raises(ValueError, match="a file open for text; open it with mode rb"):
        pixels_of(io.StringIO("text"))  # type: ignore[arg-type]


class Upload:
    """As web frameworks hand one over: its methods are awaited."""

    async def read(self) -> bytes:
        return b""


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.filterwarnings("error")
def test_an_upload_whose_bytes_are_awaited_is_told_apart() -> None:
    with pytest.raises(ValueError, match=r"pass await upload\.read\(\)"):
        pixels_of(Upload())  # type: ignore[arg-type]


def test_grey_pixels_may_have_a_channel() -> None:
    np.testing.assert_array_equal(pixels_of(GRADIENT[:, :, :1]), pixels_of(GRADIENT[:, :, 0]))


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (GRADIENT / 255, r"whole numbers from 0 to 255, got float64 from 0\.0 to 0\.9\d*: of values from 0 to 1, give"),
        (GRADIENT / 2, r"got float64 from 0\.0 to \d+\.\d$"),
        (np.full((4, 4), np.nan), "got float64 from nan to nan$"),
        (GRADIENT.astype(int) - 1, r"got int64 from -1 to 2"),
        (
            np.dstack([GRADIENT, GRADIENT[:, :, 0]]),
            r"got \(48, 64, 4\): of pixels with transparency, give PIL.Image.from",
        ),
        (GRADIENT.transpose(2, 0, 1), r"got \(3, 48, 64\): the channels come last"),
        (GRADIENT[None], r"got \(1, 48, 64, 3\)$"),
        (np.zeros((0, 0, 3), np.uint8), r"got \(0, 0, 3\)$"),
        (np.array(None), "^an image is a path, the bytes of a file, an open file, a PIL image or an array"),
        (np.array(["a.jpg"]), "^an image is a path"),
        ([[[0, 0, 0], [0, 0, 0]], [[0, 0, 0]]], "^pixels must be in rows of one length"),
        ([[[0, 0, 0], [0, 0]]], "^pixels must be in rows of one length, with the same number of channels each$"),
    ],
)
def test_an_array_that_is_no_image_is_refused_by_what_it_is(image: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        pixels_of(image)


def test_an_open_file_that_was_read_before_or_is_empty_is_refused_with_what_to_do() -> None:
    written = io.BytesIO()
    Image.fromarray(GRADIENT).save(written, "PNG")
    for file in (written, io.BytesIO()):
        with pytest.raises(ImageDecodeError, match=r"nothing left to read; if it is not empty, go back .* seek\(0\)"):
            pixels_of(file)
    written.seek(0)
    np.testing.assert_array_equal(pixels_of(written), GRADIENT)


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(OSError, match=r"not a regular file: '.*pipe.jpg'"):
        pixels_of(tmp_path / "pipe.jpg")


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    half = Image.open(io.BytesIO(files()["RGB"][:700]))
    with pytest.raises(ImageDecodeError, match=r"the PIL image of mode RGB cannot be read: .*truncated"):
        pixels_of(half)
    with pytest.raises(ImageDecodeError, match="strip"):
        pixels_of(Image.new("RGB", (1000, 2)))
    (tmp_path / "a.png").write_bytes(files()["RGBA"])
    with Image.open(tmp_path / "a.png") as closed:
        pass
    with pytest.raises(ImageDecodeError, match="mode RGBA cannot be read: its file was closed before its pixels were"):
        pixels_of(closed)
    with pytest.raises(FileNotFoundError, match="nothing"):
        pixels_of(tmp_path / "nothing.jpg")
