"""Answers for images without labels: the five likeliest classes of each image, as Parquet and CSV."""

import csv
import io
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from googlenet.evaluation.ensemble import ABSTAIN, SET, answer_columns, top_answers
from googlenet.evaluation.kept_calibration import KeptCalibration
from pipelines.errors import UserError
from pipelines.job.console import count
from pipelines.report.tally import checked_predictions
from pipelines.run.directory import ANSWERS_CSV, ANSWERS_PARQUET
from pipelines.run.predictions import EvaluatedEnsemble, Predicted
from pipelines.run.storage import Storage

ROWS_SHOWN = 10
# Between the classes of a set in CSV.
SEPARATOR = " | "


def write_answers(
    run: Storage,
    ensemble: EvaluatedEnsemble,
    calibration: KeptCalibration | None = None,
    coverage: float | None = None,
) -> str:
    """Write the answers of all replicas with the most crops, in bounded memory; return the first ones as text.

    The column ``agreement`` is the share of replicas whose own top-1 answer is the ensemble's. Probabilities are those
    with the temperature, if there is one. With ``coverage``, the column ``set`` has the classes that hold the true one
    with that probability, the likeliest first, and ``abstain`` says whether they are more than one.

    Raises:
        UserError: predictions are missing, duplicated, or of another ensemble; or there is no calibration for sets.
    """
    rule = _rule(ensemble, calibration, coverage)
    seen: Counter[str] = Counter()
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
            writer.write_table(pa.Table.from_pylist(rows, schema))
            table.writerows([_as_text(row) for row in rows])
            shown += rows[: ROWS_SHOWN - len(shown)]
        text.detach()
    lines = [f"{row['image_id']}: {row['answer_1']} ({row['probability_1']:.3f})" for row in shown]
    if seen.total() > len(shown):
        lines.append(f"and {seen.total() - len(shown)} more")
    if calibration and rule.temperature != 1.0:
        fitted_on = count(calibration.images, "validation image")
        lines.append(f"probabilities have the temperature {rule.temperature:.3f}, fitted on {fitted_on} of the run")
    return "\n".join([*lines, f"answers: {run.below(ANSWERS_CSV)}, {run.below(ANSWERS_PARQUET)}"])


@dataclass(frozen=True)
class _Rule:
    """Temperature of the probabilities, and the threshold of the sets of classes; None for no sets."""

    temperature: float = 1.0
    limit: float | None = None


def _rule(ensemble: EvaluatedEnsemble, calibration: KeptCalibration | None, coverage: float | None) -> _Rule:
    policy = str(ensemble.largest)
    known = calibration.temperature(len(ensemble.replicas), policy) if calibration else None
    limit = calibration.threshold(policy, coverage) if calibration and coverage is not None else None
    if coverage is not None and limit is None:
        raise UserError(
            f"--coverage {coverage:g} needs the calibration of the run for {policy} crops, and the run has none: "
            "a run keeps it in calibration.json when it is evaluated on 40 validation images or more"
        )
    return _Rule(known or 1.0, limit)


def _schema(ensemble: EvaluatedEnsemble, rule: _Rule) -> pa.Schema:
    names = answer_columns(len(ensemble.classes))
    kinds = [pa.string() if name.startswith("answer") else pa.float32() for name in names]
    sets = [] if rule.limit is None else [(SET, pa.list_(pa.string())), (ABSTAIN, pa.bool_())]
    return pa.schema([("image_id", pa.string()), *zip(names, kinds, strict=True), *sets])


def _rows(predicted: Predicted, ensemble: EvaluatedEnsemble, rule: _Rule) -> list[dict[str, Any]]:
    with_most_crops = predicted.probabilities[:, :, -1]
    return [
        {"image_id": image_id, **top_answers(probabilities, ensemble.classes, rule.temperature, rule.limit)}
        for image_id, probabilities in zip(predicted.image_ids, with_most_crops, strict=True)
    ]


def _as_text(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row for CSV, with the set's classes in one cell."""
    return {**row, SET: SEPARATOR.join(row[SET])} if SET in row else row
