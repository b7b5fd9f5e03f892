"""The result of a run in MLflow: provenance, the table's cells, the report's files, notes."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipelines.job.log import read_jobs, stage_seconds
from pipelines.report.numbers import numbers_about_answers
from pipelines.report.outcomes import cell_name, soup_cell
from pipelines.report.provenance import node_text
from pipelines.report.schema import Report
from pipelines.report.schema_of_spending import MeasuredCost
from pipelines.run.dataset import Manifest
from pipelines.run.directory import COST_JSON, JOBS, REPORT, REPORT_MARKDOWN, ReplicaFiles, read_report
from pipelines.run.json_lines import read_metrics
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.tracking.dataset import CLASSES_TAG, DATASET_TAG, IMAGES_TAG
from pipelines.tracking.moved import correct_artifact_places
from pipelines.tracking.notes import child_note, errors_that_count, parent_note
from pipelines.tracking.runs import Experiment, MlflowRuns
from pipelines.tracking.store import database_of

FAILURE_TAG, EVALUATED_REPLICAS_TAG = "failure", "evaluated_replicas"
RECIPE_JSON = "recipe.json"
# Decimals in MLflow; the report has the exact figures.
PERCENT_DECIMALS, SCORE_DECIMALS, SECONDS_DECIMALS = 3, 4, 1


def send_circumstances(runs: MlflowRuns, run: Storage) -> None:
    """Log the provenance of the newest job as tags."""
    jobs = read_jobs(run)
    if not jobs:
        return
    newest = jobs[-1]
    nodes = [f"{node['host']}: {node_text(node)}" for node in newest["nodes"]]
    tags = {
        "mlflow.source.git.commit": newest["commit"],
        "code_digest": newest["code_digest"],
        "command": newest["command"],
        "starts": str(len(jobs)),
        "hardware": "; ".join(nodes),
        "platform": f"{newest['platform']}, {newest['memory_gib']} GiB",
        **{f"version/{name}": value for name, value in newest["versions"].items()},
    }
    runs.set_tags(runs.parent, {name: value for name, value in tags.items() if value})


def send_stage_seconds(runs: MlflowRuns, run: Storage) -> None:
    """Log the wall times of all jobs."""
    seconds = stage_seconds(read_jobs(run))
    runs.log_latest(
        runs.parent,
        {f"stage_seconds/{name}": round(value, SECONDS_DECIMALS) for name, value in seconds.items()},
    )


def send_result(runs: MlflowRuns, run: Storage, recipe: Recipe, manifest: Manifest) -> None:
    """Log the result of a finished run."""
    # A command that knows the store by another path, such as on another machine, may have changed its places.
    if database := database_of(runs.tracking_uri):
        correct_artifact_places(database)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / RECIPE_JSON).write_text(json.dumps(recipe.to_dict(), indent=2))
        runs.client.log_artifacts(runs.parent, folder)
    send_report(runs, runs.parent, run, (REPORT, JOBS))
    evaluated = len(read_report(run)["ensemble"]["replicas"])
    runs.set_tags(runs.parent, {EVALUATED_REPLICAS_TAG: f"{evaluated} of {recipe.replicas}"})
    send_note(runs, run, manifest)


def send_note(runs: MlflowRuns, run: Storage, manifest: Manifest) -> None:
    """Set the note of a finished run, which links to the models that are registered by now."""
    versions = runs.client.search_model_versions(f"run_id = '{runs.parent}'")
    models = sorted((version.name, str(version.version)) for version in versions)
    report, pictures = read_report(run), set(run.files(REPORT))
    note = parent_note(report, manifest, read_jobs(run), runs.parent, pictures, runs.tracking_uri, models)
    runs.set_note(runs.parent, note)


def send_report(runs: Experiment, mlflow_run: str, run: Storage, folders: Sequence[str] = (REPORT,)) -> None:
    """Log the report's numbers as metrics, its files, and the columns that show it in the list of runs."""
    report, cost = read_report(run), run.read_json(COST_JSON)
    runs.log_latest(mlflow_run, result_metrics(report, cost))
    with tempfile.TemporaryDirectory() as folder:
        for source in folders:
            (Path(folder) / source).mkdir()
            for name in run.files(source):
                (Path(folder) / source / name).write_bytes(run.read(f"{source}/{name}"))
        page = Path(folder) / REPORT_MARKDOWN
        if page.exists():
            text = with_pictures(page.read_text(encoding="utf-8"), run.files(REPORT), mlflow_run, runs.tracking_uri)
            page.write_text(text, encoding="utf-8")
        runs.client.log_artifacts(mlflow_run, folder)
    runs.show_columns(columns_of(report))


def with_pictures(markdown: str, files: Sequence[str], mlflow_run: str, tracking_uri: str) -> str:
    """Return a report with links under which MLflow's page of artifacts shows its pictures.

    That page shows no picture whose link has no scheme; one with the scheme alone is still relative to the server.
    """
    scheme = "https" if tracking_uri.startswith("https:") else "http"
    for name in files:
        link = f"]({scheme}:get-artifact?path=report%2F{name}&run_uuid={mlflow_run})"
        markdown = markdown.replace(f"]({name})", link)
    return markdown


def columns_of(report: Report) -> list[str]:
    """Return the columns of MLflow's list of runs that show the data set, and the first and last cell of the table."""
    names = sorted(errors_that_count(report["classes"]))
    cells = dict.fromkeys(cell_name(row["models"], row["policy"]) for row in (report["table"][-1], report["table"][0]))
    tags = (DATASET_TAG, IMAGES_TAG, CLASSES_TAG)
    return [*(f"metrics.`{name}/{cell}`" for name in names for cell in cells), *(f"tags.`{tag}`" for tag in tags)]


def send_child_note(runs: MlflowRuns, run: Storage, recipe: Recipe, replica: int, failed: bool) -> None:
    """Set the note of a replica's run, and the last line of its failure, if any, as a tag."""
    files, failure = ReplicaFiles(replica), None
    if failed and run.exists(files.failure):
        failure = run.read(files.failure).decode()
        runs.set_tags(runs.child(replica), {FAILURE_TAG: failure.strip().splitlines()[-1]})
    else:
        runs.delete_tag(runs.child(replica), FAILURE_TAG)
    note = child_note(replica, recipe.replica_sampling_seed(replica), read_metrics(run, replica), failure)
    runs.set_note(runs.child(replica), note)


def result_metrics(report: Report, cost: MeasuredCost) -> dict[str, float]:
    """Return the report's numbers, rounded, by stable names such as ``top5_error/7x144``.

    The first one is what MLflow's page that compares runs opens with: the error of all models with the most crops.
    """
    metrics = {}
    for row in reversed(report["table"]):
        cell = cell_name(row["models"], row["policy"])
        metrics[f"top1_error/{cell}"] = round(row["top1_error"], PERCENT_DECIMALS)
        metrics[f"top5_error/{cell}"] = round(row["top5_error"], PERCENT_DECIMALS)
    for scores in report["calibration"]:
        cell = cell_name(scores["models"], scores["policy"])
        metrics[f"negative_log_likelihood/{cell}"] = round(scores["negative_log_likelihood"], SCORE_DECIMALS)
        metrics[f"brier_score/{cell}"] = round(scores["brier_score"], SCORE_DECIMALS)
        metrics[f"expected_calibration_error/{cell}"] = round(scores["expected_calibration_error"], SCORE_DECIMALS)
    for calibrated in report.get("temperatures", []):
        cell = f"{cell_name(calibrated['models'], calibrated['policy'])}/calibrated"
        for name in ("negative_log_likelihood", "brier_score", "expected_calibration_error"):
            metrics[f"{name}/{cell}"] = round(calibrated[name]["after"], SCORE_DECIMALS)
    metrics |= numbers_about_answers(report)
    for soup in report.get("soups", []):
        cell = soup_cell(soup["soup"], soup["policy"])
        metrics[f"top1_error/{cell}"] = round(soup["top1_error"], PERCENT_DECIMALS)
        metrics[f"top5_error/{cell}"] = round(soup["top5_error"], PERCENT_DECIMALS)
    metrics["evaluation/predictor_seconds"] = round(cost["predictor_seconds"], SECONDS_DECIMALS)
    return metrics
