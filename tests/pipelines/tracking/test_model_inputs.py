"""Claims: pixels arrive in any nesting that MLflow makes of them, and never as the path of a file."""

from typing import Any

import numpy as np
import pytest

from pipelines.tracking.ensemble_model import _image

PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


def object_array(rows: list[Any]) -> np.ndarray:  # type: ignore[type-arg]
    array = np.empty(len(rows), object)
    array[:] = rows
    return array


@pytest.mark.parametrize(
    "given",
    [PIXELS, PIXELS.tolist(), tuple(PIXELS.tolist()), object_array([object_array(list(row)) for row in PIXELS])],
    ids=["array", "lists", "tuple", "arrays of arrays"],
)
def test_pixels_are_the_same_in_every_nesting(given: Any) -> None:
    np.testing.assert_array_equal(np.asarray(_image("pixels", given)), PIXELS)


def test_a_text_in_place_of_pixels_is_not_read_as_a_path() -> None:
    with pytest.raises(ValueError, match="pixels must be an array, got str"):
        _image("pixels", "/etc/hostname")
