"""The connection to Ray: the cluster that RAY_ADDRESS names, as in a submitted job, or a local one for this command."""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from pipelines.job.interruption import interrupt_on_sigterm
from pipelines.run.directory import LOGS, NATIVE_STDERR
from pipelines.run.storage import Storage

# On a laptop Ray would take 30 % of the memory; shards of decoded images need far less.
LOCAL_OBJECT_STORE_BYTES = 1 << 30
QUIET = {
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # A finished replica is noticed after half a second instead of two; start-up and end are waits for such polls.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # Workers stay in the folder they start in: relative paths keep their meaning.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # A trainer is six small processes; more of them at once start sooner, and Ray does not warn about their number.
    "RAY_worker_maximum_startup_concurrency": "8",
}


@contextmanager
def connected(num_cpus: int | None = None) -> Iterator[None]:
    """Be connected to a cluster; one that was started for this command ends with it.

    Ray's own output goes to its session's log files, not to the terminal. ``num_cpus`` bounds a cluster that is
    started here; the default is the machine's.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    local = {} if address else {"object_store_memory": LOCAL_OBJECT_STORE_BYTES, "num_cpus": num_cpus}
    ray.init(
        address=address or "local",
        logging_level=logging.ERROR,
        log_to_driver=False,
        **local,
    )
    interrupt_on_sigterm()
    _quieten_ray_data()
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def native_stderr_to_log(run: Storage) -> Iterator[None]:
    """Send what C and C++ libraries write on standard error to a file in the run directory's ``logs``.

    For a run in an object store it is a folder of the user's own among the temporary ones.

    Ray's core reports harmless things there. Python's own standard error stays on the terminal.
    """
    folder = Path(run.root if run.is_local else Path(tempfile.gettempdir()) / f"googlenet-{os.getuid()}") / LOGS
    folder.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    python_stderr, terminal = sys.stderr, os.dup(2)
    with (folder / NATIVE_STDERR).open("ab") as log, os.fdopen(os.dup(terminal), "w", buffering=1) as stream:
        os.dup2(log.fileno(), 2)
        sys.stderr = stream
        try:
            yield
        finally:
            sys.stderr = python_stderr
            os.dup2(terminal, 2)
            os.close(terminal)


def _quieten_ray_data() -> None:
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    # What a task raises reaches the user once, as the exception that it is.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


def held(name: str, amount: float, need: float) -> int:
    """How many that each reserve ``need`` of a resource a node with ``amount`` of it holds."""
    # A share of a thousandth is what fractions lose in floating point.
    if name == "GPU" and need < 1:  # a share is of one GPU, what is left of two makes no third
        return int(amount) * int(1 / need + 1e-3)
    return int(amount / need + 1e-3)
