"""A thread that keeps MLflow up to date with the run directory: one parent run, one child run per replica.

Only the driver talks to MLflow, and it sends only what is in the run directory. If the server is down, slow, full or
rejects requests, the run continues, and the missing data is sent once, later.
"""

import threading
from dataclasses import dataclass

from pipelines.job.command_line import LeftAtWork
from pipelines.job.console import say
from pipelines.run.dataset import Manifest
from pipelines.run.directory import SYSTEM, finished_replicas
from pipelines.run.lock import taken_over
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.tracking.commands import replay_command
from pipelines.tracking.failures import reason_of, repeatedly
from pipelines.tracking.publish import Published, PublishSettings, publish

FOLLOW_SECONDS = 5.0
# Limits of the end of a job: for all but the models, and then for the models.
CLOSE_SECONDS = 60.0
MODELS_SECONDS = 900.0
# A stopped job is killed after three seconds.
INTERRUPTED_SECONDS = 1.5
TOO_SLOW = "it is too slow"
FINISHED = "FINISHED"
STATUSES = {"waiting": "SCHEDULED", "done": FINISHED, "failed": "FAILED"}


@dataclass
class Tracker:
    """Keeps MLflow up to date with a run. Use as a context manager: within it, a thread follows the run directory.

    After the block, in which the run has ended, MLflow has everything, or the time for it was over.

    Attributes:
        run: the run directory.
        recipe: the run's recipe.
        manifest: the run's data set.
        publishing: the MLflow store or server, and the models of a run that succeeds.
        page: path of the run's page, relative to MLflow's address; empty until MLflow has answered.
        in_step: whether MLflow has everything but the models, including the end of the run.
    """

    run: Storage
    recipe: Recipe
    manifest: Manifest
    publishing: PublishSettings

    def __post_init__(self) -> None:
        self.page, self.in_step = "", False
        self._phases = dict.fromkeys(finished_replicas(self.run, self.recipe.replicas), "done")
        self._final: str | None = None
        self._with_models = True
        self._published: Published | None = None
        self._reason = TOO_SLOW
        self._warned: set[str] = set()
        self._connection: _Connection | None = None
        self._stop, self._given_up = threading.Event(), threading.Event()
        # Not waited for longer than promised: a slow server must not hold a cluster for hours.
        self._thread = LeftAtWork(target=self._follow, name="mlflow", daemon=True)

    def __enter__(self) -> "Tracker":
        self._thread.start()
        return self

    def __exit__(self, exception_type: object, *_: object) -> None:
        interrupted = isinstance(exception_type, type) and issubclass(exception_type, KeyboardInterrupt)
        if exception_type is not None or self._final is None:
            self._final = "KILLED" if interrupted else "FAILED"
        self._stop.set()
        try:
            if not interrupted:
                say(f"sending the results to MLflow at {self.publishing.tracking_uri} ...")
            self._thread.join(INTERRUPTED_SECONDS if interrupted else CLOSE_SECONDS)
            if self.in_step and not interrupted:
                self._thread.join(MODELS_SECONDS)
        finally:
            self._given_up.set()

    def update(self, phases: dict[int, str]) -> None:
        """Set the phase of each replica, as the scheduler sees it."""
        self._phases = dict(phases)

    def finish(self, succeeded: bool, *, with_models: bool = True) -> None:
        """Set whether the run succeeded, and whether its models are logged then."""
        self._final, self._with_models = FINISHED if succeeded else "FAILED", with_models

    def send_all(self, phases: dict[int, str], final: str) -> None:
        """Send everything in the run directory from this thread, however long it takes; ``final`` is how it ended.

        Raises:
            Exception: MLflow's or of the connection, if the last attempt failed.
        """
        self._phases, self._final = phases, final
        repeatedly(self._send_end, self._tell)

    @property
    def model(self) -> str:
        """URI of the registered version; empty if there is none."""
        return self._published.model if self._published else ""

    @property
    def outcome(self) -> str:
        """What MLflow lacks and why, or what became of the models, in one line; empty if there is nothing to say."""
        store = f"MLflow at {self.publishing.tracking_uri}"
        if not self.in_step:
            return f"warning: {store} lacks data ({self._reason}); run the same command again to send it"
        if not self._has_models:
            return ""
        if self._published is None:
            again = replay_command(self.run, self.publishing.tracking_uri)
            return f"warning: {store} lacks data of the models ({self._reason}); to send it: {again}"
        return self._published.line

    @property
    def is_finished(self) -> bool:
        """Whether the run has ended, and succeeded."""
        return self._final == FINISHED

    @property
    def _has_models(self) -> bool:
        return self.is_finished and self._with_models

    def _follow(self) -> None:
        while not self._stop.wait(FOLLOW_SECONDS):
            try:
                self._send(None)
            except Exception as error:  # noqa: BLE001  # no failure of MLflow may reach the training
                self._tell(reason_of(error))
        try:
            repeatedly(self._send_end, self._tell, self._given_up.wait)
        except Exception as error:  # noqa: BLE001
            self._reason = reason_of(error)

    def _send_end(self) -> None:
        if taken_over.is_set():  # another job works on the run, and tells MLflow about it
            return
        if not self.in_step:
            self._send(self._final)
            self.in_step = True
        # A job that has given MLflow up ends now, and begins no models.
        if self._has_models and not self._given_up.is_set() and self._connection:
            if self.publishing.models != "none":
                say("logging the models in MLflow ...")
            self._published = publish(self._connection.runs, self.recipe, self.manifest, self.publishing)

    def _send(self, final: str | None) -> None:
        """Send what is new; ``final`` is the run's final status, once it has ended."""
        # Dropped by a failure: the next connection asks the store again how far it got.
        connection, self._connection = self._connection, None
        # A user may have deleted runs since something new was last sent; a new connection makes them again.
        if connection is None or (final and not connection.runs.are_there()):
            connection = _Connection(self.run, self.recipe, self.manifest, self.publishing.tracking_uri)
        connection.send(dict(self._phases), final)
        self._connection, self.page, self._reason = connection, connection.page, TOO_SLOW

    def _tell(self, reason: str) -> None:
        """Keep why MLflow lacks data, since the time may be over before the next attempt is; print each kind once."""
        self._reason = reason
        kind = reason.partition(":")[0]
        if kind not in self._warned:
            self._warned.add(kind)
            say(f"warning: MLflow at {self.publishing.tracking_uri}: {reason}; will try again")


class _Connection:
    """A store that answered, and what it has been sent."""

    def __init__(self, run: Storage, recipe: Recipe, manifest: Manifest, tracking_uri: str) -> None:
        from pipelines.tracking.curves import Curves
        from pipelines.tracking.dataset import send_dataset
        from pipelines.tracking.runs import MlflowRuns
        from pipelines.tracking.sheets import Sheets

        self._run, self._recipe, self._manifest = run, recipe, manifest
        self.runs = MlflowRuns(tracking_uri, run, recipe)
        self._curves = Curves(self.runs, run)
        self._sheets = Sheets(self.runs, run, manifest)
        send_dataset(self.runs, self.runs.parent, manifest)
        self._told_circumstances = False
        # Replicas with nothing more to send before the end of the job.
        self._settled: set[int] = set()

    @property
    def page(self) -> str:
        return self.runs.page

    def send(self, phases: dict[int, str], final: str | None) -> None:
        """Send everything new; ``final`` is the parent's final status, once the run has ended."""
        from pipelines.tracking.result import send_child_note, send_circumstances, send_result, send_stage_seconds

        if final or not self._told_circumstances:
            send_circumstances(self.runs, self._run)
            self._told_circumstances = True
        for replica in range(self._recipe.replicas):
            if replica in self._settled and not final:
                continue
            self._curves.send_replica(replica)
            phase = phases.get(replica, "waiting")
            has_ended = phase in ("done", "failed")
            if final or has_ended:
                send_child_note(self.runs, self._run, self._recipe, replica, phase == "failed")
            self.runs.set_status(self.runs.child(replica), _status(phase, final))
            self._sheets.send_replica(replica)
            if has_ended:
                self._settled.add(replica)
        if final == FINISHED:
            send_result(self.runs, self._run, self._recipe, self._manifest)
        if final:
            # MLflow's page that compares runs opens with the metric they had first, so this follows the result.
            send_stage_seconds(self.runs, self._run)
            self._curves.send_system(self.runs.parent, SYSTEM)
        self.runs.set_status(self.runs.parent, final or "RUNNING")


def _status(phase: str, final: str | None) -> str:
    if final and phase not in ("done", "failed"):
        return "KILLED"  # no job works on it, and none will unless the command is run again
    return STATUSES.get(phase, "RUNNING")
