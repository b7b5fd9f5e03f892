"""Connection to Ray: the cluster in RAY_ADDRESS, as in a submitted job, or a local one."""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from pipelines.errors import UserError
from pipelines.job.connection_limit import limited_to
from pipelines.job.console import say
from pipelines.job.interruption import interrupt_on_signals, is_interrupted, processes_ignore_closed_terminal
from pipelines.job.local_ray import (
    ending_of_new_processes,
    folder_for_ray,
    leave_cluster,
    start_failure,
    token_for_ray,
)
from pipelines.job.node_limits import NodeLimits, node_limits
from pipelines.job.nodes import check_that_a_node_stays
from pipelines.job.ray_address import check_address, no_answer_error
from pipelines.run.directory import LOGS, NATIVE_STDERR
from pipelines.run.storage import Storage

# Ray's word for a cluster that a command starts for itself, in RAY_ADDRESS too.
LOCAL = "local"
# By default Ray takes 30 % of a laptop's memory; shards of decoded images need far less.
LOCAL_OBJECT_STORE_BYTES, LARGEST_OBJECT_STORE_SHARE = 1 << 30, 0.3
# After the check of the address, which may take 25 seconds. A cluster that answers is joined in a few if it is idle.
CONNECTION_SECONDS = 60.0
# Ray itself gives up earlier, unless a process of its own hangs.
START_SECONDS = 180.0
# Ray's words if the cluster has another version of Python, which does not change.
OTHER_VERSION = "Version mismatch"
# Ray's words if its processes need more than the 30 seconds that it gives them.
TOO_LATE = "timed out during startup"
WHERE_TO_RUN = (
    "run the command on a node of the cluster (ray start adds a machine to it), or submit it with ray job submit"
)
QUIET = {
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # A finished replica is noticed after half a second instead of two; start and end wait for such polls.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # Workers stay in the folder they start in, so that relative paths keep their meaning.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # The scheduler watches for drained nodes itself: sooner, and without a process beside each replica.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # A trainer has four small processes; starting more of them at once is faster, and Ray does not warn about it.
    "RAY_worker_maximum_startup_concurrency": "8",
}
# Of a cluster that exists before and after the command: its dashboard lists the trainings, which takes a process on
# the head.
SHARED = {"RAY_TRAIN_ENABLE_STATE_TRACKING": "1"}
TRAIN_SETTINGS = tuple(name for name in (*QUIET, *SHARED) if name.startswith("RAY_TRAIN_"))


@contextmanager
def connected(num_cpus: int | None = None) -> Iterator[None]:
    """Connect to a cluster during the block; a cluster that was started for this command ends with it.

    Ray's own output goes to its session's log files, not to the terminal. ``num_cpus`` limits a cluster that is
    started here; the default is all CPUs that this process may use.

    Raises:
        UserError: there is no usable cluster at the address in RAY_ADDRESS.
        ClusterAwayError: the cluster of this submitted job does not answer.
        NodesMissingError: all its nodes are about to be taken away.
    """
    address = _address()
    if _is_connected():
        yield
        return
    if address:
        check_address(address)
    # Before the import of Ray, which takes seconds of its own.
    limits = node_limits()
    starting = f"connecting to the Ray cluster at {address}" if address else "starting Ray on this machine"
    limited = "" if address else limits.line()
    say(f"{starting}, {limited} ..." if limited else f"{starting} ...")
    for name, value in {**QUIET, **(SHARED if address else {})}.items():
        os.environ.setdefault(name, value)
    with processes_ignore_closed_terminal():
        try:
            if address:
                _join(address)
            else:
                _start(local_resources(limits, num_cpus))
        except SystemExit as error:  # Ray's own answer to SIGTERM until it is connected
            raise KeyboardInterrupt from error
    interrupt_on_signals()
    _quieten_ray_data()
    _quieten_ray_when_interrupted()
    try:
        if address:
            check_that_a_node_stays()
        yield
        if not address:  # an interruption ends at once, and its line is the last one
            say("stopping Ray ...")
    finally:
        leave_cluster()


def local_resources(limits: NodeLimits, num_cpus: int | None = None) -> dict[str, int]:
    """Return the arguments of ``ray.init`` for a cluster on this machine alone.

    By itself, Ray would count all CPUs of the machine under taskset, and all of it in a cgroup that is not a container.
    """
    store = min(LOCAL_OBJECT_STORE_BYTES, int(LARGEST_OBJECT_STORE_SHARE * limits.memory_bytes))
    # Without a limit, Ray takes what other programs leave of the memory.
    memory = {"_memory": limits.memory_bytes - store} if limits.memory_is_limited else {}
    # This hides all GPUs from CUDA, and one less than there are in the list from Ray.
    hidden = {"num_gpus": 0} if os.environ.get("CUDA_VISIBLE_DEVICES", "").strip().startswith("-1") else {}
    return {"num_cpus": num_cpus or limits.cpus, "object_store_memory": store, **memory, **hidden}


def is_shared() -> bool:
    """Return whether commands use the cluster in RAY_ADDRESS, which may grow, and not one that they start."""
    return bool(_address())


def _address() -> str:
    address = os.environ.get("RAY_ADDRESS", "")
    return "" if address == LOCAL else address


def _is_connected() -> bool:
    return "ray" in sys.modules and sys.modules["ray"].is_initialized()


def _start(resources: dict[str, int]) -> None:
    """Start a cluster on this machine.

    Raises:
        UserError: its processes did not start.
    """
    import ray
    from ray.exceptions import RayError

    folder = folder_for_ray()
    os.environ.update(token_for_ray())
    end_processes = ending_of_new_processes()

    def init() -> None:
        try:
            ray.init(
                address=LOCAL,
                _temp_dir=folder,
                logging_level=logging.CRITICAL,
                log_to_driver=False,
                include_dashboard=False,  # it takes processor time for the whole of a run
                **resources,
            )
        except BaseException:
            end_processes()
            raise

    late = str(start_failure(TimeoutError("no answer")))
    try:
        with limited_to(START_SECONDS, late, UserError.exit_code, end_processes):
            try:
                init()
            except Exception as error:
                if TOO_LATE not in str(error):
                    raise
                say("Ray did not start within half a minute, which happens on a busy machine: trying once more ...")
                init()
        logging.getLogger("ray").setLevel(logging.ERROR)
    except Exception as error:
        # Ray gives its processes half a minute, and has no class for most of these failures. Others name a file.
        if type(error) not in (Exception, RuntimeError) and not isinstance(error, RayError):
            raise
        raise start_failure(error) from error


def _join(address: str) -> None:
    """Connect to a running cluster."""
    import ray
    from ray.exceptions import RayError

    late = f"no connection to the Ray cluster at {address} within {CONNECTION_SECONDS:.0f} seconds: {WHERE_TO_RUN}"
    try:
        with limited_to(CONNECTION_SECONDS, late, no_answer_error().exit_code):
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, RayError) as error:
        # Another version of Python, a missing token, no node of the cluster on this machine: Ray says which, in
        # several lines, or only in the error behind this one.
        reason = " ".join(f"{error} {error.__cause__ or ''}".split())
        failure = UserError if OTHER_VERSION in reason else no_answer_error()
        raise failure(f"cannot use the Ray cluster at {address}: {reason}; {WHERE_TO_RUN}") from error


@contextmanager
def native_stderr_to_log(run: Storage | None) -> Iterator[None]:
    """Redirect the standard error of C and C++ libraries to a file in the run directory's ``logs``.

    For a run in an object store, or as long as nothing may be written to the run (None), ``logs`` is in a temporary
    folder of the user. A block within another one has a log of its own.

    Ray's core writes harmless messages there. Python's own standard error stays on the terminal.

    Raises:
        UserError: another user has made that folder, and may have put a link to a file of this one in it.
    """
    folder = (Path(run.root) if run and run.is_local else _folder_of_user()) / LOGS
    folder.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    python_stderr, terminal = sys.stderr, os.dup(2)
    try:
        of_python = sys.stderr.fileno()  # in a block within another one, 2 is that one's log
    except OSError:
        of_python = 2
    with (folder / NATIVE_STDERR).open("ab") as log, os.fdopen(os.dup(of_python), "w", buffering=1) as stream:
        os.dup2(log.fileno(), 2)
        sys.stderr = stream
        try:
            yield
        finally:
            sys.stderr = python_stderr
            os.dup2(terminal, 2)
            os.close(terminal)


def _folder_of_user() -> Path:
    folder = Path(tempfile.gettempdir()) / f"googlenet-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.lstat().st_uid != os.getuid():  # of a link, the user who made it
        raise UserError(f"{folder} belongs to another user; set TMPDIR to a folder of your own")
    return folder


def _quieten_ray_data() -> None:
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    # An error in a task reaches the user once, as an exception.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


def _quieten_ray_when_interrupted() -> None:
    """Let Ray print no message once this command is interrupted, whose line on that is the last one.

    Its tasks fail then, and Ray would say that it tries them again. There is no public way: without the function of
    Ray 2.60, such messages follow that line.
    """
    from ray._private import worker

    printed = getattr(worker, "print_worker_logs", None)
    if printed is None or hasattr(printed, "__wrapped__"):
        return

    @wraps(printed)
    def unless_interrupted(*what: Any) -> None:
        if not is_interrupted():
            printed(*what)

    worker.print_worker_logs = unless_interrupted
