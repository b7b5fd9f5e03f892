"""Scaled images: fast decoding against the usual one, and conversion to a row of a table and back."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from googlenet.images.scaled_image import ScaledImage
from tests.googlenet.images.test_jpeg import encode, photograph


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (50, 50), (300, 35)])
def test_an_image_that_has_been_a_row_of_a_table_is_the_same(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    image = ScaledImage.decode(stream.getvalue(), (40, 46, 51))
    [row] = pa.Table.from_pylist([image.to_row()]).to_pylist()
    again = ScaledImage.from_row(row)
    assert (again.width, again.height) == size
    assert [min(scaled.shape[:2]) for scaled in again.scaled] == [40, 46, 51]
    for scaled, original in zip(again.scaled, image.scaled, strict=True):
        np.testing.assert_array_equal(scaled, original)


@pytest.mark.parametrize("size", [(640, 480), (333, 500), (163, 120)])
def test_fast_decoding_is_bit_identical_below_four_times_the_scale(size: tuple[int, int]) -> None:
    data = encode(photograph(*size, seed=1), quality=90)
    fast, usual = ScaledImage.decode_fast(data, (121,)), ScaledImage.decode(data, (121,))
    assert (fast.width, fast.height) == (usual.width, usual.height)
    np.testing.assert_array_equal(fast.scaled[0], usual.scaled[0])


def test_a_large_photograph_decoded_to_a_part_of_its_size_has_the_same_geometry_and_nearly_the_same_pixels() -> None:
    data = encode(photograph(1613, 1207, seed=2), quality=90)
    fast, usual = ScaledImage.decode_fast(data, (121,)), ScaledImage.decode(data, (121,))
    assert (fast.width, fast.height) == (usual.width, usual.height)
    assert fast.scaled[0].shape == usual.scaled[0].shape
    difference = np.abs(fast.scaled[0].astype(float) - usual.scaled[0]).mean()
    assert 0 < difference < 2  # of 255


def test_other_formats_are_decoded_as_usual() -> None:
    stream = io.BytesIO()
    photograph(60, 45, seed=3).save(stream, "PNG")
    fast, usual = (decode(stream.getvalue(), (40,)) for decode in (ScaledImage.decode_fast, ScaledImage.decode))
    np.testing.assert_array_equal(fast.scaled[0], usual.scaled[0])
