"""Runs in an MLflow store: what is logged to them, each value once, and the runs of a run directory."""

import ast
import hashlib
import json
import time
from functools import cached_property
from typing import Any

from pipelines.run.directory import replica_name, run_id
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage, short_name
from pipelines.tracking.moved import artifacts_beside
from pipelines.tracking.store import (
    DIRECTORY_TAG,
    EXPERIMENT,
    ID_TAG,
    PARENT,
    ROLE_TAG,
    VIEW_TAG,
    connect,
    database_of,
    page_of_run,
)

NOTE, NOTE_DIGEST_TAG = "mlflow.note.content", "googlenet_note_digest"
DIGEST_CHARACTERS = 16
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    NOTE: "Each run is an ensemble, or its evaluation on other images; the plus sign in front of its name opens its "
    "replicas.",
}
PARENT_TAG = "mlflow.parentRunId"
SOURCE = {"mlflow.source.name": "pipelines/train_ensemble.py", "mlflow.source.type": "JOB"}
ENDED = ("FINISHED", "FAILED", "KILLED")


def digest_of_note(note: str) -> str:
    """Return the digest by which a note is known again."""
    return hashlib.sha256(note.encode()).hexdigest()[:DIGEST_CHARACTERS]


# Of a new run: what is in its note before this program has written one is a user's.
WITHOUT_NOTE = {NOTE_DIGEST_TAG: digest_of_note("")}


class Experiment:
    """The experiment of a store, created if missing, and access to its runs.

    Attributes:
        tracking_uri: the store or server.
        client: an ``MlflowClient``.
        experiment: the id of the experiment.
    """

    def __init__(self, tracking_uri: str) -> None:
        self.tracking_uri = tracking_uri
        self.client = connect(tracking_uri)
        self.experiment = self._experiment()
        self._tags: dict[str, dict[str, str]] = {}
        self._statuses: dict[str, str] = {}

    def log_params(self, mlflow_run: str, values: dict[str, Any]) -> None:
        """Log the parameters that are new; MLflow refuses to change one, also from ``1`` to ``1.0``."""
        from mlflow.entities import Param

        logged = self.client.get_run(mlflow_run).data.params
        news = [Param(name, str(value)) for name, value in values.items() if not _is_same(logged.get(name), str(value))]
        if news:
            self.client.log_batch(mlflow_run, params=news)

    def log_latest(self, mlflow_run: str, metrics: dict[str, float]) -> None:
        """Log those metrics whose logged value differs."""
        from mlflow.entities import Metric

        logged, now = self.client.get_run(mlflow_run).data.metrics, int(time.time() * 1000)
        news = [Metric(name, value, now, 0) for name, value in metrics.items() if logged.get(name) != value]
        if news:
            self.client.log_batch(mlflow_run, news)

    def set_tags(self, mlflow_run: str, values: dict[str, str]) -> None:
        """Set those tags whose value differs."""
        from mlflow.entities import RunTag

        if mlflow_run not in self._tags:
            self._tags[mlflow_run] = dict(self.client.get_run(mlflow_run).data.tags)
        known = self._tags[mlflow_run]
        if news := {name: value for name, value in values.items() if known.get(name) != value}:
            self.client.log_batch(mlflow_run, tags=[RunTag(name, value) for name, value in news.items()])
            known.update(news)

    def set_note(self, mlflow_run: str, note: str) -> None:
        """Set the note on a run, unless a user has changed it since this program wrote it."""
        self._tags.pop(mlflow_run, None)  # users write while a job runs
        self.set_tags(mlflow_run, {})
        known = self._tags[mlflow_run]
        if is_ours(known.get(NOTE, ""), known.get(NOTE_DIGEST_TAG)):
            self.set_tags(mlflow_run, {NOTE: note, NOTE_DIGEST_TAG: digest_of_note(note)})

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

    def show_columns(self, columns: list[str]) -> None:
        """Add columns to MLflow's page of all runs, such as ``metrics.`top1_error/7x144```."""
        tags = self.client.get_experiment(self.experiment).tags
        shown = json.loads(tags[VIEW_TAG])["selectedColumns"] if VIEW_TAG in tags else []
        if set(columns) - set(shown):
            view = {"selectedColumns": list(dict.fromkeys([*columns, *shown]))}
            self.client.set_experiment_tag(self.experiment, VIEW_TAG, json.dumps(view))

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
        database = database_of(self.tracking_uri)
        if database is None:
            return None
        folder = artifacts_beside(database)
        folder.mkdir(exist_ok=True)  # by which a store that is moved before it has artifacts is known
        return folder.as_uri()


class MlflowRuns(Experiment):
    """The parent run and the replicas' child runs of one run directory; missing ones are created.

    Attributes:
        run: the run directory.
    """

    def __init__(self, tracking_uri: str, run: Storage, recipe: Recipe) -> None:
        super().__init__(tracking_uri)
        self.run, self._recipe = run, recipe

    @cached_property
    def ids(self) -> dict[str, str]:
        """MLflow's run ids by :data:`PARENT` and the replicas' names."""
        # The store is asked, so that runs created by a killed driver are not created again.
        mine = self._in_store()
        ids = {known.data.tags[ROLE_TAG]: known.info.run_id for known in mine}
        for known in mine:
            if known.data.tags.get(DIRECTORY_TAG) != self.run.root:  # it was moved or copied
                self.set_tags(known.info.run_id, {DIRECTORY_TAG: self.run.root})
        if PARENT not in ids:
            ids[PARENT] = self._create(PARENT, {})
        for replica in range(self._recipe.replicas):
            name, parent = replica_name(replica), {PARENT_TAG: ids[PARENT]}
            if name in ids:
                self.set_tags(ids[name], parent)  # a user may have deleted the parent, and not its replicas
            else:
                ids[name] = self._create(name, parent)
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
        return page_of_run(self.experiment, self.parent)

    def child(self, replica: int) -> str:
        """Return the id of a replica's run."""
        return self.ids[replica_name(replica)]

    def are_there(self) -> bool:
        """Return whether the store, asked again, still has all of these runs."""
        return {known.info.run_id for known in self._in_store()} >= set(self.ids.values())

    def _in_store(self) -> Any:
        return self.client.search_runs([self.experiment], f"tags.{ID_TAG} = '{run_id(self.run)}'", max_results=1000)

    def _of_replica(self, replica: int) -> dict[str, Any]:
        return {
            "sampling_seed": self._recipe.replica_sampling_seed(replica),
            "weights_seed": self._recipe.replica_weights_seed(replica),
            "width": self._recipe.replica_width(replica),
        }

    def _create(self, role: str, tags: dict[str, str]) -> str:
        own = {
            ID_TAG: run_id(self.run),
            ROLE_TAG: role,
            DIRECTORY_TAG: self.run.root,
            "recipe": self._recipe.name,
            **WITHOUT_NOTE,
            **SOURCE,
        }
        # A store shows the runs of many directories side by side.
        name = short_name(self.run.root) if role == PARENT else role
        return str(self.client.create_run(self.experiment, run_name=name, tags={**own, **tags}).info.run_id)


def is_ours(written: str, digest: str | None) -> bool:
    """Return whether a note is as this program wrote it; stores of earlier versions have no digests."""
    return not written or digest is None or digest == digest_of_note(written)


def _is_same(logged: str | None, now: str) -> bool:
    """Return whether a logged parameter has this value, in whatever spelling: earlier versions logged 1 for 1.0."""
    if logged is None or logged == now:
        return logged == now
    try:
        return bool(ast.literal_eval(logged) == ast.literal_eval(now))
    except (ValueError, SyntaxError):
        return False
