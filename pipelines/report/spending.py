"""Errors by their cost in forward passes, for every way to spend them; and what the run keeps about it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from googlenet.evaluation.cascade import (
    THRESHOLDS,
    WITHIN_POINTS,
    JudgedCascade,
    Stop,
    ViewedImages,
    fit_for_use,
    judge,
    judge_by_folds,
    passes_of,
)
from googlenet.evaluation.kept_budget import KeptBudget
from googlenet.evaluation.stop_rule import cheapest_stop, promised_points, spent_by_folds, stops_by_folds
from googlenet.evaluation.temperature import FEWEST_IMAGES, folds_of
from googlenet.evaluation.view_order import mean_windows_along
from pipelines.report.columns import computed_passes
from pipelines.report.intervals import error_interval
from pipelines.report.schema import TableRow
from pipelines.report.schema_of_spending import BudgetRow, SoupRow, SpendingRow, Way
from pipelines.run.directory import TEACHER_JSON
from pipelines.run.predictions import EvaluatedEnsemble
from pipelines.run.storage import Storage
from pipelines.run.view_probabilities import ALL_VIEWS, ViewProbabilities

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


def spend(
    views: ViewProbabilities | None,
    ensemble: EvaluatedEnsemble,
    known: KeptBudget | None,
    sizes_px: Sequence[tuple[int, int]] = (),
) -> Spent | None:
    """Return what chosen views and a cascade are worth; None without probabilities of views, or with too few.

    A ``known`` order and cascade were fitted on other images and are judged as they are. Without them, each fold of the
    images is judged with what was fitted on the other folds, and what is returned is fitted on all. Passes are those
    that are computed for images of these widths and heights, in the order of the views that is returned.
    """
    if views is None or (known is None and len(views.image_ids) < FEWEST_IMAGES):
        return None
    images, folds = ViewedImages.of(views.probabilities, views.labels), folds_of(views.image_ids)
    if known:
        judged = judge(images, known.fitted)
        spent = {name: judged.spent(known.stop(name)) for name in WITHIN_POINTS}
        computed = _Computed.of(judged, known, sizes_px, ensemble)
        budgets = _budgets(judged, computed, spent, known.promised_points, "other_images")
        return Spent(known, _points(judged, computed), budgets)
    judged = judge_by_folds(images, folds)
    stops = stops_by_folds(images, folds, tuple(WITHIN_POINTS.values()))
    spent = {
        name: spent_by_folds(judged, folds, {fold: of_fold[place] for fold, of_fold in stops.items()})
        for place, name in enumerate(WITHIN_POINTS)
    }
    kept = _kept(images, ensemble, judged)
    # Of the thresholds that are judged here: each was chosen on the images of the other folds.
    others = len(folds) - max(Counter(folds.tolist()).values())
    promised = {name: promised_points(points, others) for name, points in WITHIN_POINTS.items()}
    computed = _Computed.of(judged, kept, sizes_px, ensemble)
    return Spent(kept, _points(judged, computed), _budgets(judged, computed, spent, promised, "other_folds"))


@dataclass(frozen=True)
class _Computed:
    """Mean forward passes that are computed, equal views of an image once.

    Attributes:
        by_views: of all replicas with the first 1, 2, ... chosen views.
        by_stage: of the stages of the cascade.
        counted: of the stages, with equal views counted each time.
    """

    by_views: npt.NDArray[np.float64]
    by_stage: npt.NDArray[np.float64]
    counted: npt.NDArray[np.int64]

    @classmethod
    def of(
        cls, judged: JudgedCascade, kept: KeptBudget, sizes_px: Sequence[tuple[int, int]], ensemble: EvaluatedEnsemble
    ) -> "_Computed":
        """Return the passes for images of these sizes in the order of the views that is kept."""
        windows = mean_windows_along(sizes_px, ensemble.crop_px, kept.view_order)
        by_stage = [models * windows[views - 1] for models, views in judged.stages]
        return cls(len(ensemble.replicas) * windows, np.array(by_stage), passes_of(judged.stages))

    def mean(self, counted: npt.NDArray[np.int64]) -> float:
        """Return the mean over images that were stopped after so many passes, which tell the stage."""
        return float(self.by_stage[np.searchsorted(self.counted, counted)].mean())


def _kept(images: ViewedImages, ensemble: EvaluatedEnsemble, judged: JudgedCascade) -> KeptBudget:
    """Return what the run keeps: fitted on all images, with stops chosen on answers judged by folds."""
    fitted = fit_for_use(images)
    return KeptBudget(
        weights_digests=ensemble.weights_digests,
        dataset_digest=ensemble.dataset_digest,
        images=len(images.rows),
        view_order=tuple(fitted.order.tolist()),
        stages=judged.stages,
        temperatures=tuple(fitted.temperatures),
        chosen_temperatures=tuple(fitted.chosen_temperatures),
        stops={name: cheapest_stop(judged, points) for name, points in WITHIN_POINTS.items()},
        promised_points={name: promised_points(points, len(images.rows)) for name, points in WITHIN_POINTS.items()},
    )


def _points(judged: JudgedCascade, computed: _Computed) -> list[SpendingRow]:
    """Return the error of chosen views and of the cascade by passes."""
    shown = [number for number in SHOWN_VIEWS if number <= judged.chosen_wrong.shape[1]]
    replicas = judged.stages[-1][0]
    rows: list[dict[str, Any]] = [
        {"way": "chosen_views", "models": replicas, "crops": number, "passes": float(computed.by_views[number - 1])}
        for number in shown
    ]
    wrong = [judged.chosen_wrong[:, number - 1] for number in shown]
    seen = set()
    for threshold in THRESHOLDS:
        passes, of_threshold = judged.spent(Stop(threshold, len(judged.stages) - 1))
        if (counted := int(passes.sum())) not in seen:
            seen.add(counted)
            rows.append({"way": "cascade", "threshold": threshold, "passes": computed.mean(passes)})
            wrong.append(of_threshold)
    errors = 100 * np.stack(wrong, axis=1).astype(np.float64)
    bounds = np.stack(error_interval(errors), axis=1)
    for row, error, interval in zip(rows, errors.mean(axis=0), bounds, strict=True):
        row |= {"top1_error": float(error), "top1_ci95": interval.tolist(), "images": len(errors)}
    return cast("list[SpendingRow]", rows)


def _budgets(
    judged: JudgedCascade,
    computed: _Computed,
    spent: dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]],
    promised: dict[str, float],
    judged_on: str,
) -> list[BudgetRow]:
    """Return the budgets, each against all passes on the same images."""
    every = float(computed.by_stage[-1])
    rows = []
    for name, (passes, wrong) in spent.items():
        errors = 100.0 * np.stack([wrong, wrong.astype(float) - judged.all_wrong], axis=1)
        low, high = error_interval(errors, errors=1)
        mean = computed.mean(passes)
        row = {"budget": name, "within_points": WITHIN_POINTS[name], "judged_on": judged_on, "images": len(wrong)}
        if name in promised:
            row["promised_points"] = promised[name]
        row |= {"passes": mean, "all_passes": every, "saving": 100 * (1 - mean / every)}
        row["lost"] = 100 * float((wrong & ~judged.all_wrong).mean())
        for column, key in enumerate(("top1_error", "top1_difference")):
            row[key] = float(errors[:, column].mean())
            row[f"{key.removesuffix('_error')}_ci95"] = [float(low[column]), float(high[column])]
        rows.append(cast("BudgetRow", row))
    return rows


@dataclass(frozen=True)
class Ways:
    """Ways to spend passes beside the cells of the table.

    Attributes:
        spent: chosen views and a cascade, if there are probabilities of views.
        soups: the soups, if they were asked for.
        taught: of a student: the ways of its teacher, which were judged on the same images.
    """

    spent: Spent | None = None
    soups: Sequence[SoupRow] = ()
    taught: Sequence[SpendingRow] | None = None

    @property
    def budgets(self) -> list[BudgetRow]:
        """The budgets of the run's own cascade; of a student none, since its teacher's have the same names."""
        return self.spent.budgets if self.spent and self.taught is None else []


NO_OTHER_WAYS = Ways()


def spending_rows(table: Sequence[TableRow], images: int, ways: Ways) -> list[SpendingRow]:
    """Return every way to spend passes with its error, the efficient ones marked; of a student its teacher's, too."""
    rows = [_of_cell(row, table[0]["policy"], images) for row in table]
    # Four other scales have as many views as all crops, and other errors.
    not_all = {id(row) for row, cell in zip(rows, table, strict=True) if cell["policy"] != str(ALL_VIEWS)}
    if ways.taught is not None:
        for row in rows:
            row["way"] = "student"
        rows += [{**row} for row in ways.taught]
    elif ways.spent:
        rows += [*ways.spent.points, *map(_of_budget, ways.budgets)]
    of_one = {row["policy"]: computed_passes(row) for row in table if row["models"] == 1}
    rows += [_of_soup(row, of_one[row["policy"]]) for row in ways.soups]
    _mark_efficient(rows, not_all)
    return rows


def _mark_efficient(rows: Sequence[SpendingRow], not_all: set[int]) -> None:
    """Mark the rows of which every other with as few passes has a higher error.

    Chosen views and cascades may be judged on a share of the images, and errors on other images do not compare: they
    are taken as differences from all passes on the same images, which the rows with an id in ``not_all`` are not.
    """
    # Chosen views and cascades are of the teacher, if there is one.
    others = [row for row in rows if row["way"] != "student" and id(row) not in not_all]
    most = max((row.get("models", 0) for row in others), default=0)
    everything = [row for row in others if (row.get("models"), row.get("crops")) == (most, ALL_VIEWS)]
    # The ways of a teacher do not tell four other scales from all crops, but all crops come first.
    errors = {row["images"]: row["top1_error"] for row in reversed(everything)}
    added = {id(row): row["top1_error"] - errors.get(row["images"], 0.0) for row in rows}
    lowest = float("inf")
    for row in sorted(rows, key=lambda row: (row["passes"], added[id(row)])):
        row["efficient"] = added[id(row)] < lowest
        lowest = min(lowest, added[id(row)])


def read_taught(run: Storage) -> list[SpendingRow] | None:
    """Return the ways of the teacher of a student, in passes of the student; None without a teacher, or its ways."""
    if not run.exists(TEACHER_JSON):
        return None
    kept = run.read_json(TEACHER_JSON)
    rows: list[SpendingRow] = kept["spending"]
    if not rows:  # the teacher had no report when it taught
        return None
    # Files of earlier versions do not say it.
    cost = float(kept.get("pass_cost", 1.0))
    return rows if cost == 1 else [{**row, "passes": row["passes"] * cost, "pass_cost": cost} for row in rows]


def _of_soup(row: SoupRow, passes: float) -> SpendingRow:
    return {
        "way": "soup",
        "soup": row["soup"],
        "models": 1,
        "crops": row["crops"],
        "passes": passes,
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
        "passes": computed_passes(row),
        "top1_error": row["top1_error"],
        "top1_ci95": row["top1_ci95"],
        "images": images,
        "efficient": False,
    }
