"""MLflow follows the run directory: one parent run, one child run for each replica.

Only the driver speaks to MLflow, and only of what lies in the run directory. A server that is away delays this and
nothing else; what has arrived is never sent twice, since the store itself is asked how far it got.
"""

import os
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.dataset import Manifest
from pipelines.recipes import Recipe
from pipelines.report import COST_JSON, REPORT_JSON, REPORT_MARKDOWN
from pipelines.run_directory import (
    REPORT,
    ReplicaFiles,
    finished_replicas,
    read_metrics,
    read_steps,
    replica_name,
    run_id,
)
from pipelines.storage import Storage

EXPERIMENT = "googlenet-ensemble"
ID_TAG = "googlenet_run_id"
ROLE_TAG = "googlenet_role"
ALARM_TAG = "alarm"
PARENT = "ensemble"
FOLLOW_SECONDS = 5.0
STEP_METRIC = "step/learning_rate"
METRICS_PER_CALL = 1000
CLOSE_SECONDS = 60.0
# A job that is stopped is killed after three seconds.
INTERRUPTED_SECONDS = 1.5
# A server that is away answers for none of these long; the follower tries again by itself.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}
STATUSES = {"waiting": "SCHEDULED", "done": "FINISHED", "failed": "FAILED"}


def default_tracking_uri(run: Storage) -> str:
    """The SQLite store in the run directory; below the home folder where that is no local folder.

    The path is absolute: MLflow would look for a relative one in whatever folder a process is in.
    """
    folder = Path(run.root) if run.is_local else Path.home() / ".googlenet-ensemble"
    return f"sqlite:///{folder / 'mlflow.db'}"


@dataclass
class Tracker:
    """Keeps MLflow abreast of a run. Use as a context manager: a thread follows the run directory meanwhile.

    Attributes:
        run: the run directory.
        recipe: its recipe.
        manifest: its data set.
        tracking_uri: MLflow's store or server.
    """

    run: Storage
    recipe: Recipe
    manifest: Manifest
    tracking_uri: str

    def __post_init__(self) -> None:
        self._phases = dict.fromkeys(finished_replicas(self.run, self.recipe.replicas), "done")
        self._final: str | None = None
        self._stop = threading.Event()
        self._warned = False
        self._in_step = False
        self._sent: dict[int, int] = {}
        self._sent_steps: dict[int, int] = {}
        self._ids: dict[str, str] = {}
        self._thread = threading.Thread(target=self._follow, name="mlflow", daemon=True)

    def __enter__(self) -> "Tracker":
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        self._thread.start()
        return self

    def __exit__(self, exception_type: object, *_: object) -> None:
        interrupted = isinstance(exception_type, type) and issubclass(exception_type, KeyboardInterrupt)
        if exception_type is not None or self._final is None:
            self._final = "KILLED" if interrupted else "FAILED"
        self._stop.set()
        self._thread.join(INTERRUPTED_SECONDS if interrupted else CLOSE_SECONDS)

    def update(self, phases: dict[int, str]) -> None:
        """The phase of each replica, as the scheduler sees it."""
        self._phases = dict(phases)

    def finish(self, succeeded: bool) -> None:
        """How the run ended."""
        self._final = "FINISHED" if succeeded else "FAILED"

    @property
    def in_step(self) -> bool:
        """Whether MLflow has everything; to be asked after the block."""
        return self._in_step

    def _follow(self) -> None:
        while not self._stop.wait(FOLLOW_SECONDS):
            self._try_to_send()
        self._try_to_send()

    def _try_to_send(self) -> None:
        try:
            self._send()
            self._in_step = True
        except Exception as error:  # noqa: BLE001  # no failure of MLflow may reach the training
            self._in_step = False
            if not self._warned:
                self._warned = True
                first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
                print(f"warning: MLflow at {self.tracking_uri} cannot be reached, will try again: {first_line}")

    def _send(self) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric

        client = MlflowClient(self.tracking_uri)
        ids = self._run_ids(client)
        for replica in range(self.recipe.replicas):
            child = ids[replica_name(replica)]
            if replica not in self._sent:
                self._sent[replica] = max(
                    (m.step for m in client.get_metric_history(child, "learning_rate")), default=0
                )
            epochs = [line for line in read_metrics(self.run, replica) if line["epoch"] > self._sent[replica]]
            for line in epochs:
                now = _now_ms()
                numbers = {k: v for k, v in line.items() if k not in ("epoch", "step") and not isinstance(v, str)}
                client.log_batch(child, [Metric(k, v, now, line["epoch"]) for k, v in numbers.items()])
                self._set_alarm(client, child, line.get("alarm"))
                self._sent[replica] = line["epoch"]
            self._send_steps(client, child, replica)
            if self._phases.get(replica) == "failed" and self.run.exists(ReplicaFiles(replica).failure):
                reason = self.run.read(ReplicaFiles(replica).failure).decode().strip().splitlines()[-1]
                client.set_tag(child, "failure", reason)
            self._set_status(client, child, self._status(replica))
        if self._final:
            self._send_result(client, ids[PARENT])
        else:
            self._set_status(client, ids[PARENT], "RUNNING")

    def _send_steps(self, client: Any, child: str, replica: int) -> None:
        """The lines of the step log that MLflow has not got; what a resumed epoch writes again is alike."""
        from mlflow.entities import Metric

        if replica not in self._sent_steps:
            history = client.get_metric_history(child, STEP_METRIC)
            self._sent_steps[replica] = max((metric.step for metric in history), default=0)
        news = read_steps(self.run, replica, self._sent_steps[replica])
        now = _now_ms()
        metrics = [Metric(k, v, now, line["step"]) for line in news for k, v in line.items() if k != "step"]
        for first in range(0, len(metrics), METRICS_PER_CALL):
            client.log_batch(child, metrics[first : first + METRICS_PER_CALL])
        if news:
            self._sent_steps[replica] = news[-1]["step"]

    def _set_alarm(self, client: Any, child: str, alarm: str | None) -> None:
        if alarm:
            client.set_tag(child, ALARM_TAG, alarm)
        elif ALARM_TAG in client.get_run(child).data.tags:
            client.delete_tag(child, ALARM_TAG)

    def _status(self, replica: int) -> str:
        status = STATUSES.get(self._phases.get(replica, "waiting"), "RUNNING")
        return "KILLED" if self._final and status == "RUNNING" else status

    def _send_result(self, client: Any, parent: str) -> None:
        from mlflow.entities import Metric

        if self._final == "FINISHED":
            now = _now_ms()
            logged = client.get_run(parent).data.metrics
            metrics = _result_metrics(self.run.read_json(REPORT_JSON), self.run.read_json(COST_JSON))
            news = [Metric(name, value, now, 0) for name, value in metrics.items() if logged.get(name) != value]
            client.log_batch(parent, news)
            with tempfile.TemporaryDirectory() as folder:
                for name in self.run.files(REPORT):
                    (Path(folder) / name).write_bytes(self.run.read(f"{REPORT}/{name}"))
                client.log_artifacts(parent, folder, REPORT)
            client.set_tag(parent, "mlflow.note.content", self.run.read(REPORT_MARKDOWN).decode())
        self._set_status(client, parent, self._final or "RUNNING")

    def _run_ids(self, client: Any) -> dict[str, str]:
        """The MLflow ids of parent and children, by name; what is missing is created."""
        if self._ids:
            return self._ids
        experiment = self._experiment(client)
        # Asked of the store, so that a driver that was killed while it created them leaves none twice.
        mine = client.search_runs([experiment], f"tags.{ID_TAG} = '{run_id(self.run)}'", max_results=1000)
        ids = {run.data.tags[ROLE_TAG]: run.info.run_id for run in mine}
        if PARENT not in ids:
            ids[PARENT] = self._create(client, experiment, PARENT, {})
        # The label may change from one start to the next; a parameter may not.
        recipe = {name: str(value) for name, value in self.recipe.to_dict().items() if name != "name"}
        self._log_params(client, ids[PARENT], {**recipe, "dataset_digest": self.manifest.digest})
        for replica in range(self.recipe.replicas):
            name = replica_name(replica)
            if name not in ids:
                ids[name] = self._create(client, experiment, name, {"mlflow.parentRunId": ids[PARENT]})
            self._log_params(
                client,
                ids[name],
                {
                    "replica": replica,
                    "sampling_seed": self.recipe.sampling_seed + replica,
                    "weights_seed": self.recipe.replica_weights_seed(replica),
                    "width": self.recipe.replica_width(replica),
                },
            )
        self._ids = ids
        return ids

    def _create(self, client: Any, experiment: str, role: str, tags: dict[str, str]) -> str:
        own = {ID_TAG: run_id(self.run), ROLE_TAG: role, "run_directory": self.run.root, "recipe": self.recipe.name}
        # A server shows the runs of many directories side by side.
        name = self.run.root.rpartition("/")[2] if role == PARENT else role
        return str(client.create_run(experiment, run_name=name, tags={**own, **tags}).info.run_id)

    def _log_params(self, client: Any, mlflow_run: str, values: dict[str, Any]) -> None:
        from mlflow.entities import Param

        # Logging a parameter again with the same value is accepted and changes nothing.
        client.log_batch(mlflow_run, params=[Param(name, str(value)) for name, value in values.items()])

    def _experiment(self, client: Any) -> str:
        found = client.get_experiment_by_name(EXPERIMENT)
        if found:
            return str(found.experiment_id)
        # Beside the database: MLflow's own choice would be a folder relative to whatever this process is in.
        database = self.tracking_uri.removeprefix("sqlite:///")
        location = (Path(database).parent / "mlartifacts").as_uri() if database != self.tracking_uri else None
        return str(client.create_experiment(EXPERIMENT, artifact_location=location))

    def _set_status(self, client: Any, run_id: str, status: str) -> None:
        if client.get_run(run_id).info.status == status:
            return
        if status in ("FINISHED", "FAILED", "KILLED"):
            client.set_terminated(run_id, status)
        else:
            client.update_run(run_id, status=status)


def _result_metrics(report: dict[str, Any], cost: dict[str, Any]) -> dict[str, float]:
    """The report's figures by stable names, such as ``top5_error/7x144``."""
    metrics = {}
    for row in report["table"]:
        for name in ("top1_error", "top5_error"):
            metrics[f"{name}/{_cell_name(row)}"] = row[name]
    for row in report["calibration"]:
        for name in ("negative_log_likelihood", "brier_score", "expected_calibration_error"):
            metrics[f"{name}/{_cell_name(row)}"] = row[name]
    metrics["evaluation/predictor_seconds"] = cost["predictor_seconds"]
    return metrics


def _cell_name(row: dict[str, Any]) -> str:
    # MLflow allows no plus sign.
    policy = row["policy"] if row["policy"] == str(row["crops"]) else f"{row['policy'].replace('+', '_')}px"
    return f"{row['models']}x{policy}"


def how_to_open(tracking_uri: str) -> str:
    """What to type, or where to look, to review a run."""
    if tracking_uri.startswith(("http://", "https://")):
        return f"MLflow: {tracking_uri}"
    return f"MLflow: mlflow ui --backend-store-uri {tracking_uri}   (then http://127.0.0.1:5000)"


def _now_ms() -> int:
    return int(time.time() * 1000)
