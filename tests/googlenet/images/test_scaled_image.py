"""Conversion of a scaled image to a row of a table and back."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from googlenet.images.scaled_image import ScaledImage


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
