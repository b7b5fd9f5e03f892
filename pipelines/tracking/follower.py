"""MLflow follows the run directory: one parent run, one child run for each replica.

Only the driver speaks to MLflow, and only of what lies in the run directory. A server that is away, slow, full, or
that refuses delays this and nothing else; what has arrived is not sent twice.
"""

import threading
from dataclasses import dataclass
from typing import Any

from pipelines.errors import UserError
from pipelines.run.dataset import Manifest
from pipelines.run.directory import SYSTEM, finished_replicas
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage

FOLLOW_SECONDS = 5.0
CLOSE_SECONDS = 60.0
# A job that is stopped is killed after three seconds.
INTERRUPTED_SECONDS = 1.5
STATUSES = {"waiting": "SCHEDULED", "done": "FINISHED", "failed": "FAILED"}


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
        self._warned: set[str] = set()
        self._has_all = False
        self._connection: _Connection | None = None
        self._thread = threading.Thread(target=self._follow, name="mlflow", daemon=True)

    def __enter__(self) -> "Tracker":
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
        """Whether MLflow has everything, the end of the run included; to be asked after the block."""
        return self._has_all

    @property
    def page(self) -> str:
        """Where MLflow shows the run, below its address; empty before MLflow has answered."""
        return self._connection.page if self._connection else ""

    def _follow(self) -> None:
        while not self._stop.wait(FOLLOW_SECONDS):
            self._try_to_send()
        self._try_to_send()

    def _try_to_send(self) -> None:
        try:
            # Kept while all goes well: after a failure the store is asked again how far it got.
            connection, self._connection = self._connection or self._connect(), None
            final = self._final
            connection.send(dict(self._phases), final)
            self._connection, self._has_all = connection, final is not None
        except Exception as error:  # noqa: BLE001  # no failure of MLflow may reach the training
            self._warn(reason_of(error))

    def _connect(self) -> "_Connection":
        return _Connection(self.run, self.recipe, self.manifest, self.tracking_uri)

    def _warn(self, reason: str) -> None:
        """Say each kind of trouble once."""
        kind = reason.partition(":")[0]
        if kind not in self._warned:
            self._warned.add(kind)
            print(f"warning: MLflow at {self.tracking_uri}: {reason}; will try again", flush=True)


class _Connection:
    """A store that answered, and how far it got."""

    def __init__(self, run: Storage, recipe: Recipe, manifest: Manifest, tracking_uri: str) -> None:
        from pipelines.tracking.curves import Curves
        from pipelines.tracking.result import send_dataset
        from pipelines.tracking.store import MlflowRuns

        self._run, self._recipe = run, recipe
        self._runs = MlflowRuns(tracking_uri, run, recipe)
        self._curves = Curves(self._runs, run)
        send_dataset(self._runs, manifest)
        self._told_circumstances = False
        # Replicas of which nothing more will come before the end of the job.
        self._settled: set[int] = set()

    @property
    def page(self) -> str:
        return self._runs.page

    def send(self, phases: dict[int, str], final: str | None) -> None:
        """Send all that is new; ``final`` is the parent's last status, once the run has ended."""
        from pipelines.tracking.result import send_child_note, send_circumstances, send_result

        if final or not self._told_circumstances:
            send_circumstances(self._runs, self._run)
            self._told_circumstances = True
        for replica in range(self._recipe.replicas):
            if replica in self._settled and not final:
                continue
            self._curves.send_replica(replica)
            phase = phases.get(replica, "waiting")
            has_ended = phase in ("done", "failed")
            if final or has_ended:
                send_child_note(self._runs, self._run, self._recipe, replica, phase == "failed")
            self._runs.set_status(self._runs.child(replica), _status(phase, final))
            if has_ended:
                self._settled.add(replica)
        self._curves.send_system(self._runs.parent, SYSTEM)
        if final == "FINISHED":
            send_result(self._runs, self._run, self._recipe)
        self._runs.set_status(self._runs.parent, final or "RUNNING")


def send_once(
    run: Storage, recipe: Recipe, manifest: Manifest, tracking_uri: str, phases: dict[int, str], final: str
) -> str:
    """Send all that ``run`` holds; where MLflow shows it. Whatever MLflow raises goes on to the caller."""
    connection = _Connection(run, recipe, manifest, tracking_uri)
    connection.send(phases, final)
    return connection.page


def _status(phase: str, final: str | None) -> str:
    if final and phase not in ("done", "failed"):
        return "KILLED"  # nobody is at work on it any more, or will be without being asked again
    return STATUSES.get(phase, "RUNNING")


def reason_of(error: Exception) -> str:
    """One line on what MLflow, or the way to it, answered."""
    if isinstance(error, UserError):
        return str(error)
    code: Any = getattr(error, "get_http_status_code", lambda: None)()
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if code in (401, 403):
        return f"it refuses the credentials ({first_line}); set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    return f"it cannot be used: {first_line}"
