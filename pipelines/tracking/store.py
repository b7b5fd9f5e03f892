"""An MLflow store or server: how to reach it, and which runs in it belong to a run directory."""

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipelines.errors import UserError
from pipelines.run.directory import replica_name, run_id
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage, short_name

EXPERIMENT = "googlenet-ensemble"
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": "Each run is an ensemble; the plus sign in front of its name opens its replicas.",
}
# Without this MLflow opens its pages about language models.
TRAINING_PAGES = "workflowType=machine_learning"
ID_TAG = "googlenet_run_id"
ROLE_TAG = "googlenet_role"
DIRECTORY_TAG = "run_directory"
PARENT = "ensemble"
SQLITE = "sqlite:///"
LOCK_SECONDS = 60.0
ENDED = ("FINISHED", "FAILED", "KILLED")
# A server that is away answers for none of these long; who asks tries again by himself. No request is sent twice by
# the client, which could not know whether the first one had arrived.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def tracking_uri_for(run: Storage, named: str = "") -> str:
    """``named``, or what MLFLOW_TRACKING_URI says, else an SQLite store beside the run directory.

    Its neighbours share that one. Where the run directory is in an object store, it is below the home folder.

    Raises:
        UserError: the URI holds a password.
    """
    if named := named or os.environ.get("MLFLOW_TRACKING_URI", ""):
        return checked(named)
    folder = Path(run.root).parent if run.is_local else Path.home() / ".googlenet-ensemble"
    return f"{SQLITE}{folder / 'mlflow.db'}"


def tracking_uri_of_runs(named: str = "") -> str:
    """``named``, or what MLFLOW_TRACKING_URI says, else the store beside the run directories in ``runs``.

    Raises:
        UserError: the URI holds a password.
    """
    return tracking_uri_for(Storage.at("runs/any"), named)


def checked(tracking_uri: str) -> str:
    """The URI, its path made absolute: MLflow would look for a relative one in whatever folder a process is in.

    Raises:
        UserError: it holds a password, which would be written into logs.
    """
    if urlsplit(tracking_uri).password:
        raise UserError(
            f"the MLflow URI for {urlsplit(tracking_uri).hostname} holds a password; leave it out, and set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    if tracking_uri.startswith(SQLITE):
        return f"{SQLITE}{Path(tracking_uri.removeprefix(SQLITE)).resolve()}"
    return tracking_uri


def how_to_open(tracking_uri: str, page: str = "") -> str:
    """What to type, or where to look, to review a run; ``page`` is its own, see :attr:`MlflowRuns.page`."""
    if tracking_uri.startswith(("http://", "https://")):
        return f"MLflow: {tracking_uri.rstrip('/')}/{page}"
    return f"MLflow: python pipelines/review.py --tracking-uri {tracking_uri}"


def page_of_experiment(tracking_uri: str) -> str:
    """Where MLflow shows the runs, below its address."""
    found = connect(tracking_uri).get_experiment_by_name(EXPERIMENT)
    return f"#/experiments/{found.experiment_id}/runs?{TRAINING_PAGES}" if found else ""


def directories_at_work(tracking_uri: str) -> list[str]:
    """The run directories whose runs MLflow believes at work."""
    client = connect(tracking_uri)
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        return []
    at_work = f"tags.{ROLE_TAG} = '{PARENT}' and attributes.status = 'RUNNING'"
    return [run.data.tags[DIRECTORY_TAG] for run in client.search_runs([found.experiment_id], at_work)]


def connect(tracking_uri: str) -> Any:
    """An ``MlflowClient``; the database is created, or brought up to date, by one process at a time."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    with _creation_lock(tracking_uri):
        client = MlflowClient(tracking_uri)
        client.search_experiments(max_results=1)
    return client


def _creation_lock(tracking_uri: str) -> AbstractContextManager[Any]:
    # Of seven processes that find no database and create one, each spoils it for the others.
    if not tracking_uri.startswith(SQLITE):
        return nullcontext()
    from filelock import FileLock

    database = Path(tracking_uri.removeprefix(SQLITE))
    database.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{database}.lock", timeout=LOCK_SECONDS)


class MlflowRuns:
    """The parent run and the replicas' child runs of one run directory, created where they are missing.

    Attributes:
        tracking_uri: the store or server.
        client: an ``MlflowClient``.
        experiment: the id of the experiment.
    """

    def __init__(self, tracking_uri: str, run: Storage, recipe: Recipe) -> None:
        self.tracking_uri, self._run, self._recipe = tracking_uri, run, recipe
        self.client = connect(tracking_uri)
        self.experiment = self._experiment()
        self._tags: dict[str, dict[str, str]] = {}
        self._statuses: dict[str, str] = {}

    @cached_property
    def ids(self) -> dict[str, str]:
        """MLflow's ids by :data:`PARENT` and the replicas' names."""
        # Asked of the store, so that a driver that was killed while it created them leaves none twice.
        mine = self.client.search_runs([self.experiment], f"tags.{ID_TAG} = '{run_id(self._run)}'", max_results=1000)
        ids = {found.data.tags[ROLE_TAG]: found.info.run_id for found in mine}
        if PARENT not in ids:
            ids[PARENT] = self._create(PARENT, {})
        for replica in range(self._recipe.replicas):
            name = replica_name(replica)
            if name not in ids:
                ids[name] = self._create(name, {"mlflow.parentRunId": ids[PARENT]})
            self.log_params(ids[name], self._of_replica(replica))
        # The label may change from one start to the next; a parameter may not.
        recipe = {name: value for name, value in self._recipe.to_dict().items() if name != "name"}
        self.log_params(ids[PARENT], recipe)
        return ids

    @property
    def parent(self) -> str:
        """The id of the parent run."""
        return self.ids[PARENT]

    @property
    def page(self) -> str:
        """Where MLflow shows the parent run, below its address."""
        return f"#/experiments/{self.experiment}/runs/{self.parent}?{TRAINING_PAGES}"

    def child(self, replica: int) -> str:
        """The id of a replica's run."""
        return self.ids[replica_name(replica)]

    def log_params(self, mlflow_run: str, values: dict[str, Any]) -> None:
        """Log parameters; again with the same value is accepted and changes nothing."""
        from mlflow.entities import Param

        self.client.log_batch(mlflow_run, params=[Param(name, str(value)) for name, value in values.items()])

    def set_tags(self, mlflow_run: str, values: dict[str, str]) -> None:
        """Set those tags that are not what they should be."""
        from mlflow.entities import RunTag

        if mlflow_run not in self._tags:
            self._tags[mlflow_run] = dict(self.client.get_run(mlflow_run).data.tags)
        known = self._tags[mlflow_run]
        if news := {name: value for name, value in values.items() if known.get(name) != value}:
            self.client.log_batch(mlflow_run, tags=[RunTag(name, value) for name, value in news.items()])
            known.update(news)

    def delete_tag(self, mlflow_run: str, name: str) -> None:
        """Take a tag away, if it is there."""
        self.set_tags(mlflow_run, {})  # makes sure that the tags are known
        if self._tags[mlflow_run].pop(name, None) is not None:
            self.client.delete_tag(mlflow_run, name)

    def set_status(self, mlflow_run: str, status: str) -> None:
        """Say what a run does; it ends when it says so for the first time."""
        if mlflow_run not in self._statuses:
            self._statuses[mlflow_run] = self.client.get_run(mlflow_run).info.status
        if self._statuses[mlflow_run] == status:
            return
        if status in ENDED:
            self.client.set_terminated(mlflow_run, status)
        else:
            self.client.update_run(mlflow_run, status=status)
        self._statuses[mlflow_run] = status

    def _of_replica(self, replica: int) -> dict[str, Any]:
        return {
            "replica": replica,
            "sampling_seed": self._recipe.replica_sampling_seed(replica),
            "weights_seed": self._recipe.replica_weights_seed(replica),
            "width": self._recipe.replica_width(replica),
        }

    def _create(self, role: str, tags: dict[str, str]) -> str:
        own = {
            ID_TAG: run_id(self._run),
            ROLE_TAG: role,
            DIRECTORY_TAG: self._run.root,
            "recipe": self._recipe.name,
            "mlflow.source.name": "pipelines/train_ensemble.py",
            "mlflow.source.type": "JOB",
        }
        # A store shows the runs of many directories side by side.
        name = short_name(self._run.root) if role == PARENT else role
        return str(self.client.create_run(self.experiment, run_name=name, tags={**own, **tags}).info.run_id)

    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found is None:
            try:
                return str(self.client.create_experiment(EXPERIMENT, self._artifacts(), EXPERIMENT_TAGS))
            except MlflowException:  # another job was faster
                found = self.client.get_experiment_by_name(EXPERIMENT)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _artifacts(self) -> str | None:
        """Beside the database: MLflow's own choice would be a folder relative to whatever this process is in."""
        if not self.tracking_uri.startswith(SQLITE):
            return None
        return (Path(self.tracking_uri.removeprefix(SQLITE)).parent / "mlartifacts").as_uri()
