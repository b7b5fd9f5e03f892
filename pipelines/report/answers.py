"""Answers for images without labels: the five likeliest classes of each image, as Parquet and CSV."""

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from googlenet.evaluation.calibration import LEAST_KEPT, LEAST_PROBABILITY
from googlenet.evaluation.cascade import Stage
from googlenet.evaluation.conformal import UNPENALISED, SetRule
from googlenet.evaluation.crops import short_policy
from googlenet.evaluation.ensemble import ABSTAIN, PASSES, SET, answer_columns, top_answers
from googlenet.evaluation.kept_budget import KeptBudget
from googlenet.evaluation.kept_calibration import KeptCalibration
from googlenet.evaluation.view_order import windows_along
from pipelines.errors import UserError
from pipelines.job.console import count, say
from pipelines.report.tally import checked_predictions
from pipelines.run.dataset import image_sizes, read_manifest
from pipelines.run.directory import ANSWERS_CSV, ANSWERS_PARQUET, BUDGET, PREDICTIONS, PREFLIGHT
from pipelines.run.predictions import EvaluatedEnsemble, Predicted, read_costs
from pipelines.run.storage import Storage
from pipelines.run.tables import read_schema

ROWS_SHOWN = 10
# Between the classes of a set in CSV.
SEPARATOR = " | "
# Key of the options in the metadata of the Parquet file.
ASKED = b"googlenet_ensemble_options"


def write_answers(
    run: Storage,
    ensemble: EvaluatedEnsemble,
    calibration: KeptCalibration | None = None,
    coverage: float | None = None,
    budget: KeptBudget | None = None,
    set_rule: SetRule = UNPENALISED,
    *,
    calibrated: bool = True,
) -> str:
    """Write the answers of all replicas with the most crops, in bounded memory; return the first ones as text.

    The column ``agreement`` is the share of replicas whose own top-1 answer is the ensemble's. Probabilities are those
    with the temperature, if there is one. With ``coverage``, the column ``set`` has the classes that hold the true one
    with that probability, the likeliest first, and ``abstain`` says whether they are more than one. For an ensemble
    that stops early, ``passes`` is the number of views computed, summed over the replicas, equal ones once. ``budget``
    has the order of its views, and, unless probabilities are not to be ``calibrated``, the temperatures of its stages
    and of chosen views.

    Raises:
        UserError: predictions are missing, duplicated, or of another ensemble; or there is no calibration for sets.
    """
    say("writing the answers ...")
    rule = _rule(ensemble, calibration, coverage, budget if calibrated else None, set_rule)
    asked = json.dumps({"coverage": coverage, "set_penalty": set_rule.penalty, "calibrated": calibrated})
    _tell_replaced(run, asked)
    seen: Counter[str] = Counter()
    passes = _Passes(run, ensemble, budget) if ensemble.budget else None
    shown = _write_files(run, ensemble, replace(rule, asked=asked), passes, seen)
    lines = [f"{row['image_id']}: {row['answer_1']} ({row['probability_1']:.3f})" for row in shown]
    if seen.total() > len(shown):
        lines.append(f"and {seen.total() - len(shown)} more")
    if ensemble.budget:
        lines += [*about_saving(run, ensemble.budget, seen.total()), *_about_promise(ensemble.budget, budget)]
    if rule.temperature != 1.0:
        fitted_on = count(rule.images, "validation image")
        lines.append(
            f"probabilities have the temperature {rule.temperature:.3f}, fitted on {fitted_on} of the training run"
        )
    return "\n".join([*lines, f"answers: {run.below(ANSWERS_CSV)}, {run.below(ANSWERS_PARQUET)}"])


def _tell_replaced(run: Storage, asked: str) -> None:
    """Say which answers are replaced, if they were given to other options than ``asked``."""
    schema = read_schema(run, ANSWERS_PARQUET) if run.exists(ANSWERS_PARQUET) else None
    kept = ((schema.metadata if schema else None) or {}).get(ASKED, b"").decode()
    if kept and kept != asked:
        say(f"these answers replace the earlier ones, which were given {_in_words(json.loads(kept))}")


def _in_words(asked: Mapping[str, Any]) -> str:
    """Return the options that decide answers, as they are given; ``asked`` is what a file of answers keeps of them."""
    coverage, penalty = asked["coverage"], asked["set_penalty"]
    given = [f"with --coverage {coverage:g}"] if coverage is not None else ["without --coverage"]
    given += [f"--set-penalty {penalty:g}"] if penalty else []
    return ", ".join(given if asked["calibrated"] else [*given, "--no-calibrated"])


def _write_files(
    run: Storage, ensemble: EvaluatedEnsemble, rule: "_Rule", passes: "_Passes | None", seen: Counter[str]
) -> list[dict[str, Any]]:
    """Write both files, and count the images that are ``seen``; return the first rows."""
    shown: list[dict[str, Any]] = []
    schema = _schema(ensemble, rule)
    with (
        run.writing(ANSWERS_PARQUET) as parquet,
        pq.ParquetWriter(parquet, schema) as writer,
        run.writing(ANSWERS_CSV) as stream,
    ):
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
        table = csv.DictWriter(text, schema.names, lineterminator="\n")
        table.writeheader()
        for predicted in checked_predictions(run, ensemble, seen):
            rows = _rows(predicted, ensemble, rule)
            if passes:
                rows = [{**row, PASSES: number} for row, number in zip(rows, passes.of(predicted), strict=True)]
            writer.write_table(pa.Table.from_pylist(rows, schema))
            table.writerows([_as_text(row) for row in rows])
            shown += rows[: ROWS_SHOWN - len(shown)]
        text.detach()
    return shown


@dataclass(frozen=True)
class _Rule:
    """Temperature of the probabilities, and the threshold of the sets of classes; None for no sets.

    ``images`` is the number of images that the temperature was fitted on, ``least`` the probability that smaller ones
    counted as. Where predictions stop early, each stage (numbers of replicas and views) has a temperature. ``asked``
    has the options behind it, as JSON.
    """

    temperature: float = 1.0
    limit: float | None = None
    set_rule: SetRule = UNPENALISED
    by_stage: Mapping[Stage, float] = field(default_factory=dict)
    images: int = 0
    least: float = LEAST_PROBABILITY
    asked: str = ""


def _rule(
    ensemble: EvaluatedEnsemble,
    calibration: KeptCalibration | None,
    coverage: float | None,
    budget: KeptBudget | None,
    set_rule: SetRule,
) -> _Rule:
    if ensemble.budget:
        by_stage = dict(zip(budget.stages, budget.temperatures, strict=True)) if budget else {}
        return _Rule(by_stage=by_stage, least=LEAST_KEPT)
    policy = str(ensemble.largest)
    if budget and coverage is None and (temperature := budget.temperature(policy)):
        return _Rule(temperature, images=budget.images, least=LEAST_KEPT)
    known = calibration.temperature(len(ensemble.replicas), policy) if calibration else None
    limit = calibration.threshold(policy, coverage, set_rule) if calibration and coverage is not None else None
    if coverage is not None and limit is None:
        keeps = f"the run keeps none for the crop policy {short_policy(policy)}"
        raise UserError(f"--coverage {coverage:g} needs sets of classes: {keeps}")
    return _Rule(known or 1.0, limit, set_rule, images=calibration.images if calibration else 0)


def _schema(ensemble: EvaluatedEnsemble, rule: _Rule) -> pa.Schema:
    names = answer_columns(len(ensemble.classes))
    kinds = [pa.string() if name.startswith("answer") else pa.float32() for name in names]
    sets = [] if rule.limit is None else [(SET, pa.list_(pa.string())), (ABSTAIN, pa.bool_())]
    if ensemble.budget:
        sets.append((PASSES, pa.int32()))
    return pa.schema([("image_id", pa.string()), *zip(names, kinds, strict=True), *sets], {ASKED: rule.asked})


def _rows(predicted: Predicted, ensemble: EvaluatedEnsemble, rule: _Rule) -> list[dict[str, Any]]:
    with_most_crops = predicted.probabilities[:, :, -1]
    if ensemble.budget:
        return [_early_row(predicted, place, ensemble, rule) for place in range(len(with_most_crops))]
    return [
        {
            "image_id": image_id,
            **top_answers(probabilities, ensemble.classes, rule.temperature, rule.limit, rule.set_rule, rule.least),
        }
        for image_id, probabilities in zip(predicted.image_ids, with_most_crops, strict=True)
    ]


def _early_row(predicted: Predicted, place: int, ensemble: EvaluatedEnsemble, rule: _Rule) -> dict[str, Any]:
    """Return the answers of those replicas that were asked."""
    views = predicted.views[place, :, 0]
    models = int(np.count_nonzero(views))
    probabilities = predicted.probabilities[place, :models, 0]
    temperature = rule.by_stage.get((models, int(views[0])), 1.0)
    answers = top_answers(probabilities, ensemble.classes, temperature, least=rule.least)
    return {"image_id": predicted.image_ids[place], **answers}


class _Passes:
    """Counts the forward passes of answers that stopped early: of equal views of an image, one is computed."""

    def __init__(self, run: Storage, ensemble: EvaluatedEnsemble, budget: KeptBudget | None) -> None:
        self._sizes = image_sizes(run, read_manifest(run).splits["val"])
        self._crop_px, self._order = ensemble.crop_px, budget.view_order if budget else ()

    def of(self, predicted: Predicted) -> list[int]:
        """Return the passes of each image; without an order of the views, equal ones are counted each time."""
        views = predicted.views[:, :, 0]
        if not self._order:
            return [int(total) for total in views.sum(axis=1)]
        return [
            int(np.count_nonzero(of_one)) * self._windows(image_id, int(of_one.max()))
            for image_id, of_one in zip(predicted.image_ids, views, strict=True)
        ]

    def _windows(self, image_id: str, views: int) -> int:
        return int(windows_along(*self._sizes[image_id], self._crop_px, self._order)[views - 1])


def about_saving(run: Storage, budget: str, images: int) -> list[str]:
    """Return what stopping early has saved, in passes and in seconds of a predictor as the preflight timed it.

    With a budget, the preflight compiles nothing; an evaluation with all passes may be compiled, and faster.
    """
    costs = read_costs(run.below(PREDICTIONS))
    passes, every = sum(cost.forward_passes for cost in costs), sum(cost.all_passes for cost in costs)
    seconds = sum(cost.seconds for cost in costs)
    full = every / run.read_json(PREFLIGHT)["preflight"]["passes_per_second"]
    share = f"{passes / images:.1f} of {every / images:.0f} passes an image ({100 * passes / every:.1f} %)"
    time = f"{seconds / images:.3f} seconds of a predictor instead of about {full / images:.3f}"
    return [f"budget {budget.partition(':')[0]}: {share}, {time} at the speed of the preflight, not compiled"]


def _about_promise(key: str, kept: KeptBudget | None) -> list[str]:
    """Return how many answers the budget promises to lose at most, in a line."""
    if not kept:
        return []
    name = key.partition(":")[0]
    if name not in kept.promised_points:
        return [f"no guarantee: the threshold is from an earlier version; evaluate the run again to renew {BUDGET}"]
    share = f"{kept.promised_points[name]:.2g} %"
    most = f"stopping early turns at most {share} of the answers from right to wrong, on average over images like the"
    return [f"{most} {count(kept.images, 'validation image')} of the run"]


def _as_text(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row for CSV, with the set's classes in one cell."""
    return {**row, SET: SEPARATOR.join(row[SET])} if SET in row else row
