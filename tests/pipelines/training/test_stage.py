"""The look at a recipe before the training starts."""

from pathlib import Path

import pytest

from pipelines.run.dataset import Counts
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training.stage import check_before_start


@pytest.mark.parametrize(("stored", "policies", "told"), [
    (None, (1, 10, 144), False), (352, (1, 10, 144), False), (351, (1, 10, 144), True), (256, (1, 10), False),
    (224, (1, 10), True),
])  # fmt: skip
def test_images_that_are_stored_too_small_for_the_views_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stored: int | None, policies: tuple[int, ...], told: bool
) -> None:
    """The scales of a crop of 224 px are 256, 288, 320 and 352 px in the paper; fewer views need the first alone."""
    recipe = Recipe(stored_short_side_px=stored, policies=policies)
    check_before_start(Storage.at(str(tmp_path)), recipe, Counts(100, 10, 2))
    largest = 352 if 144 in policies else 256
    line = f"data: shorter sides are stored with at most {stored} px, and the evaluation scales them to up to {largest}"
    assert (line in capsys.readouterr().out) == told
