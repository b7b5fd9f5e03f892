"""Runs whose plan is made without a cluster, from the figures of a trial."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from googlenet.network.arithmetic import FP32
from pipelines.evaluation.predictors import Predictors
from pipelines.run.dataset import Counts
from pipelines.run.directory import ReplicaFiles
from pipelines.run.predictions import EvaluatedEnsemble, file_name
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training import time_estimate
from pipelines.training.resources import Resources
from pipelines.training.time_estimate import Estimate, estimate
from pipelines.training.trial import Trial

COUNTS = Counts(24, 42, 3)
MEASURED = Trial((FP32,), (0.5,), (0.0,), passes_per_second=100.0, parameters=1)


def measure(monkeypatch: pytest.MonkeyPatch, **times: Any) -> None:
    """A trial of 100 passes a second on one node that holds one replica."""
    monkeypatch.setattr(time_estimate, "run_trial", lambda *_: replace(MEASURED, **times))
    monkeypatch.setattr(time_estimate, "nodes_used", lambda *_: 1)
    monkeypatch.setattr(time_estimate, "replicas_at_once", lambda *_: 1)
    monkeypatch.setattr(time_estimate, "check_that_one_fits", lambda *_: None)


def trained(folder: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, **times: Any) -> Storage:
    """A run whose replicas are finished, and the trial of :func:`measure`."""
    run = Storage.at(str(folder))
    measure(monkeypatch, **times)
    for replica in range(recipe.replicas):
        run.write(ReplicaFiles(replica).weights, b"")
    return run


def estimated(
    run: Storage,
    recipe: Recipe,
    resources: Resources,
    gpus: float | None = None,
    counts: Counts = COUNTS,
    *,
    encoded: Sequence[bytes] = (),
    soup: bool = False,
) -> Estimate:
    """The estimate of a job with one predictor, by default with as many GPUs as a worker has."""
    planned = Predictors(1, resources.gpus_per_worker if gpus is None else gpus)
    return estimate(run, recipe, resources, counts, lambda _: planned, encoded, soup=soup)


def estimated_evaluation(folder: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> float:
    """Seconds of the evaluation of a trained run."""
    return estimated(trained(folder, recipe, monkeypatch), recipe, Resources()).evaluation_seconds


def predict(run: Storage, replicas: int) -> None:
    """Write predictions of so many replicas for all three shards."""
    names = tuple(f"replica_{number}" for number in range(replicas))
    ensemble = EvaluatedEnsemble(names, ("digest",) * replicas, (1,), 35, ("a", "b"), "data", FP32)
    for shard in range(3):
        with run.writing(f"predictions/{file_name(shard)}") as stream:
            pq.write_table(ensemble.schema().empty_table(), stream)
