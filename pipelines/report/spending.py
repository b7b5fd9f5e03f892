"""What an error costs in forward passes, for every way to spend them; and what the run keeps about it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from googlenet.evaluation.cascade import (
    THRESHOLDS,
    WITHIN_POINTS,
    Judged,
    Stop,
    fit_for_use,
    judge,
    judge_by_folds,
)
from googlenet.evaluation.kept_budget import KeptBudget
from googlenet.evaluation.stop_rule import cheapest_stop, promised_points, spent_by_folds, stops_by_folds
from googlenet.evaluation.temperature import FEWEST_IMAGES, folds_of
from pipelines.report.intervals import error_interval
from pipelines.report.schema import TableRow
from pipelines.report.schema_of_spending import BudgetRow, SoupRow, SpendingRow, Way
from pipelines.run.predictions import EvaluatedEnsemble
from pipelines.run.view_probabilities import ViewProbabilities

SHOWN_VIEWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 144)


@dataclass(frozen=True)
class Spent:
    """What chosen views and a cascade are worth.

    Attributes:
        kept: the order of the views and the cascade.
        points: error by passes of both.
        budgets: the cascade's budgets.
    """

    kept: KeptBudget
    points: list[SpendingRow]
    budgets: list[BudgetRow]


def spend(views: ViewProbabilities | None, ensemble: EvaluatedEnsemble, known: KeptBudget | None) -> Spent | None:
    """Return what chosen views and a cascade are worth; None without probabilities of views, or with too few.

    A ``known`` order and cascade were fitted on other images and are judged as they are. Without them, each fold of the
    images is judged with what was fitted on the other folds, and what is returned is fitted on all.
    """
    if views is None or (known is None and len(views.image_ids) < FEWEST_IMAGES):
        return None
    folds = folds_of(views.image_ids)
    if known:
        judged = judge(views.probabilities, views.labels, known.fitted)
        spent = {name: judged.spent(known.stop(name)) for name in WITHIN_POINTS}
        budgets = _budgets(judged, spent, known.promised_points, "other_images")
        return Spent(known, _points(judged, len(ensemble.replicas)), budgets)
    judged = judge_by_folds(views.probabilities, views.labels, folds)
    stops = stops_by_folds(views.probabilities, views.labels, folds, tuple(WITHIN_POINTS.values()))
    spent = {
        name: spent_by_folds(judged, folds, {fold: of_fold[place] for fold, of_fold in stops.items()})
        for place, name in enumerate(WITHIN_POINTS)
    }
    kept = _kept(views, ensemble, judged)
    # Of the thresholds that are judged here: each was chosen on the images of the other folds.
    others = len(folds) - max(Counter(folds.tolist()).values())
    promised = {name: promised_points(points, others) for name, points in WITHIN_POINTS.items()}
    return Spent(kept, _points(judged, len(ensemble.replicas)), _budgets(judged, spent, promised, "other_folds"))


def _kept(views: ViewProbabilities, ensemble: EvaluatedEnsemble, judged: Judged) -> KeptBudget:
    """Return what the run keeps: fitted on all images, with stops chosen on answers judged by folds."""
    fitted = fit_for_use(views.probabilities, views.labels)
    return KeptBudget(
        weights_digests=ensemble.weights_digests,
        dataset_digest=ensemble.dataset_digest,
        images=len(views.image_ids),
        view_order=tuple(fitted.order.tolist()),
        stages=judged.stages,
        temperatures=tuple(fitted.temperatures),
        chosen_temperatures=tuple(fitted.chosen_temperatures),
        stops={name: cheapest_stop(judged, points) for name, points in WITHIN_POINTS.items()},
        promised_points={name: promised_points(points, len(views.labels)) for name, points in WITHIN_POINTS.items()},
    )


def _points(judged: Judged, replicas: int) -> list[SpendingRow]:
    """Return the error of chosen views and of the cascade by passes."""
    shown = [number for number in SHOWN_VIEWS if number <= judged.chosen_wrong.shape[1]]
    rows: list[dict[str, Any]] = [
        {"way": "chosen_views", "models": replicas, "crops": number, "passes": float(replicas * number)}
        for number in shown
    ]
    wrong = [judged.chosen_wrong[:, number - 1] for number in shown]
    seen = set()
    for threshold in THRESHOLDS:
        passes, of_threshold = judged.spent(Stop(threshold, len(judged.stages) - 1))
        if (mean := float(passes.mean())) not in seen:
            seen.add(mean)
            rows.append({"way": "cascade", "threshold": threshold, "passes": mean})
            wrong.append(of_threshold)
    errors = 100 * np.stack(wrong, axis=1).astype(np.float64)
    bounds = np.stack(error_interval(errors), axis=1)
    for row, error, interval in zip(rows, errors.mean(axis=0), bounds, strict=True):
        row |= {"top1_error": float(error), "top1_ci95": interval.tolist(), "images": len(errors)}
    return cast("list[SpendingRow]", rows)


def _budgets(
    judged: Judged,
    spent: dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]],
    promised: dict[str, float],
    judged_on: str,
) -> list[BudgetRow]:
    """Return the budgets, each against all passes on the same images."""
    models, views = judged.stages[-1]
    rows = []
    for name, (passes, wrong) in spent.items():
        errors = 100.0 * np.stack([wrong, wrong.astype(float) - judged.all_wrong], axis=1)
        low, high = error_interval(errors, errors=1)
        mean = float(passes.mean())
        row = {"budget": name, "within_points": WITHIN_POINTS[name], "judged_on": judged_on, "images": len(wrong)}
        if name in promised:
            row["promised_points"] = promised[name]
        row |= {"passes": mean, "all_passes": models * views, "saving": 100 * (1 - mean / (models * views))}
        row["lost"] = 100 * float((wrong & ~judged.all_wrong).mean())
        for column, key in enumerate(("top1_error", "top1_difference")):
            row[key] = float(errors[:, column].mean())
            row[f"{key.removesuffix('_error')}_ci95"] = [float(low[column]), float(high[column])]
        rows.append(cast("BudgetRow", row))
    return rows


def spending_rows(
    table: Sequence[TableRow],
    images: int,
    spent: Spent | None,
    soups: Sequence[SoupRow] = (),
    taught: Sequence[SpendingRow] | None = None,
) -> list[SpendingRow]:
    """Return every way to spend passes with its error, the efficient ones marked.

    These are the cells of the table, chosen views, cascades and soups. A student has a teacher, whose ways ``taught``
    were judged on the same images: its own cells stand beside them.
    """
    rows = [_of_cell(row, table[0]["policy"], images) for row in table]
    if taught is not None:
        for row in rows:
            row["way"] = "student"
        rows += [{**row} for row in taught]
    elif spent:
        rows += [*spent.points, *map(_of_budget, spent.budgets)]
    rows += map(_of_soup, soups)
    lowest = float("inf")
    for row in sorted(rows, key=lambda row: (row["passes"], row["top1_error"])):
        row["efficient"] = row["top1_error"] < lowest
        lowest = min(lowest, row["top1_error"])
    return rows


def _of_soup(row: SoupRow) -> SpendingRow:
    return {
        "way": "soup",
        "soup": row["soup"],
        "models": 1,
        "crops": row["crops"],
        "passes": float(row["crops"]),
        "top1_error": row["top1_error"],
        "top1_ci95": row["top1_ci95"],
        "images": row["images"],
        "efficient": False,
    }


def _of_budget(row: BudgetRow) -> SpendingRow:
    return {
        "way": "cascade",
        "budget": row["budget"],
        "passes": row["passes"],
        "top1_error": row["top1_error"],
        "top1_ci95": row["top1_ci95"],
        "images": row["images"],
        "efficient": False,
    }


def _of_cell(row: TableRow, fewest: str, images: int) -> SpendingRow:
    """Return a cell as a way; other policies of as few crops as ``fewest`` are no steps of the same way."""
    way: Way = "replicas_and_views"
    if row["policy"] == fewest:
        way = "replicas"
    elif row["models"] == 1:
        way = "views"
    return {
        "way": way,
        "models": row["models"],
        "crops": row["crops"],
        "passes": float(row["forward_passes"]),
        "top1_error": row["top1_error"],
        "top1_ci95": row["top1_ci95"],
        "images": images,
        "efficient": False,
    }
