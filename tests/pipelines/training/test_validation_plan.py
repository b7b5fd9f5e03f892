"""Tests of when a replica is validated, and on which images."""

import pytest

from googlenet.network.arithmetic import FP32
from pipelines.errors import UserError
from pipelines.run.dataset import Counts
from pipelines.run.recipe import Recipe
from pipelines.training.plan import _validation_line
from pipelines.training.resources import Resources
from pipelines.training.trial import Trial
from pipelines.training.validation_plan import ValidationPlan


def test_the_last_epoch_is_always_validated() -> None:
    plan = ValidationPlan(every_epochs=3)
    assert [epoch + 1 for epoch in range(8) if plan.is_due(epoch, 8)] == [3, 6, 8]
    assert plan.times(8) == 3
    assert ValidationPlan(every_epochs=100).times(8) == 1


def test_a_subset_is_spread_evenly_over_all_images() -> None:
    assert ValidationPlan(images=4).indices(10) == [0, 2, 5, 7]
    assert ValidationPlan(images=20).indices(10) == ValidationPlan().indices(10) == list(range(10))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"every_epochs": 0}, "^--validate-every-epochs must be at least 1"),
        ({"images": 0}, "^--validation-images must be at least 1"),
    ],
)
def test_an_impossible_plan_is_named(plan: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ValidationPlan(**plan)


def test_the_line_of_the_plan_names_the_images() -> None:
    trial = Trial((FP32,), (0.5,), (0.0,), passes_per_second=100.0, parameters=1)
    for images, limit, expected in ((1, None, "1 image"), (5000, 1000, "1,000 of 5,000 images"), (42, 50, "42 images")):
        resources = Resources(validation=ValidationPlan(images=limit))
        line = _validation_line(Recipe(epochs=2), resources, Counts(24, images, 3), trial)
        assert line.startswith(f"validation: 2 times on {expected}, ")
