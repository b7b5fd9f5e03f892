"""A thread that keeps MLflow up to date with the run directory: one parent run, one child run per replica.

Only the driver talks to MLflow, and it sends only what is in the run directory. If the server is down, slow, full or
rejects requests, the run continues, and the missing data is sent once, later.
"""

import re
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
# A stopped job is killed after three seconds.
INTERRUPTED_SECONDS = 1.5
# How SQLAlchemy begins the message of a database.
DRIVER_ERROR = re.compile(r"^\(\w+\.\w+\) ")
# How Python names the reason of a failed connection, such as "[Errno 111] Connection refused".
SYSTEM_ERROR = re.compile(r"\[Errno -?\d+\] ([^'\")(]+)")
# What the client says about an address that the server does not have; a run or a model that is not there is told
# in other words.
UNKNOWN_ENDPOINT = re.compile(r"endpoint (\S+) failed with error code 404")
STATUSES = {"waiting": "SCHEDULED", "done": "FINISHED", "failed": "FAILED"}


@dataclass
class Tracker:
    """Keeps MLflow up to date with a run. Use as a context manager: within it, a thread follows the run directory.

    Attributes:
        run: the run directory.
        recipe: the run's recipe.
        manifest: the run's data set.
        tracking_uri: the MLflow store or server.
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
        """Set the phase of each replica, as the scheduler sees it."""
        self._phases = dict(phases)

    def finish(self, succeeded: bool) -> None:
        """Set whether the run succeeded."""
        self._final = "FINISHED" if succeeded else "FAILED"

    @property
    def in_step(self) -> bool:
        """Whether MLflow has everything, including the end of the run; valid after the block."""
        return self._has_all

    @property
    def page(self) -> str:
        """Path of the run's page, relative to MLflow's address; empty until MLflow has answered."""
        return self._connection.page if self._connection else ""

    def _follow(self) -> None:
        while not self._stop.wait(FOLLOW_SECONDS):
            self._try_to_send()
        self._try_to_send()

    def _try_to_send(self) -> None:
        try:
            # Dropped by a failure: the next connection asks the store again how far it got.
            connection, self._connection = self._connection or self._connect(), None
            final = self._final
            connection.send(dict(self._phases), final)
            self._connection, self._has_all = connection, final is not None
        except Exception as error:  # noqa: BLE001  # no failure of MLflow may reach the training
            self._warn(reason_of(error))

    def _connect(self) -> "_Connection":
        return _Connection(self.run, self.recipe, self.manifest, self.tracking_uri)

    def _warn(self, reason: str) -> None:
        """Print a warning, once for each kind of failure."""
        kind = reason.partition(":")[0]
        if kind not in self._warned:
            self._warned.add(kind)
            print(f"warning: MLflow at {self.tracking_uri}: {reason}; will try again", flush=True)


class _Connection:
    """A store that answered, and what it has been sent."""

    def __init__(self, run: Storage, recipe: Recipe, manifest: Manifest, tracking_uri: str) -> None:
        from pipelines.tracking.curves import Curves
        from pipelines.tracking.dataset import send_dataset
        from pipelines.tracking.runs import MlflowRuns
        from pipelines.tracking.sheets import Sheets

        self._run, self._recipe, self._manifest = run, recipe, manifest
        self._runs = MlflowRuns(tracking_uri, run, recipe)
        self._curves = Curves(self._runs, run)
        self._sheets = Sheets(self._runs, run, manifest)
        send_dataset(self._runs, self._runs.parent, manifest)
        self._told_circumstances = False
        # Replicas with nothing more to send before the end of the job.
        self._settled: set[int] = set()

    @property
    def page(self) -> str:
        return self._runs.page

    def send(self, phases: dict[int, str], final: str | None) -> None:
        """Send everything new; ``final`` is the parent's final status, once the run has ended."""
        from pipelines.tracking.result import send_child_note, send_circumstances, send_result, send_stage_seconds

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
            self._sheets.send_replica(replica)
            if has_ended:
                self._settled.add(replica)
        if final == "FINISHED":
            send_result(self._runs, self._run, self._recipe, self._manifest)
        if final:
            # MLflow's page that compares runs opens with the metric they had first, so this follows the result.
            send_stage_seconds(self._runs, self._run)
            self._curves.send_system(self._runs.parent, SYSTEM)
        self._runs.set_status(self._runs.parent, final or "RUNNING")


def send_once(
    run: Storage, recipe: Recipe, manifest: Manifest, tracking_uri: str, phases: dict[int, str], final: str
) -> str:
    """Send everything in ``run``; return the path of its page. MLflow's exceptions are passed on to the caller."""
    connection = _Connection(run, recipe, manifest, tracking_uri)
    connection.send(phases, final)
    return connection.page


def _status(phase: str, final: str | None) -> str:
    if final and phase not in ("done", "failed"):
        return "KILLED"  # no job works on it, and none will unless the command is run again
    return STATUSES.get(phase, "RUNNING")


def reason_of(error: Exception) -> str:
    """Return one line on why MLflow, or the connection to it, failed."""
    if isinstance(error, UserError):
        return str(error)
    code: Any = getattr(error, "get_http_status_code", lambda: None)()
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    first_line = DRIVER_ERROR.sub("", first_line)
    # The client's text ends with the reason, after the library's names of it.
    if "Caused by ProxyError" in first_line:
        return "the proxy in the environment does not answer; correct it, or add the host of the server to NO_PROXY"
    if "Caused by " in first_line and (system := SYSTEM_ERROR.search(first_line)):
        return f"it does not answer ({system[1].strip()})"
    if unknown := UNKNOWN_ENDPOINT.search(first_line):
        way_out = ", or choose --models none" if "logged-models" in unknown[1] else ""
        return f"it does not know {unknown[1]}: the server is too old or is not an MLflow server; update it{way_out}"
    if code in (401, 403):
        return f"it refuses the credentials ({first_line}); set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    return f"it cannot be used: {first_line}"
