"""Claim: no mistake, or nothing but mistakes, among few images has an interval that says how little they show."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from googlenet.evaluation.selective import MEASURES
from pipelines.report.abstention import selective_rows
from pipelines.report.certainty import abstention_tables
from pipelines.report.columns import signed_interval
from pipelines.report.contents import contents
from pipelines.report.intervals import error_interval, with_exact_bounds
from pipelines.report.remarks import headline, notes
from pipelines.report.tally import tally_predictions
from tests.pipelines.report.made_runs import LABELS, answers, ensemble_of, made_run, predict_as


@pytest.mark.parametrize(
    ("answer", "mistakes", "words"), [(LABELS.tolist(), 0, "(0.0 to 45.9)"), ([6] * 6, 6, "(54.1 to 100.0)")]
)
def test_the_bounds_of_a_report_are_those_of_a_binomial_test(
    tmp_path: Path, answer: list[int], mistakes: int, words: str
) -> None:
    run, ensemble = made_run(tmp_path), ensemble_of(3)
    predict_as(run, answers(*[answer] * 3), ensemble)
    report = contents(tally_predictions(run, ensemble), ensemble)
    exact = binomtest(mistakes, len(LABELS)).proportion_ci()
    expected = pytest.approx([100 * exact.low, 100 * exact.high])
    for row in report["table"]:
        assert row["top1_ci95"] == row["top1_ci95_images_and_replicas"] == expected
        assert row["top1_difference_ci95"] == [0, 0]
    assert report["view_groups"][0]["top1_ci95"] == report["view_groups"][0]["top1_ci95_all_models"] == expected
    assert words in headline(report)
    assert "is 0.00 to 0.00 %" not in " ".join(notes(report))


def test_only_errors_have_exact_bounds_and_not_the_differences_beside_them() -> None:
    columns = np.zeros((6, 3))
    low, high = error_interval(columns, errors=2)
    exact = pytest.approx(100 * binomtest(0, 6).proportion_ci().high)
    assert (low.tolist(), high.tolist()) == ([0, 0, 0], [exact, exact, 0])
    assert error_interval(columns)[1].tolist() == [exact] * 3


def test_an_area_without_a_mistake_is_shown_without_an_interval() -> None:
    right = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]
    sets = {
        "coverage": 0.9, "empirical_coverage": 100.0, "empirical_coverage_ci95": [39.8, 100.0], "mean_size": 1.0,
        "single_answers": 100.0, "judged_on": "other_folds",
        "classes": [{"class": "a", "images": 4, "empirical_coverage": 100.0}],
    }  # fmt: skip

    def shown(labels: list[int]) -> list[str]:
        rows = selective_rows(np.stack([right, right], axis=1), np.array(labels, np.int32))
        report: Any = {"images": 4, "prediction_sets": [sets], "selective": rows}
        return [cells[2] for cells in abstention_tables(report)[-1].rows]

    assert shown([0, 1, 2, 0]) == ["-"] * len(MEASURES)
    assert "-" not in shown([0, 1, 2, 1])


def test_all_other_bounds_stay_as_they_are() -> None:
    errors = np.array([[0.0, 50.0, 0.0, 0.0], [0.0, 40.0, 100.0, 1e-9]])
    low, high = with_exact_bounds(errors, np.array([0.0, 1.0, 1.0, 1.0]), np.full(4, 2.0))
    assert low.tolist() == [0.0, 1.0, 1.0, 1.0]
    assert high.tolist() == [pytest.approx(100 * binomtest(0, 2).proportion_ci().high), 2.0, 2.0, 2.0]


@pytest.mark.parametrize("images", [1, 2, 50])
def test_a_share_that_is_the_same_for_all_images_may_be_another_one_for_others(images: int) -> None:
    """As where one of three replicas is wrong about each; of one image, nearly nothing is known."""
    own = 100 / 3
    (low,), (high,) = error_interval(np.full((images, 1), own))
    others = binomtest(0, images).proportion_ci().high
    assert [low, high] == pytest.approx([own * (1 - others), own + (100 - own) * others])


def test_a_difference_that_no_image_shows_has_no_interval() -> None:
    assert signed_interval([0.0, 0.0]) == "-"
    assert signed_interval([-0.5, 0.0]) == "-0.50 to +0.00"
