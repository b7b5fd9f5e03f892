"""Evaluations of other images in MLflow: runs of their own, beside the training run whose replicas they evaluate."""

from typing import Any

from pipelines.job.console import say
from pipelines.report.markdown_tables import code, plain
from pipelines.report.provenance import processor_of
from pipelines.report.schema import Report
from pipelines.run.dataset import Manifest
from pipelines.run.directory import REPORT, RUN, read_report, run_id
from pipelines.run.predictions import EvaluatedEnsemble
from pipelines.run.storage import Storage, short_name
from pipelines.tracking.commands import how_to_open, replay_command
from pipelines.tracking.dataset import data_of, name_of_data, send_dataset
from pipelines.tracking.failures import reason_of, repeatedly
from pipelines.tracking.model_identity import digest_of, logged_model
from pipelines.tracking.model_metrics import rows_of_ensemble, send_model_metrics
from pipelines.tracking.notes import evaluation_note
from pipelines.tracking.result import EVALUATED_REPLICAS_TAG, send_report
from pipelines.tracking.runs import WITHOUT_NOTE, Experiment
from pipelines.tracking.store import DIRECTORY_TAG, EXPERIMENT, ROLE_TAG, find_parent, page_of_run, trained_run_of

ROLE = "evaluation"
# Evaluations lack the tag by which the runs of a run directory are found.
EVALUATION_TAG = "googlenet_evaluation_id"
EVALUATED_RUN_TAG = "evaluated_run"
ARITHMETIC_TAG = "arithmetic"
SOURCE = {"mlflow.source.name": "pipelines/evaluate_ensemble.py", "mlflow.source.type": "JOB"}


def send_evaluation(run: Storage, trained: Storage, manifest: Manifest, tracking_uri: str) -> str:
    """Send the report in ``run``, an evaluation of the replicas in ``trained``; return the outcome in two lines.

    ``trained`` is ``run`` itself for weights from other sources. Failures of MLflow are not raised.
    """

    def tell(reason: str) -> None:
        say(f"warning: MLflow at {tracking_uri}: {reason}; will try again")

    say(f"sending the evaluation to MLflow at {tracking_uri} ...")
    try:
        page = repeatedly(lambda: _send(run, trained, manifest, Experiment(tracking_uri)), tell)
    except Exception as error:  # noqa: BLE001  # the report is complete, whatever happens to MLflow
        return f"warning: not in MLflow at {tracking_uri}: {reason_of(error)}; run the same command again to send it"
    return f"the evaluation is in MLflow at {tracking_uri}\n{how_to_open(run, tracking_uri, page)}"


def not_sent(run: Storage, tracking_uri: str) -> str:
    """Return the line on a new report of a run's own images, which only a replay sends."""
    return f"MLflow: the new report was not sent; to send it: {replay_command(run, tracking_uri)}"


def _send(run: Storage, trained: Storage, manifest: Manifest, runs: Experiment) -> str:
    origin = find_parent(runs.client, trained) if trained != run else None
    mlflow_run = _find_or_create(run, trained, manifest, runs)
    runs.set_tags(mlflow_run, {DIRECTORY_TAG: run.root})  # also after a move
    send_dataset(runs, mlflow_run, manifest)
    report: Report = read_report(run)
    ensemble = report["ensemble"]
    settings = {"crop_px": ensemble["crop_px"], "policies": ensemble["policies"], "data": data_of(manifest)}
    runs.log_params(mlflow_run, settings)
    # No parameter, which could not change: more replicas may be finished when the evaluation is sent again.
    replicas = {EVALUATED_REPLICAS_TAG: str(len(ensemble["replicas"]))}
    runs.set_tags(mlflow_run, {**replicas, ARITHMETIC_TAG: str(ensemble["arithmetic"]), **_tags_of_start(report)})
    place, given = code(str(trained)), ", ".join(map(code, report.get("evaluated_by", {}).get("weights", ())))
    whose = f"The replicas of {place} on other images."
    if trained == run:
        whose = f"Weights evaluated in {place}{given and f': {given}'}."
    if origin is not None:
        runs.set_tags(mlflow_run, {EVALUATED_RUN_TAG: origin.info.run_id})
        page = page_of_run(runs.experiment, origin.info.run_id)
        whose = f"The replicas of the run [{plain(origin.info.run_name)}]({page}) on other images than its own."
    send_report(runs, mlflow_run, run)
    note = evaluation_note(report, manifest, mlflow_run, set(run.files(REPORT)), whose)
    runs.set_note(mlflow_run, note)
    # Of the ensemble alone: in one MLflow run, the metrics of its replicas would have the same names.
    weights = digest_of(EvaluatedEnsemble.from_dict(dict(ensemble)))
    if origin is not None and (model_id := logged_model(runs, origin.info.run_id, weights)):
        send_model_metrics(runs, mlflow_run, model_id, rows_of_ensemble(report), report, manifest)
    runs.set_status(mlflow_run, "FINISHED")
    return page_of_run(runs.experiment, mlflow_run)


def _tags_of_start(report: Report) -> dict[str, str]:
    """Return how and by which code the report was made; nothing for a report of an earlier version."""
    if "evaluated_by" not in report:
        return {}
    start = report["evaluated_by"]
    tags = {
        "mlflow.source.git.commit": start["commit"],
        "code_digest": start["code_digest"],
        "command": start["command"],
        "hardware": processor_of(start),
        "weights": ", ".join(start.get("weights", ())),
        **{f"version/{name}": version for name, version in start["versions"].items()},
    }
    return {name: value for name, value in tags.items() if value}


def find_evaluation(client: Any, run: Storage) -> Any:
    """Return the MLflow run of the evaluation in ``run``; None if the store does not have it."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if run.exists(RUN):  # a directory of its own; that of weights has a longer id
        own = f"LIKE '{run_id(run)}%'"
    elif trained := trained_run_of(run):
        own = f"= '{run_id(trained)}/{short_name(run.root)}'"
    else:
        return None
    tracked = client.search_runs([experiment.experiment_id], f"tags.{EVALUATION_TAG} {own}") if experiment else []
    return next(iter(tracked), None)


def _find_or_create(run: Storage, trained: Storage, manifest: Manifest, runs: Experiment) -> str:
    """Return the id of the MLflow run of this evaluation: the same one for the same command again."""
    own = run_id(run) if trained != run and run.exists(RUN) else f"{run_id(trained)}/{short_name(run.root)}"
    # A run directory of weights from other sources has one evaluation, whatever it was called before.
    is_own = f"LIKE '{run_id(trained)}/%'" if trained == run else f"= '{own}'"
    known = runs.client.search_runs([runs.experiment], f"tags.{EVALUATION_TAG} {is_own}")
    if known:
        return str(known[0].info.run_id)
    tags = {EVALUATION_TAG: own, ROLE_TAG: ROLE, **WITHOUT_NOTE, **SOURCE}
    name = f"{short_name(trained.root)} on {name_of_data(manifest)}"
    return str(runs.client.create_run(runs.experiment, run_name=name, tags=tags).info.run_id)
