"""Tests of options for answers that cannot be kept: they are refused before anything is evaluated."""

from pathlib import Path
from typing import Any

import pytest

from googlenet.evaluation.crops import chosen_policy
from pipelines.errors import UserError
from pipelines.evaluate_ensemble import Arguments, _check
from pipelines.evaluation.answer_options import check_ood, check_sets
from pipelines.run.storage import Storage


def test_sets_for_crops_that_the_run_has_not_fitted_are_refused_before_anything_is_evaluated(tmp_path: Path) -> None:
    run = Storage.at(str(tmp_path))
    run.write_json("calibration.json", {"label_mass": {"1": [], "144": []}})
    check_sets(run, (144, 1, 10), 0.9)
    check_sets(run, (10,), None)
    for policies, named in (((1, 10), "10"), ((chosen_policy(range(3)), 1), "best:3")):
        with pytest.raises(UserError, match=rf"^--coverage 0\.9 needs sets for {named} crops.* be one of 1, 144$"):
            check_sets(run, policies, 0.9)


def test_a_runs_own_images_are_not_something_else() -> None:
    for data in ("/photos", "/photos/val", "/"):
        with pytest.raises(UserError, match=f"^--ood {data} has the run's own images"):
            check_ood(data, "/photos")
    for data, own in (("/photos_of_flowers", "/photos"), ("/photos", "embedded"), ("/photos", "")):
        check_ood(data, own)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"set_penalty": 0.1, "unlabelled": True}, r"--set-penalty 0\.1 shortens sets .* it needs --coverage"),
        ({"set_penalty": -1.0}, "--set-penalty must not be negative"),
        ({"budget": "fast"}, "--budget fast is for the answers of a training run: it needs --unlabelled"),
        ({"budget": "fast", "unlabelled": True, "policies": (1,)}, "leave out --policies"),
        ({"budget": "fast", "unlabelled": True, "coverage": 0.9}, "cannot be combined with --coverage"),
        ({"coverage": 95.0, "unlabelled": True}, r"between 0 and 1, such as 0\.95, got 95"),
        ({"coverage": 0.9}, "needs --unlabelled and no --weights"),
        ({"coverage": 0.9, "unlabelled": True, "calibrated": False}, "leave out --no-calibrated"),
        (
            {"coverage": 0.9, "unlabelled": True},
            r"calibration\.json, which a run of 40 validation images or more keeps",
        ),
    ],
)
def test_a_coverage_that_cannot_be_kept_is_refused_before_anything_is_evaluated(
    tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        _check(Arguments(str(tmp_path), "photos", **given))
