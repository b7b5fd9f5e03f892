"""Answers for images without labels: the five likeliest classes of each image, as Parquet and CSV."""

import csv
import io
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from googlenet.evaluation.ensemble import answer_columns, top_answers
from pipelines.job.console import count
from pipelines.report.tally import checked_predictions
from pipelines.run.calibration import KeptCalibration
from pipelines.run.directory import ANSWERS_CSV, ANSWERS_PARQUET
from pipelines.run.predictions import EvaluatedEnsemble, Predicted
from pipelines.run.storage import Storage

ROWS_SHOWN = 10


def write_answers(run: Storage, ensemble: EvaluatedEnsemble, calibration: KeptCalibration | None = None) -> str:
    """Write the answers of all replicas with the most crops, in bounded memory; return the first ones as text.

    The column ``agreement`` is the share of replicas whose own top-1 answer is the ensemble's. Probabilities are those
    with the temperature, if there is one.

    Raises:
        UserError: predictions are missing, duplicated, or of another ensemble.
    """
    seen: Counter[str] = Counter()
    shown: list[dict[str, Any]] = []
    schema = _schema(ensemble)
    known = calibration.temperature(len(ensemble.replicas), str(ensemble.largest)) if calibration else None
    with (
        run.writing(ANSWERS_PARQUET) as parquet,
        pq.ParquetWriter(parquet, schema) as writer,
        run.writing(ANSWERS_CSV) as stream,
    ):
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
        table = csv.DictWriter(text, schema.names, lineterminator="\n")
        table.writeheader()
        for predicted in checked_predictions(run, ensemble, seen):
            rows = _rows(predicted, ensemble, known or 1.0)
            writer.write_table(pa.Table.from_pylist(rows, schema))
            table.writerows(rows)
            shown += rows[: ROWS_SHOWN - len(shown)]
        text.detach()
    lines = [f"{row['image_id']}: {row['answer_1']} ({row['probability_1']:.3f})" for row in shown]
    if seen.total() > len(shown):
        lines.append(f"and {seen.total() - len(shown)} more")
    if calibration and known:
        fitted_on = count(calibration.images, "validation image")
        lines.append(f"probabilities have the temperature {known:.3f}, fitted on {fitted_on} of the run")
    return "\n".join([*lines, f"answers: {run.below(ANSWERS_CSV)}, {run.below(ANSWERS_PARQUET)}"])


def _schema(ensemble: EvaluatedEnsemble) -> pa.Schema:
    names = answer_columns(len(ensemble.classes))
    kinds = [pa.string() if name.startswith("answer") else pa.float32() for name in names]
    return pa.schema([("image_id", pa.string()), *zip(names, kinds, strict=True)])


def _rows(predicted: Predicted, ensemble: EvaluatedEnsemble, temperature: float) -> list[dict[str, Any]]:
    with_most_crops = predicted.probabilities[:, :, -1]
    return [
        {"image_id": image_id, **top_answers(probabilities, ensemble.classes, temperature)}
        for image_id, probabilities in zip(predicted.image_ids, with_most_crops, strict=True)
    ]
