"""Sets of classes and answers left to people: how often a set holds the label, and which error then remains."""

from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from googlenet.evaluation.conformal import UNPENALISED, SetRule, label_scores, prediction_sets, threshold
from googlenet.evaluation.kept_calibration import KeptCalibration
from googlenet.evaluation.selective import area_interval, area_under_risk, remaining_errors, uncertainties
from googlenet.evaluation.temperature import fit_temperature, with_temperature
from pipelines.report.intervals import error_interval
from pipelines.report.schema_of_certainty import SelectiveRow, SetRow
from pipelines.run.predictions import EvaluatedEnsemble

# Coverages of the sets in every report.
COVERAGES = (0.9, 0.95)
# Shares of answered images, in percent, at which the remaining error is reported.
ANSWERED_PERCENT = tuple(range(5, 101, 5))

Probabilities = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int32]


@dataclass(frozen=True)
class ReportedSets:
    """Sets that a report judges: their coverages, and the penalty on the ranks of their classes."""

    rule: SetRule = UNPENALISED
    coverages: tuple[float, ...] = COVERAGES

    @classmethod
    def asked_for(cls, penalty: float, coverage: float | None) -> "ReportedSets":
        """Return the sets of every report and, if it is given, those of one more coverage."""
        added = set() if coverage is None else {coverage}
        return cls(SetRule(penalty), tuple(sorted({*COVERAGES, *added})))


USUAL_SETS = ReportedSets()


def set_rows(
    everyone: Probabilities,
    labels: Labels,
    folds: npt.NDArray[np.int64],
    ensemble: EvaluatedEnsemble,
    known: KeptCalibration | None,
    asked: ReportedSets = USUAL_SETS,
) -> list[SetRow]:
    """Return how prediction sets of all models do, (N, C) and (N,), on images that they were not fitted on."""
    rule = asked.rule
    policy = str(ensemble.largest)
    temperature = known.temperature(len(ensemble.replicas), policy) if known else None
    rows = []
    for coverage in asked.coverages:
        limit = known.threshold(policy, coverage, rule) if known else None
        if known and temperature is not None and limit is not None:
            sets = prediction_sets(with_temperature(everyone, temperature), limit, rule)
            about = {"judged_on": "other_images", "fitted_images": known.images}
        else:
            sets = _cross_fitted_sets(everyone, labels, folds, coverage, rule)
            about = {"judged_on": "other_folds", "fitted_images": len(labels) - int(np.bincount(folds).max())}
        row = {"coverage": coverage, "penalty": rule.penalty, **about, **_about_sets(sets, labels, ensemble.classes)}
        rows.append(cast("SetRow", row))
    return rows


def _cross_fitted_sets(
    everyone: Probabilities, labels: Labels, folds: npt.NDArray[np.int64], coverage: float, rule: SetRule
) -> npt.NDArray[np.bool_]:
    """Return each fold's sets (N, C), with the temperature and the threshold of the other folds."""
    sets = np.empty(everyone.shape, bool)
    for fold in np.unique(folds):
        inside = folds == fold
        temperature = fit_temperature(everyone[None, ~inside], labels[~inside])
        calibrated = with_temperature(everyone, temperature)
        limit = threshold(label_scores(calibrated[~inside], labels[~inside], rule), coverage)
        sets[inside] = prediction_sets(calibrated[inside], limit, rule)
    return sets


def _about_sets(sets: npt.NDArray[np.bool_], labels: Labels, classes: tuple[str, ...]) -> dict[str, object]:
    holds, sizes = sets[np.arange(len(labels)), labels], sets.sum(axis=1)
    percent = 100.0 * holds[:, None].astype(np.float64)
    low, high = error_interval(percent)
    seen = np.bincount(labels, minlength=len(classes))
    held = np.bincount(labels, holds, minlength=len(classes))
    return {
        "images": len(labels),
        "empirical_coverage": 100 * float(holds.mean()),
        "empirical_coverage_ci95": [float(low[0]), float(high[0])],
        "mean_size": float(sizes.mean()),
        "single_answers": 100 * float((sizes == 1).mean()),
        "classes": [
            {"class": name, "images": int(images), "empirical_coverage": 100 * float(right) / int(images)}
            for name, images, right in zip(classes, seen, held, strict=True)
            if images
        ],
    }


def selective_rows(probabilities: npt.NDArray[np.float32], labels: Labels) -> list[SelectiveRow]:
    """Return the error that remains among the surest images, by each measure of how unsure the replicas are."""
    wrong = probabilities.mean(axis=1, dtype=np.float64).argmax(axis=1) != labels
    rows = []
    for measure, unsure in uncertainties(probabilities).items():
        errors = 100 * remaining_errors(unsure, wrong)
        last = [max(1, round(len(labels) * percent / 100)) - 1 for percent in ANSWERED_PERCENT]
        curve = [[float(percent), float(errors[place])] for percent, place in zip(ANSWERED_PERCENT, last, strict=True)]
        row = {"measure": measure, "images": len(labels), "area": 100 * area_under_risk(unsure, wrong)}
        bounds = [100 * bound for bound in area_interval(unsure, wrong)]
        rows.append(cast("SelectiveRow", {**row, "area_ci95": bounds, "remaining_errors": curve}))
    return rows
