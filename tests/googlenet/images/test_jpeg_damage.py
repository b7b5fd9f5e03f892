"""JPEGs whose pixel data are missing or surplus: found by libjpeg's warnings, which Pillow hides."""

import numpy as np
import pytest
import pyvips
import simplejpeg
from PIL import Image

from googlenet.images.decoding import ImageDecodeError, decode_rgb
from googlenet.images.inspection import decode_whole, inspect
from googlenet.images.jpeg_damage import NO_END, SURPLUS
from tests.picture_files import encode, opencv, photograph

END = b"\xff\xd9"
PHOTO = photograph(240, 180)
KINDS = {
    "4:2:0": (PHOTO, {}),
    "4:4:4": (PHOTO, {"subsampling": 0, "quality": 97}),
    "optimised": (PHOTO, {"optimize": True}),
    "restarts": (PHOTO, {"restart_marker_rows": 1}),
    "progressive": (PHOTO, {"progressive": True}),
    "grey": (PHOTO.convert("L"), {}),
    "CMYK": (PHOTO.convert("CMYK"), {}),
}
APPENDED = {
    "an end marker": lambda cut: cut + END,
    "zeros": lambda cut: cut + bytes(len(cut)),
    "many zeros": lambda cut: cut + bytes(10 * len(cut)),
    "zeros and an end marker": lambda cut: cut + bytes(len(cut)) + END,
    "many zeros and an end marker": lambda cut: cut + bytes(10 * len(cut)) + END,
}


def jpeg(kind: str) -> bytes:
    image, options = KINDS[kind]
    return encode(image, **options)


def cut(data: bytes, share: float) -> bytes:
    start = data.index(b"\xff\xda")
    return data[: start + int((len(data) - start) * share)]


def warns_libvips(data: bytes) -> bool:
    try:
        pyvips.Image.new_from_buffer(data, "", fail_on="warning").avg()
    except pyvips.Error:
        return True
    return False


@pytest.mark.parametrize("appended", APPENDED)
@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_cut_in_the_middle_is_refused_whatever_was_appended(kind: str, appended: str) -> None:
    data = APPENDED[appended](cut(jpeg(kind), 0.5))
    # Neither warns of zeros that are enough to be taken for the rest of the pixels; the pixels are wrong.
    assert warns_libvips(data) or (opencv(data) != opencv(jpeg(kind))).mean() > 0.4
    with pytest.raises(ImageDecodeError) as refused:
        inspect(data)
    if kind == "progressive":
        assert "some of its pixel data are missing" in str(refused.value)
    else:
        assert any(f"the last {percent} % of the picture is missing" in str(refused.value) for percent in range(46, 55))
    with pytest.raises(ImageDecodeError, match="missing"):
        decode_whole(data)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.9])
def test_the_missing_part_is_the_grey_one(share: float) -> None:
    data = cut(jpeg("4:2:0"), share) + END
    grey = (opencv(data) == 128).all(axis=2)
    with pytest.raises(ImageDecodeError) as refused:
        inspect(data)
    missing = int(str(refused.value).split("the last ")[1].split(" %")[0])
    assert abs(missing - 100 * grey.mean()) < 10  # to a row of blocks


def test_few_missing_bytes_are_found_too() -> None:
    for kind in KINDS:
        data = jpeg(kind)[:-60] + END
        with pytest.raises(ImageDecodeError, match="missing"):
            inspect(data)


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_with_all_of_its_pixels_is_used_whatever_follows_them(kind: str) -> None:
    data = jpeg(kind)
    pixels = decode_rgb(data)
    peculiar = {
        data: (),
        data + bytes(5000): (),
        data + b"<html>" * 99: (),
        data[:-2]: (NO_END,),
        data[:-2] + bytes(5000): (NO_END,),
        data[:-2] + b"\xff\xff" + END: (),
    }
    for file, notes in peculiar.items():
        seen = inspect(file)
        assert (seen.width, seen.height, seen.notes) == (240, 180, notes)
        assert np.array_equal(decode_rgb(file), pixels)
    for surplus in (b"\0\x12\x34" * 20, bytes(5000), b"A" * 5000):
        seen = inspect(data[:-2] + surplus + END)
        assert seen.notes == ((SURPLUS,) if warns_libjpeg(data[:-2] + surplus + END) else ())
        assert np.array_equal(decode_rgb(data[:-2] + surplus + END), pixels)


def warns_libjpeg(data: bytes) -> bool:
    colours = "CMYK" if simplejpeg.decode_jpeg_header(data)[2] in ("CMYK", "YCCK") else "GRAY"
    try:
        simplejpeg.decode_jpeg(data, colours)
    except ValueError:
        return True
    return False


def test_pictures_of_runs_that_exist_are_still_decoded_as_far_as_possible() -> None:
    """Such runs were prepared when nobody looked for missing pixel data."""
    data = cut(jpeg("4:2:0"), 0.5) + END
    assert np.array_equal(decode_rgb(data), opencv(data))


@pytest.mark.parametrize("end", [b"", END])
def test_nothing_is_decoded_of_a_jpeg_that_claims_an_enormous_size(end: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a progressive one libjpeg would reserve 25 GB."""
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_, **__: pytest.fail("it was decoded"))
    data = jpeg("progressive")
    frame = data.index(b"\xff\xc2") + 5
    data = data[:frame] + b"\xff\xdc\xff\xdc" + data[frame + 4 : -2] + end
    for decode in (decode_rgb, decode_whole, inspect):
        with pytest.raises(ImageDecodeError, match="exceeds limit"):
            decode(data)


def test_a_harmless_warning_does_not_hide_a_serious_one() -> None:
    """libjpeg gives its first warning only: here, of a version of JFIF that does not exist."""
    data = bytearray(jpeg("4:2:0"))
    data[data.index(b"JFIF") + 5] = 77
    assert inspect(bytes(data)).notes == ()
    with pytest.raises(ImageDecodeError, match="missing"):
        inspect(cut(bytes(data), 0.5) + END)


def test_a_picture_with_a_white_bottom_is_whole() -> None:
    """Optimised code tables may store white as zeros."""
    pixels = np.full((256, 256, 3), 255, np.uint8)
    pixels[:64] = np.asarray(photograph(256, 64))
    data = encode(Image.fromarray(pixels), optimize=True)
    assert data[:-3].endswith(bytes(20))
    assert inspect(data).notes == ()
    assert inspect(data[:-2]).notes == (NO_END,)
