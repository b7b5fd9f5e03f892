"""Calibration against its definitions, computed image by image."""

import math

import numpy as np
import pytest
import torch

from googlenet.evaluation.calibration import BINS, CalibrationTally


def draw(images: int, classes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    return generator.dirichlet(np.full(classes, 0.3), size=images), generator.integers(0, classes, images)


def test_scores_are_those_of_the_definitions() -> None:
    probabilities, labels = draw(500)
    tally = CalibrationTally()
    for first in range(0, 500, 64):
        tally.update(probabilities[first : first + 64], labels[first : first + 64])
    likelihood, brier, bins = 0.0, 0.0, [[] for _ in range(BINS)]
    for p, label in zip(probabilities, labels, strict=True):
        likelihood -= math.log(p[label])
        brier += sum((value - (c == label)) ** 2 for c, value in enumerate(p))
        bins[math.ceil(max(p) * BINS) - 1].append((max(p), int(np.argmax(p)) == label))
    error = sum(abs(sum(c for c, _ in b) - sum(r for _, r in b)) for b in bins) / 500
    scores = tally.scores()
    assert scores["negative_log_likelihood"] == pytest.approx(likelihood / 500)
    assert scores["brier_score"] == pytest.approx(brier / 500)
    assert scores["expected_calibration_error"] == pytest.approx(error)
    diagram = tally.reliability()
    assert [row["images"] for row in diagram] == [len(b) for b in bins if b]
    weighted = sum(row["images"] * abs(row["mean_confidence"] - row["accuracy"]) for row in diagram) / 500
    assert weighted == pytest.approx(error)


def test_a_confidence_is_in_the_same_bin_in_single_and_in_double_precision() -> None:
    probabilities, labels = np.array([[0.4, 0.6], [0.8, 0.2]], np.float32), np.array([1, 1])
    tallies = CalibrationTally(), CalibrationTally()
    for tally, given in zip(tallies, (probabilities, probabilities.astype(np.float64)), strict=True):
        tally.update(given, labels)
    assert tallies[0].reliability() == tallies[1].reliability()


def test_scores_are_those_of_torchmetrics_and_scikit_learn() -> None:
    # Imported here: other tests of this process do not wait for them.
    from sklearn.metrics import brier_score_loss, log_loss
    from torchmetrics.functional.classification import multiclass_calibration_error

    probabilities, labels = draw(500)
    tally = CalibrationTally()
    tally.update(probabilities, labels)
    given = torch.from_numpy(probabilities), torch.from_numpy(labels)
    error = multiclass_calibration_error(*given, num_classes=7, n_bins=BINS, norm="l1")
    assert tally.scores() == pytest.approx(
        {
            "negative_log_likelihood": log_loss(labels, probabilities, labels=range(7)),
            "brier_score": sum(brier_score_loss(labels == c, probabilities[:, c]) for c in range(7)),
            "expected_calibration_error": error.item(),
        },
        abs=1e-6,
    )


def test_over_and_under_confidence_in_one_bin_cancel_even_at_the_very_top() -> None:
    probabilities = np.array([[1.0, 0.0], [0.95, 0.05]])  # certain and wrong; nearly certain and right
    tally = CalibrationTally()
    tally.update(probabilities, np.array([1, 0]))
    assert tally.scores()["expected_calibration_error"] == pytest.approx((1.0 + 0.95 - 1) / 2)
    [bin_] = tally.reliability()
    assert bin_["images"] == 2


def test_certain_and_right_is_perfect_and_certain_and_wrong_stays_finite() -> None:
    tally = CalibrationTally()
    tally.update(np.eye(3, dtype=np.float32), np.array([0, 1, 2]))
    assert tally.scores() == {
        "negative_log_likelihood": 0.0,
        "brier_score": 0.0,
        "expected_calibration_error": 0.0,
    }
    tally = CalibrationTally()
    tally.update(np.eye(3, dtype=np.float32), np.array([1, 2, 0]))
    scores = tally.scores()
    assert scores["brier_score"] == 2.0
    assert scores["expected_calibration_error"] == 1.0
    assert 80 < scores["negative_log_likelihood"] < 90
