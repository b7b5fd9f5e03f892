"""Files of several pictures: the first one is used, and a note says so."""

import io

import numpy as np
import pytest
from PIL import TiffImagePlugin

from googlenet.images.inspection import SEVERAL_PICTURES, inspect
from tests.picture_files import encode, heic, photograph

PHOTO, OTHER = photograph(64, 48), photograph(64, 48, seed=1)
LOSSLESS = {"WEBP": {"lossless": True}}
SUBFILE_TYPE = 254
PAGE, REDUCED, MASK = 0, 1, 4


def tiff_of(*kinds: int) -> bytes:
    """A TIFF file with a page of each kind."""
    buffer = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(buffer, new=True) as writer:
        for kind in kinds:
            PHOTO.save(writer, "TIFF", tiffinfo={SUBFILE_TYPE: kind})
            writer.newFrame()
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["AVIF", "GIF", "HEIF", "PNG", "TIFF", "WEBP"])
def test_a_file_of_several_pictures_is_noted_and_the_first_is_used(form: str) -> None:
    if form == "HEIF":
        one, several = inspect(heic(PHOTO)), inspect(heic(PHOTO, OTHER))
    else:
        options = LOSSLESS.get(form, {})
        one = inspect(encode(PHOTO, form, **options))
        several = inspect(encode(PHOTO, form, save_all=True, append_images=[OTHER], **options))
    assert (one.notes, several.notes) == ((), (SEVERAL_PICTURES,))
    assert np.abs(one.pixels.astype(int) - several.pixels).mean() < 8
    assert np.abs(several.pixels.astype(int) - np.asarray(OTHER)).mean() > 30


@pytest.mark.parametrize(("kinds", "notes"), [
    ((PAGE, PAGE), (SEVERAL_PICTURES,)),
    ((PAGE, REDUCED, REDUCED), ()),  # a pyramid
    ((PAGE, REDUCED | MASK, PAGE), (SEVERAL_PICTURES,)),
])  # fmt: skip
def test_smaller_copies_and_masks_in_a_tiff_are_no_pages(kinds: tuple[int, ...], notes: tuple[str, ...]) -> None:
    assert inspect(tiff_of(*kinds)).notes == notes


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, about what is damaged
def test_what_is_damaged_behind_the_first_picture_costs_nothing() -> None:
    gif = encode(PHOTO, "GIF", save_all=True, append_images=[OTHER], duration=100)
    tiff = tiff_of(PAGE, PAGE)
    # The extension before the second picture of a GIF; pages of equal size.
    for file, first in ((gif, gif.rindex(b"!\xf9\x04")), (tiff, len(tiff) // 2)):
        expected = inspect(file).pixels
        for end in range(first, len(file), 97):
            assert np.array_equal(inspect(file[:end]).pixels, expected)
