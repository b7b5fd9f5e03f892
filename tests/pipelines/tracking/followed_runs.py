"""Run directories whose news MLflow is sent, and what MLflow then holds."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from mlflow import MlflowClient

from pipelines.run.dataset import read_manifest
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.tracking.follower import Tracker
from pipelines.tracking.publish import PublishSettings

# The log of a job that ended, as far as MLflow is told of it.
JOB = {
    "outcome": "ended",
    "commit": "",
    "code_digest": "",
    "command": "",
    "platform": "",
    "memory_gib": 1,
    "versions": {},
    "nodes": [],
    "stage_seconds": {},
}
# The log of one that was killed, or that is at work.
RUNNING_JOB = {**JOB, "outcome": "running", "stage_seconds": {"train": 5.0}}

RECIPE = Recipe(replicas=2)
TURN_SECONDS = 0.5
SINCE_MS = 1_700_000_000_000


def store_of(run: Storage) -> str:
    return f"sqlite:///{run.root}/mlflow.db"


def write_lines(run: Storage, name: str, lines: list[dict[str, object]]) -> None:
    run.write(name, "".join(json.dumps(line) + "\n" for line in lines).encode())


def write_epochs(run: Storage, replica: int, epochs: int, **more: object) -> None:
    lines = [
        {
            "epoch": epoch,
            "time_ms": SINCE_MS + epoch,
            "host": "here",
            "learning_rate": 0.1 / epoch,
            "val_top1_error": 50.0 - epoch,
            "val_top1_error_raw_weights": 60.0 - epoch,
            "train_loss_logits": 1.0 / epoch,
            **more,
        }
        for epoch in range(1, epochs + 1)
    ]
    write_lines(run, f"replicas/{replica}/metrics.jsonl", lines)


def copy_result(reported_run: Path, run: Storage) -> None:
    for folder in ("predictions", "report"):
        shutil.copytree(reported_run / folder, Path(run.root) / folder)


def write_steps(run: Storage, replica: int, steps: int) -> None:
    lines: list[dict[str, object]] = [
        {"step": step, "time_ms": SINCE_MS + step, "step/loss_logits": 1 / step, "step/learning_rate": 0.1}
        for step in range(1, steps + 1)
    ]
    write_lines(run, f"replicas/{replica}/steps/00000.jsonl", lines)


def write_load(run: Storage, folder: str, host: str, samples: int) -> None:
    lines: list[dict[str, object]] = [
        {"time_ms": SINCE_MS + 10_000 * n, f"system/{host}/system_memory_usage_percentage": 40.0 + n}
        for n in range(samples)
    ]
    write_lines(run, f"{folder}/{host}/{SINCE_MS}.jsonl", lines)


def tracker_of(run: Storage, uri: str) -> Tracker:
    return Tracker(run, RECIPE, read_manifest(run), PublishSettings(uri, models="none"))


def follow(run: Storage, uri: str, phases: dict[int, str], succeeded: bool | None = None) -> Tracker:
    with tracker_of(run, uri) as tracker:
        tracker.update(phases)
        if succeeded is not None:
            tracker.finish(succeeded)
    return tracker


def runs_of(uri: str, directory: Path | None = None) -> dict[str, Any]:
    """MLflow's runs by their role, of one run directory if it is named."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("googlenet-ensemble")
    of_one = f"tags.run_directory = '{directory}'" if directory else ""
    found = client.search_runs([experiment.experiment_id], of_one)
    by_role = {run.data.tags["googlenet_role"]: run for run in found}
    assert len(found) == len(by_role)
    return by_role


def errors(uri: str, replica: int) -> list[tuple[int, float]]:
    run = runs_of(uri)[f"replica_{replica}"]
    history = MlflowClient(uri).get_metric_history(run.info.run_id, "val_top1_error")
    return [(metric.step, metric.value) for metric in history]


def history(uri: str, role: str, metric: str) -> list[tuple[int, float, int]]:
    run = runs_of(uri)[role]
    found = MlflowClient(uri).get_metric_history(run.info.run_id, metric)
    return [(metric.step, metric.value, metric.timestamp) for metric in found]


def photographs(run: Path, number: int) -> list[tuple[str, bytes]]:
    [shard, *_] = sorted((run / "dataset/val").glob("*.parquet"))
    table = pq.read_table(shard, columns=["image_id", "image"]).slice(0, number).to_pydict()
    return list(zip(table["image_id"], table["image"], strict=True))


def calibrated(run: Path, image_id: str, policy: str) -> np.ndarray:
    """The same with the temperature that the run keeps."""
    kept = json.loads((run / "calibration.json").read_text())
    powers = reported(run, image_id, policy) ** (1 / kept["all_models"][policy])
    return powers / powers.sum()


def reported(run: Path, image_id: str, policy: str) -> np.ndarray:
    """The mean of the replicas' probabilities in the prediction files."""
    table = pq.read_table(run / "predictions", filters=[("image_id", "=", image_id)])
    vectors = [table.column(f"replica_{k}/{policy}_crops").to_pylist()[0] for k in range(3)]
    return np.mean(np.array(vectors, np.float64), axis=0)
