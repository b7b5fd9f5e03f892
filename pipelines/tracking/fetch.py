"""Recipe, report and job log of a run, downloaded from MLflow."""

import json
from pathlib import Path
from typing import Any

from pipelines.errors import TryAgainError, UserError
from pipelines.job.circumstances import circumstances
from pipelines.run.differences import differences
from pipelines.run.directory import JOBS, REPORT
from pipelines.tracking.dataset import DIGEST_TAG
from pipelines.tracking.failures import is_away, reason_of
from pipelines.tracking.result import RECIPE_JSON
from pipelines.tracking.store import ID_TAG, connect, database_of

PREFIX = "runs:/"
WAY_OUT = "; name another store with --tracking-uri"


def fetch_recipe(tracking_uri: str, run: str) -> dict[str, Any]:
    """Return the recipe of an MLflow run, given its id or ``runs:/ID``.

    Raises:
        UserError: there is no such run, or it does not belong to this project.
        TryAgainError: MLflow does not answer.
    """
    client, parent = _parent(tracking_uri, run)
    file = _download(client, parent, run, RECIPE_JSON)
    try:
        recipe: dict[str, Any] = json.loads(Path(file).read_text())
    except ValueError as error:
        raise UserError(f"{RECIPE_JSON} of MLflow run {run} is damaged: {error}") from error
    return recipe


def differences_from(tracking_uri: str, run: str, dataset_digest: str) -> list[str]:
    """Return how images, code and versions here differ from those of an MLflow run.

    Raises:
        UserError: as :func:`fetch_recipe`.
    """
    _, parent = _parent(tracking_uri, run)
    now = circumstances()
    here = {"code_digest": now["code_digest"], **{f"version/{name}": text for name, text in now["versions"].items()}}
    there = {name: parent.data.tags.get(name, "unknown") for name in here}
    # A parameter in earlier versions.
    there[DIGEST_TAG] = {**parent.data.params, **parent.data.tags}.get(DIGEST_TAG, "unknown")
    return differences(there, {**here, DIGEST_TAG: dataset_digest})


def fetch_run(tracking_uri: str, run: str, folder: Path) -> str:
    """Download the report and the job log of an MLflow run to ``folder``; return the run's name.

    Raises:
        UserError: as :func:`fetch_recipe`.
    """
    client, parent = _parent(tracking_uri, run)
    for artifacts in (REPORT, JOBS):
        _download(client, parent, run, artifacts, str(folder))
    return f"{parent.info.run_name} ({parent.info.run_id})"


def _download(client: Any, parent: Any, run: str, name: str, folder: str | None = None) -> str:
    """Download a file or folder of a run; return where it is. An unreachable store is not one that lacks it."""
    try:
        is_there = name in {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
    except Exception as error:
        raise _failed(f"the files of MLflow run {run} cannot be listed", error) from error
    if not is_there:
        raise UserError(f"MLflow run {run} has no {name}")
    try:
        return str(client.download_artifacts(parent.info.run_id, name, folder))
    except Exception as error:  # MLflow's own says of any failure that there is no such file
        raise TryAgainError(f"MLflow run {run} has {name}, but it cannot be downloaded: {reason_of(error)}") from error


def _parent(tracking_uri: str, run: str) -> tuple[Any, Any]:
    """Return a client and the parent run; ``run`` may be the parent or a replica's run."""
    database = database_of(tracking_uri)
    if database is not None and not database.exists():
        raise UserError(f"no run {run}: there is no MLflow store {database}{WAY_OUT}")
    try:
        client = connect(tracking_uri)
        mlflow_run = client.get_run(run.removeprefix(PREFIX))
        if parent := mlflow_run.data.tags.get("mlflow.parentRunId"):
            mlflow_run = client.get_run(parent)
    except Exception as error:
        raise _failed(f"no run {run} in MLflow at {tracking_uri}", error, WAY_OUT) from error
    if ID_TAG not in mlflow_run.data.tags:
        raise UserError(f"MLflow run {run} was not created by train_ensemble.py")
    return client, mlflow_run


def _failed(what: str, error: Exception, way_out: str = "") -> UserError:
    """Return the error of a run that cannot be read: a submitted job is tried again if MLflow gave no answer."""
    if is_away(error):
        return TryAgainError(f"{what}: {reason_of(error)}")
    return UserError(f"{what}: {reason_of(error)}{way_out}")
