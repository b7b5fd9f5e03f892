"""The result of a run in MLflow: data set, provenance, the table's cells, the report's files, notes."""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from pipelines.job.log import read_jobs, stage_seconds
from pipelines.report.outcomes import cell_name
from pipelines.run.dataset import Manifest
from pipelines.run.directory import COST_JSON, JOBS, REPORT, REPORT_JSON, ReplicaFiles, read_metrics
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage, short_name
from pipelines.tracking.notes import child_note, parent_note
from pipelines.tracking.store import MlflowRuns

NOTE = "mlflow.note.content"
FAILURE_TAG = "failure"
RECIPE_JSON = "recipe.json"
DIGEST_CHARACTERS = 36


def send_dataset(runs: MlflowRuns, manifest: Manifest) -> None:
    """Log the data set as MLflow's input of the parent run: a training and an evaluation split."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    runs.log_params(runs.parent, {"dataset_digest": manifest.digest})
    if runs.client.get_run(runs.parent).inputs.dataset_inputs:
        return
    data = str(manifest.prepared_from.get("data", ""))
    name = short_name(data) or data
    inputs = []
    for split, context in (("train", "training"), ("val", "evaluation")):
        chosen = manifest.splits[split]
        profile = {"images": chosen.images, "classes": len(manifest.classes), "shards": len(chosen.shards)}
        dataset = Dataset(
            name=f"{name} ({split})",
            digest=chosen.digest[:DIGEST_CHARACTERS],
            source_type="local" if "://" not in data else data.partition("://")[0],
            source=json.dumps({"uri": data, "dataset_digest": manifest.digest}),
            profile=json.dumps(profile),
        )
        inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", context)]))
    runs.client.log_inputs(runs.parent, inputs)


def send_circumstances(runs: MlflowRuns, run: Storage) -> None:
    """Log the provenance of the newest job as tags, and the wall times of all jobs."""
    jobs = read_jobs(run)
    if not jobs:
        return
    newest = jobs[-1]
    nodes = [
        f"{node['host']}: {node['cpus']:g} CPUs, {node['gpus']:g} GPUs {node['accelerator']}"
        for node in newest["nodes"]
    ]
    tags = {
        "mlflow.source.git.commit": newest["commit"],
        "code_digest": newest["code_digest"],
        "command": newest["command"],
        "starts": str(len(jobs)),
        "hardware": "; ".join(text.rstrip() for text in nodes),
        "platform": f"{newest['platform']}, {newest['memory_gib']} GiB",
        **{f"version/{name}": value for name, value in newest["versions"].items()},
    }
    runs.set_tags(runs.parent, {name: value for name, value in tags.items() if value})
    _log_latest(runs, {f"stage_seconds/{name}": value for name, value in stage_seconds(jobs).items()})


def send_result(runs: MlflowRuns, run: Storage, recipe: Recipe) -> None:
    """Log the result of a finished run."""
    report, cost, jobs = run.read_json(REPORT_JSON), run.read_json(COST_JSON), read_jobs(run)
    _log_latest(runs, result_metrics(report, cost))
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder)
        (kept / RECIPE_JSON).write_text(json.dumps(recipe.to_dict(), indent=2))
        for source in (REPORT, JOBS):
            (kept / source).mkdir()
            for name in run.files(source):
                (kept / source / name).write_bytes(run.read(f"{source}/{name}"))
        runs.client.log_artifacts(runs.parent, folder)
    note = parent_note(report, cost, jobs, runs.parent, set(run.files(REPORT)))
    runs.set_tags(runs.parent, {NOTE: note})


def send_child_note(runs: MlflowRuns, run: Storage, recipe: Recipe, replica: int, failed: bool) -> None:
    """Set the note of a replica's run, and the last line of its failure, if any, as a tag."""
    files, failure = ReplicaFiles(replica), None
    if failed and run.exists(files.failure):
        failure = run.read(files.failure).decode()
        runs.set_tags(runs.child(replica), {FAILURE_TAG: failure.strip().splitlines()[-1]})
    else:
        runs.delete_tag(runs.child(replica), FAILURE_TAG)
    note = child_note(replica, recipe.replica_sampling_seed(replica), read_metrics(run, replica), failure)
    runs.set_tags(runs.child(replica), {NOTE: note})


def result_metrics(report: dict[str, Any], cost: dict[str, Any]) -> dict[str, float]:
    """Return the report's numbers by stable names, such as ``top5_error/7x144``."""
    metrics = {}
    for row in report["table"]:
        for name in ("top1_error", "top5_error"):
            metrics[f"{name}/{cell_name(row['models'], row['policy'])}"] = row[name]
    for row in report["calibration"]:
        for name in ("negative_log_likelihood", "brier_score", "expected_calibration_error"):
            metrics[f"{name}/{cell_name(row['models'], row['policy'])}"] = row[name]
    metrics["evaluation/predictor_seconds"] = cost["predictor_seconds"]
    return metrics


def _log_latest(runs: MlflowRuns, metrics: dict[str, float]) -> None:
    """Log those metrics whose logged value differs."""
    from mlflow.entities import Metric

    logged, now = runs.client.get_run(runs.parent).data.metrics, int(time.time() * 1000)
    news = [Metric(name, value, now, 0) for name, value in metrics.items() if logged.get(name) != value]
    if news:
        runs.client.log_batch(runs.parent, news)
