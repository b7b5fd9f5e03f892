"""Access to an MLflow store or server, and to the runs in it that belong to a run directory."""

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
# A call to an unreachable server must fail soon; callers retry. The client itself sends no request twice, since it
# cannot know whether the first one arrived.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def tracking_uri_for(run: Storage, named: str = "") -> str:
    """Return ``named``, or MLFLOW_TRACKING_URI, else an SQLite store beside the run directory.

    Run directories in the same folder share that store. For one in an object store, it is in the home folder.

    Raises:
        UserError: the URI contains a password.
    """
    if named := named or os.environ.get("MLFLOW_TRACKING_URI", ""):
        return checked(named)
    folder = Path(run.root).parent if run.is_local else Path.home() / ".googlenet-ensemble"
    return f"{SQLITE}{folder / 'mlflow.db'}"


def tracking_uri_of_runs(named: str = "") -> str:
    """Return ``named``, or MLFLOW_TRACKING_URI, else the store beside the run directories in ``runs``.

    Raises:
        UserError: the URI contains a password.
    """
    return tracking_uri_for(Storage.at("runs/any"), named)


def checked(tracking_uri: str) -> str:
    """Return the URI with an absolute path: MLflow resolves a relative one in each process's current folder.

    Raises:
        UserError: the URI contains a password, which would be written into logs.
    """
    if urlsplit(tracking_uri).password:
        raise UserError(
            f"the MLflow URI for {urlsplit(tracking_uri).hostname} contains a password; remove it, and set "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    if tracking_uri.startswith(SQLITE):
        return f"{SQLITE}{Path(tracking_uri.removeprefix(SQLITE)).resolve()}"
    return tracking_uri


def how_to_open(tracking_uri: str, page: str = "") -> str:
    """Return the address or the command that shows a run; for ``page`` see :attr:`MlflowRuns.page`."""
    if tracking_uri.startswith(("http://", "https://")):
        return f"MLflow: {tracking_uri.rstrip('/')}/{page}"
    return f"MLflow: python pipelines/review.py --tracking-uri {tracking_uri}"


def page_of_experiment(tracking_uri: str) -> str:
    """Return the path of the page of all runs, relative to MLflow's address."""
    experiment = connect(tracking_uri).get_experiment_by_name(EXPERIMENT)
    return f"#/experiments/{experiment.experiment_id}/runs?{TRAINING_PAGES}" if experiment else ""


def directories_at_work(tracking_uri: str) -> list[str]:
    """Return the run directories whose runs have the status RUNNING in MLflow."""
    client = connect(tracking_uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return []
    at_work = f"tags.{ROLE_TAG} = '{PARENT}' and attributes.status = 'RUNNING'"
    return [run.data.tags[DIRECTORY_TAG] for run in client.search_runs([experiment.experiment_id], at_work)]


def connect(tracking_uri: str) -> Any:
    """Return an ``MlflowClient``; only one process at a time creates or upgrades the database."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    with _creation_lock(tracking_uri):
        client = MlflowClient(tracking_uri)
        client.search_experiments(max_results=1)
    return client


def _creation_lock(tracking_uri: str) -> AbstractContextManager[Any]:
    # Processes that create the same database at the same time break it for each other.
    if not tracking_uri.startswith(SQLITE):
        return nullcontext()
    from filelock import FileLock

    database = Path(tracking_uri.removeprefix(SQLITE))
    database.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{database}.lock", timeout=LOCK_SECONDS)


class MlflowRuns:
    """The parent run and the replicas' child runs of one run directory; missing ones are created.

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
        """MLflow's run ids by :data:`PARENT` and the replicas' names."""
        # The store is asked, so that runs created by a killed driver are not created again.
        mine = self.client.search_runs([self.experiment], f"tags.{ID_TAG} = '{run_id(self._run)}'", max_results=1000)
        ids = {known.data.tags[ROLE_TAG]: known.info.run_id for known in mine}
        if PARENT not in ids:
            ids[PARENT] = self._create(PARENT, {})
        for replica in range(self._recipe.replicas):
            name = replica_name(replica)
            if name not in ids:
                ids[name] = self._create(name, {"mlflow.parentRunId": ids[PARENT]})
            self.log_params(ids[name], self._of_replica(replica))
        # The recipe's name may change between jobs; a parameter may not.
        recipe = {name: value for name, value in self._recipe.to_dict().items() if name != "name"}
        self.log_params(ids[PARENT], recipe)
        return ids

    @property
    def parent(self) -> str:
        """The id of the parent run."""
        return self.ids[PARENT]

    @property
    def page(self) -> str:
        """Path of the parent run's page, relative to MLflow's address."""
        return f"#/experiments/{self.experiment}/runs/{self.parent}?{TRAINING_PAGES}"

    def child(self, replica: int) -> str:
        """Return the id of a replica's run."""
        return self.ids[replica_name(replica)]

    def log_params(self, mlflow_run: str, values: dict[str, Any]) -> None:
        """Log parameters; logging the same value again changes nothing."""
        from mlflow.entities import Param

        self.client.log_batch(mlflow_run, params=[Param(name, str(value)) for name, value in values.items()])

    def set_tags(self, mlflow_run: str, values: dict[str, str]) -> None:
        """Set those tags whose value differs."""
        from mlflow.entities import RunTag

        if mlflow_run not in self._tags:
            self._tags[mlflow_run] = dict(self.client.get_run(mlflow_run).data.tags)
        known = self._tags[mlflow_run]
        if news := {name: value for name, value in values.items() if known.get(name) != value}:
            self.client.log_batch(mlflow_run, tags=[RunTag(name, value) for name, value in news.items()])
            known.update(news)

    def delete_tag(self, mlflow_run: str, name: str) -> None:
        """Delete a tag, if it exists."""
        self.set_tags(mlflow_run, {})  # loads the known tags
        if self._tags[mlflow_run].pop(name, None) is not None:
            self.client.delete_tag(mlflow_run, name)

    def set_status(self, mlflow_run: str, status: str) -> None:
        """Set the status of a run; the first final status ends it."""
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

        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            try:
                return str(self.client.create_experiment(EXPERIMENT, self._artifacts(), EXPERIMENT_TAGS))
            except MlflowException:  # another job was faster
                experiment = self.client.get_experiment_by_name(EXPERIMENT)
                if experiment is None:
                    raise
        if experiment.lifecycle_stage == "deleted":
            self.client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)

    def _artifacts(self) -> str | None:
        """Return a folder beside the database: MLflow's default is relative to the process's current folder."""
        if not self.tracking_uri.startswith(SQLITE):
            return None
        return (Path(self.tracking_uri.removeprefix(SQLITE)).parent / "mlartifacts").as_uri()
