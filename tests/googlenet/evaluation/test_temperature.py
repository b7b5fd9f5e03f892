"""Temperature against scipy's optimiser. No answer changes, and nothing is judged on what it was fitted on."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special

from googlenet.evaluation import temperature as temperature_module
from googlenet.evaluation.temperature import (
    FOLDS,
    HIGHEST,
    LOWEST,
    JudgedTemperature,
    cross_fitted,
    fit_temperature,
    folds_of,
    with_temperature,
)


def sample(true_temperature: float, images: int = 4000, classifiers: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from probabilities, and classifiers whose logits are those probabilities' times the temperature."""
    generator = np.random.default_rng(7)
    logits = generator.normal(0, 2, (images, 6))
    shares = scipy.special.softmax(logits, axis=1)
    cumulative = shares.cumsum(axis=1)
    labels = (cumulative / cumulative[:, -1:] <= generator.random((images, 1))).sum(axis=1)
    scaled = scipy.special.softmax(logits / true_temperature, axis=1).astype(np.float32)
    return np.stack([scaled] * classifiers), labels


@pytest.mark.parametrize("too_cautious_by", [0.3, 1.0, 3.0, 18.0])
def test_the_temperature_is_the_one_that_scipys_optimiser_finds(too_cautious_by: float) -> None:
    probabilities, labels = sample(too_cautious_by)

    def negative_log_likelihood(temperature: float) -> float:
        logs = scipy.special.log_softmax(np.log(probabilities[0].astype(float)) / temperature, axis=1)
        return -float(logs[np.arange(len(labels)), labels].mean())

    best = scipy.optimize.minimize_scalar(negative_log_likelihood, bounds=(0.01, 10), options={"xatol": 1e-9}).x
    found = fit_temperature(probabilities, labels)
    assert found == pytest.approx(best, rel=1e-5)
    assert found == pytest.approx(1 / too_cautious_by, rel=0.1)


@pytest.mark.parametrize(("labels", "bound"), [([0, 1, 2] * 30, LOWEST), ([1, 2, 0] * 30, HIGHEST)])
def test_where_all_answers_are_right_or_wrong_it_ends_at_a_bound(
    labels: list[int], bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For useless answers at once: with a thousand classes a step takes half a second, and a report has 100 fits."""
    softmax, steps = temperature_module._softmax, []
    monkeypatch.setattr(temperature_module, "_softmax", lambda logits: steps.append(1) or softmax(logits))
    probabilities = np.tile(0.7 * np.eye(3, dtype=np.float32) + 0.1, (30, 1))[None]
    assert fit_temperature(probabilities, np.array(labels)) == pytest.approx(bound, rel=1e-8)
    assert bound == LOWEST or len(steps) <= 3


@pytest.mark.parametrize("temperature", [LOWEST, 0.4, 1.0, HIGHEST])
def test_no_top1_answer_ever_changes(temperature: float) -> None:
    generator = np.random.default_rng(1)
    probabilities = generator.dirichlet(np.full(1000, 0.05), 300).astype(np.float32)
    # Answers that nearly tie, and certain ones.
    probabilities[0, :2], probabilities[1] = (0.5, np.nextafter(np.float32(0.5), np.float32(0))), np.eye(1000)[7]
    calibrated = with_temperature(probabilities, temperature)
    assert (calibrated.argmax(axis=1) == probabilities.argmax(axis=1)).all()
    assert calibrated.sum(axis=1) == pytest.approx(1)
    assert np.isfinite(calibrated).all()


def test_each_fold_is_judged_with_a_temperature_that_never_saw_it() -> None:
    probabilities, labels = sample(2.0, images=500)
    folds = folds_of(f"val/{number}.jpg" for number in range(500))
    assert set(folds) == set(range(FOLDS))
    assert np.bincount(folds).min() > 60
    before = cross_fitted(probabilities, labels, folds)
    changed = labels.copy()
    changed[folds == 2] = (changed[folds == 2] + 1) % 6
    after = cross_fitted(probabilities, changed, folds)
    same = (before == after).all(axis=(0, 2))
    assert same[folds == 2].all()
    assert not same[folds != 2].any()


def test_folds_depend_on_the_id_alone() -> None:
    names = ["a.jpg", "val/b.jpg", "caf\udce9.jpg"]
    assert folds_of(names).tolist() == [int(folds_of([name])[0]) for name in names]


def test_scores_are_means_over_classifiers_with_intervals_and_a_diagram_before_and_after() -> None:
    probabilities, labels = sample(3.0)
    calibrated = cross_fitted(probabilities, labels, folds_of(map(str, range(len(labels)))))
    judged = JudgedTemperature(probabilities, calibrated, labels)
    scores = judged.scores()
    before, after = judged.reliability()
    for name, least in (("negative_log_likelihood", 0.1), ("brier_score", 0.05), ("expected_calibration_error", 0.2)):
        score = scores[name]
        assert score["before"] - score["after"] > least
        assert score["difference"] == pytest.approx(score["after"] - score["before"])
        for stage in ("before", "after"):
            assert score[f"{stage}_ci95"][0] <= score[stage] <= score[f"{stage}_ci95"][1]
        assert score["difference_ci95"][0] < score["difference"] < score["difference_ci95"][1] < 0
    assert scores["expected_calibration_error"]["after"] < 0.02
    own = probabilities[0][np.arange(len(labels)), labels]
    assert scores["negative_log_likelihood"]["before"] == pytest.approx(-np.log(own.astype(float)).mean())
    for rows, stage in ((before, "before"), (after, "after")):
        weighted = sum(row["images"] * abs(row["mean_confidence"] - row["accuracy"]) for row in rows)
        assert weighted / (2 * len(labels)) == pytest.approx(scores["expected_calibration_error"][stage])
