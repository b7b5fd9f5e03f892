"""An image is the same pixels in every form, and the pixels of a PIL image are those of its file in every mode."""

import io
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from googlenet.evaluation.given_image import pixels_of
from googlenet.images.decoding import ImageDecodeError, decode_rgb

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


def test_an_image_that_was_turned_upright_is_not_turned_again() -> None:
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(files()["RGB, turned"])))
    np.testing.assert_array_equal(pixels_of(image), np.asarray(image))


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


def test_grey_pixels_may_have_a_channel() -> None:
    np.testing.assert_array_equal(pixels_of(GRADIENT[:, :, :1]), pixels_of(GRADIENT[:, :, 0]))


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (GRADIENT / 255, r"whole numbers from 0 to 255, got float64 from 0.0 to 0.9"),
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
    with pytest.raises(FileNotFoundError, match="nothing"):
        pixels_of(tmp_path / "nothing.jpg")
