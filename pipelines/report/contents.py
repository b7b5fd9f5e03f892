"""Content of report.json: the paper's table, and an analysis of the predictions. Errors are in percent."""

from typing import Any, cast

import numpy as np
import numpy.typing as npt

from googlenet.evaluation.crops import Policy, mean_distinct_views, num_views
from googlenet.evaluation.diversity import gains
from googlenet.evaluation.metrics import bootstrap_interval
from googlenet.evaluation.two_way import FEWEST_REPLICAS, two_way_intervals
from pipelines.report.columns import differ_beyond_seeds
from pipelines.report.fields import CropPolicy
from pipelines.report.intervals import error_interval, with_exact_bounds
from pipelines.report.outcomes import TOP
from pipelines.report.schema import (
    ClassErrors,
    Diversity,
    Ensemble,
    Mistake,
    PoolingRow,
    ReplicaErrors,
    ReplicaRow,
    Report,
    SingleModel,
    TableRow,
    ViewErrors,
    ViewGroupErrors,
)
from pipelines.report.schema_of_certainty import CalibrationRow
from pipelines.report.schema_of_provenance import Run
from pipelines.report.spending import NO_OTHER_WAYS, Ways, spending_rows
from pipelines.report.tally import Tally
from pipelines.report.temperatures import Calibrated
from pipelines.run.predictions import EvaluatedEnsemble

# Table 3: (models, crops) to top-5 error in percent. The paper prints no top-1 error.
PAPER_TOP5_ERROR: dict[tuple[int, Policy], float] = {
    (1, 1): 10.07,
    (1, 10): 9.15,
    (1, 144): 7.89,
    (7, 1): 8.09,
    (7, 10): 7.62,
    (7, 144): 6.67,
}


def contents(
    tally: Tally,
    ensemble: EvaluatedEnsemble,
    validation_errors: dict[str, float] | None = None,
    calibrated: Calibrated | None = None,
    ways: Ways = NO_OTHER_WAYS,
    run: Run | None = None,
) -> Report:
    """Return the report, ready for JSON: the same predictions give the same bits on processors of one kind.

    Args:
        tally: sums over the predictions.
        ensemble: the evaluated ensemble.
        validation_errors: of each replica at the end of its training, if it was validated on other images.
        calibrated: its calibration, if there are images enough.
        ways: other ways to spend forward passes.
        run: content of run.json, if there is one.
    """
    report: Report = {
        "images": tally.seen.total(),
        "classes": len(ensemble.classes),
        "table": _table(tally, ensemble, is_of_one_recipe=not differ_beyond_seeds(run)),
        "single_model": _single_model(tally, ensemble, validation_errors),
        "replicas": [_of_replica(tally, ensemble, k) for k in range(len(ensemble.replicas))],
        "pooling": _pooling(tally, ensemble),
        "views": _views(tally, ensemble),
        "view_groups": _view_groups(tally, ensemble),
        "calibration": _calibration(tally, ensemble),
        "reliability": tally.calibration[-1][-1].reliability(),
        "diversity": _diversity(tally, ensemble),
        "class_errors": _class_errors(tally, ensemble),
        "mistakes": _mistakes(tally, ensemble),
        "paper_top5_error": [
            {"models": models, "crops": num_views(crops), "top5_error": error}
            for (models, crops), error in PAPER_TOP5_ERROR.items()
        ],
        "ensemble": cast("Ensemble", ensemble.to_dict()),
    }
    if calibrated:
        report["temperatures"], report["reliability_calibrated"] = calibrated.rows, calibrated.reliability
        report["prediction_sets"], report["selective"] = calibrated.sets, calibrated.selective
    report["spending"] = spending_rows(report["table"], report["images"], ways)
    if ways.budgets:
        report["budgets"] = ways.budgets
    if ways.soups:
        report["soups"] = list(ways.soups)
    if run is not None:
        report["run"] = run
    return report


def _diversity(tally: Tally, ensemble: EvaluatedEnsemble) -> Diversity:
    """Return how often two replicas disagree, and what they gain together, with the most crops."""
    disagreement, last = tally.disagreement.percent(), len(ensemble.policies) - 1
    errors = {
        members: 100 * int(tally.averaged.wrong[number, last, 0]) / tally.seen.total()
        for number, members in enumerate(tally.averaged.ensembles)
        if len(members) <= 2
    }
    return {"disagreement": disagreement.tolist(), "pairs": gains(disagreement, errors)}


def _crop_policy(ensemble: EvaluatedEnsemble, policy: int) -> CropPolicy:
    chosen = ensemble.policies[policy]
    return {"crops": num_views(chosen), "policy": str(chosen)}


def _table(tally: Tally, ensemble: EvaluatedEnsemble, *, is_of_one_recipe: bool) -> list[TableRow]:
    """Return a row for every ensemble size and crop policy: mean and spread over all ensembles of that size."""
    shares = 100 * tally.averaged.by_image()
    _, sizes, policies, _ = shares.shape
    # Each image's error is first averaged over the ensembles of a size, so the interval is over images.
    flat = shares.reshape(len(shares), -1)
    # Differences to one model with the fewest crops are resampled together with the cells.
    differences = (shares - shares[:, :1, :1]).reshape(flat.shape)
    bounds = np.stack(error_interval(np.concatenate([flat, differences], axis=1), flat.shape[1]), axis=1)
    ci95, difference_ci95 = bounds.reshape(2, sizes, policies, len(TOP), 2)
    wider = _over_images_and_replicas(tally, ensemble) if is_of_one_recipe else {}
    if wider:  # where all replicas are right, or all wrong, on every image, resampling them draws the same as well
        low, high = with_exact_bounds(flat, *wider["ci95"].reshape(-1, 2).T)
        wider["ci95"] = np.stack([low, high], axis=1).reshape(ci95.shape)
    means = shares.mean(axis=0)
    computed = [mean_distinct_views(tally.sizes_px, ensemble.crop_px, (policy,)) for policy in ensemble.policies]
    rows = []
    for size, policy in np.ndindex(sizes, policies):
        members = [n for n, chosen in enumerate(tally.averaged.ensembles) if len(chosen) == size + 1]
        by_ensemble = 100 * tally.averaged.wrong[members, policy] / len(shares)
        row: dict[str, Any] = {"models": size + 1, **_crop_policy(ensemble, policy)}
        for column, top in enumerate(TOP):
            at = size, policy, column
            row[f"{top}_error"] = float(means[at])
            row[f"{top}_ci95"] = ci95[at].tolist()
            row[f"{top}_range"] = [float(by_ensemble[:, column].min()), float(by_ensemble[:, column].max())]
            row[f"{top}_std"] = float(by_ensemble[:, column].std(ddof=1)) if len(members) > 1 else 0.0
            row[f"{top}_difference"] = float(means[at] - means[0, 0, column])
            row[f"{top}_difference_ci95"] = difference_ci95[at].tolist()
            row |= {f"{top}_{name}_images_and_replicas": bounds[at].tolist() for name, bounds in wider.items()}
        row["ensembles"] = len(members)
        row["forward_passes"] = row["models"] * row["crops"]
        row["computed_passes"] = row["models"] * computed[policy]
        row["paper_top5_error"] = PAPER_TOP5_ERROR.get((row["models"], ensemble.policies[policy]))
        rows.append(cast("TableRow", row))
    return rows


def _over_images_and_replicas(tally: Tally, ensemble: EvaluatedEnsemble) -> dict[str, npt.NDArray[np.float64]]:
    """Return the wider intervals by name, each (S, P, 2, 2) with the bounds last; empty for too few replicas."""
    if len(ensemble.replicas) < FEWEST_REPLICAS:
        return {}
    errors, differences = two_way_intervals(tally.averaged)
    return {"ci95": 100 * np.moveaxis(errors, 0, -1), "difference_ci95": 100 * np.moveaxis(differences, 0, -1)}


def _single_model(tally: Tally, ensemble: EvaluatedEnsemble, validation_errors: dict[str, float] | None) -> SingleModel:
    """Return the replica with the lowest validation error, the paper's choice of one model."""
    if validation_errors is not None:
        best = min(range(len(ensemble.replicas)), key=lambda k: validation_errors[ensemble.replicas[k]])
        return {**_of_replica(tally, ensemble, best), "chosen_on": "training_validation_images"}
    best = min(range(len(ensemble.replicas)), key=lambda k: int(tally.averaged.wrong[k, 0, 0]))
    return {**_of_replica(tally, ensemble, best), "chosen_on": "evaluated_images"}


def _of_replica(tally: Tally, ensemble: EvaluatedEnsemble, replica: int) -> ReplicaErrors:
    percent = 100 * tally.averaged.wrong[tally.averaged.number_of(replica)] / tally.seen.total()
    rows: list[ReplicaRow] = [
        {**_crop_policy(ensemble, policy), "top1_error": float(top1), "top5_error": float(top5)}
        for policy, (top1, top5) in enumerate(percent)
    ]
    return {"replica": ensemble.replicas[replica], "rows": rows}


def _pooling(tally: Tally, ensemble: EvaluatedEnsemble) -> list[PoolingRow]:
    """Compare the maximum over views, then mean over models, with the mean over both (section 7), with most views."""
    averaged, pooled = 100 * tally.averaged.by_image()[:, :, -1], 100 * tally.max_pooled.by_image()[:, :, 0]
    flat = (pooled - averaged).reshape(len(pooled), -1)
    bounds = np.stack(bootstrap_interval(flat), axis=1).reshape(*pooled.shape[1:], 2)
    rows = []
    for size in range(pooled.shape[1]):
        row: dict[str, Any] = {"models": size + 1, **_crop_policy(ensemble, len(ensemble.policies) - 1)}
        for column, top in enumerate(TOP):
            row[f"{top}_error_average"] = float(averaged[:, size, column].mean())
            row[f"{top}_error_max"] = float(pooled[:, size, column].mean())
            row[f"{top}_difference"] = float(flat.reshape(pooled.shape)[:, size, column].mean())
            row[f"{top}_difference_ci95"] = bounds[size, column].tolist()
        rows.append(cast("PoolingRow", row))
    return rows


def _views(tally: Tally, ensemble: EvaluatedEnsemble) -> list[ViewErrors]:
    """Return the top-1 error of each view alone: mean of the single models, and all models together."""
    percent = 100 * tally.wrong_by_view / tally.seen.total()
    return [
        {
            "scale_px": view.scale_px,
            "square": view.square,
            "kind": view.kind,
            "mirrored": view.mirrored,
            "top1_error": float(percent[:-1, v].mean()),
            "top1_error_all_models": float(percent[-1, v]),
        }
        for v, view in enumerate(ensemble.views)
    ]


def _view_groups(tally: Tally, ensemble: EvaluatedEnsemble) -> list[ViewGroupErrors]:
    """Return the top-1 error of the average over all views that share a scale, square, kind or orientation."""
    if not ensemble.groups:
        return []
    wrong = 100 * tally.wrong_by_group()
    flat = wrong.reshape(len(wrong), -1)
    low, high = error_interval(flat)
    means, bounds = wrong.mean(axis=0), np.stack([low, high], axis=1).reshape(*wrong.shape[1:], 2)
    return [
        {
            "group": name,
            "top1_error": float(means[g, 0]),
            "top1_ci95": bounds[g, 0].tolist(),
            "top1_error_all_models": float(means[g, 1]),
            "top1_ci95_all_models": bounds[g, 1].tolist(),
        }
        for g, name in enumerate(ensemble.groups)
    ]


def _calibration(tally: Tally, ensemble: EvaluatedEnsemble) -> list[CalibrationRow]:
    """Return the scores of one model (mean of the single models), then of all models, by policy."""
    rows: list[CalibrationRow] = []
    for models, tallies in ((1, tally.calibration[:-1]), (len(ensemble.replicas), tally.calibration[-1:])):
        for policy in range(len(ensemble.policies)):
            scores = [by_policy[policy].scores() for by_policy in tallies]
            rows.append(
                {
                    "models": models,
                    **_crop_policy(ensemble, policy),
                    "negative_log_likelihood": _mean(scores, "negative_log_likelihood"),
                    "brier_score": _mean(scores, "brier_score"),
                    "expected_calibration_error": _mean(scores, "expected_calibration_error"),
                }
            )
    return rows if len(ensemble.replicas) > 1 else rows[: len(ensemble.policies)]


def _mean(scores: list[dict[str, float]], name: str) -> float:
    return float(np.mean([score[name] for score in scores]))


def _class_errors(tally: Tally, ensemble: EvaluatedEnsemble) -> list[ClassErrors]:
    """Return the top-1 error of all models with the most crops by class, and its most frequent wrong answer."""
    rows: list[ClassErrors] = []
    for label, row in enumerate(tally.confusion()):
        images, right = int(row.sum()), int(row[label])
        others = np.where(np.arange(len(row)) == label, 0, row)
        taken_for = ensemble.classes[int(others.argmax())] if others.any() else None
        error = 100 * (images - right) / images if images else None
        rows.append(
            {"class": ensemble.classes[label], "images": images, "top1_error": error, "most_often_taken_for": taken_for}
        )
    return rows


def _mistakes(tally: Tally, ensemble: EvaluatedEnsemble) -> list[Mistake]:
    """Return the most confident mistakes of all models with the most crops."""
    return [
        {
            "image_id": image_id,
            "label": ensemble.classes[label],
            "answer": ensemble.classes[answer],
            "probability": sure,
            "probability_of_label": own,
        }
        for sure, image_id, label, answer, own in sorted(tally.mistakes, key=lambda m: (-m[0], m[1]))
    ]
