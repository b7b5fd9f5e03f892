"""Errors of models on the pages of the models: MLflow ranks replicas and ensembles by them."""

import time
from collections.abc import Sequence
from typing import Any

from pipelines.report.outcomes import policy_in_metrics
from pipelines.report.schema import ReplicaRow, Report, TableRow
from pipelines.run.dataset import Manifest
from pipelines.tracking.dataset import validation_images
from pipelines.tracking.notes import errors_that_count
from pipelines.tracking.result import PERCENT_DECIMALS
from pipelines.tracking.runs import Experiment


def rows_of_ensemble(report: Report) -> list[TableRow]:
    """Return the rows of the table for all models together."""
    largest = max(row["models"] for row in report["table"])
    return [row for row in report["table"] if row["models"] == largest]


def send_model_metrics(
    runs: Experiment,
    mlflow_run: str,
    model_id: str,
    rows: Sequence[TableRow | ReplicaRow],
    report: Report,
    manifest: Manifest,
) -> None:
    """Log the errors of a model by crop policy, such as ``top1_error/144``, unless already done.

    Replicas and ensembles have the same names, so that ``search_logged_models`` can order them. The metrics name the
    validation images they were measured on.
    """
    from mlflow.entities import Metric

    model = runs.client.get_logged_model(model_id)
    name, digest = validation_images(manifest)
    mine = [metric for metric in model.metrics or [] if metric.dataset_digest == digest]
    known = {metric.key: metric.value for metric in mine}
    now, news = int(time.time() * 1000), []
    for row in rows:
        errors: Any = row
        for error in sorted(errors_that_count(report["classes"])):
            key, value = f"{error}/{policy_in_metrics(row['policy'])}", round(errors[error], PERCENT_DECIMALS)
            if known.get(key) != value:
                on = {"dataset_name": name, "dataset_digest": digest, "run_id": mlflow_run}
                news.append(Metric(key, value, now, 0, model_id=model_id, **on))
    if news:
        runs.client.log_batch(mlflow_run, news)
