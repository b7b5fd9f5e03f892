"""Requirements of a local cluster: a folder for its sockets, a token, and enough processes."""

import os
import resource
import secrets
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from pipelines.errors import UserError
from pipelines.job.console import say

# The longest path of a Unix socket.
SOCKET_PATH_BYTES = 107
# Ray's longest socket, that of a dashboard, in a session of the process with the longest id.
LONGEST_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/dash_MetricsHead"
FOLDER_BYTES = SOCKET_PATH_BYTES - len(LONGEST_SOCKET)
SHORT_FOLDER = Path("/tmp/ray")  # noqa: S108  # Ray's own choice where no variable names another
RAYLET = "raylet"
# All processes of a cluster end within about a second, but for those that hang in Ray's own clean-up.
EXIT_SECONDS = 3.0
# Threads of a cluster with two workers; the system counts threads as processes.
CLUSTER_THREADS = 1000
START_LOGS = "if that does not help, its logs are in ray/session_latest/logs below RAY_TMPDIR, TMPDIR or /tmp"


def variable_of_folder() -> str:
    """Return the variable that names the folder in which Ray makes its own; empty if that is `SHORT_FOLDER`."""
    if "RAY_TMPDIR" in os.environ:
        return "RAY_TMPDIR"
    # Ray reads it on Linux alone: on macOS, where it is always set, it is too long.
    return "TMPDIR" if sys.platform.startswith("linux") and "TMPDIR" in os.environ else ""


def folder_for_ray() -> str | None:
    """Return the folder that a local cluster has to be given; None if Ray's own choice is short enough.

    Raises:
        UserError: RAY_TMPDIR is too long.
    """
    variable = variable_of_folder()
    length = len(os.fsencode(os.environ.get(variable, "")))
    if length <= FOLDER_BYTES:
        return None
    if variable == "RAY_TMPDIR":
        raise UserError(
            f"RAY_TMPDIR has {length} bytes, too many for Ray's socket paths: choose a folder of at most {FOLDER_BYTES}"
        )
    say(f"TMPDIR has more than {FOLDER_BYTES} bytes, too many for Ray's socket paths; Ray uses {SHORT_FOLDER} instead")
    return str(SHORT_FOLDER)


def token_for_ray() -> dict[str, str]:
    """Return the variable with a token for a local cluster; empty if the home folder can hold one, or none is needed.

    A home folder that cannot be written is common in containers and on clusters.
    """
    if any(name.startswith("RAY_AUTH_") for name in os.environ) or _home_holds_token():
        return {}
    return {"RAY_AUTH_TOKEN": secrets.token_hex(32)}


def start_failure(error: Exception) -> UserError:
    """Return the error for a local cluster whose processes did not start."""
    reason = str(error).partition("\n")[0].partition("  Last ")[0].rstrip(". ")
    most, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if 0 <= most < CLUSTER_THREADS and os.geteuid() != 0:  # the limit is not for root
        cure = f"this user may have {most:,} processes and threads, too few for Ray: raise the limit with ulimit -u"
    else:
        cure = f"run the same command again; {START_LOGS}"
    return UserError(f"Ray did not start ({reason}): {cure}")


def ending_of_new_processes() -> Callable[[], None]:
    """Return a function that kills the processes that were started below this one after this call.

    Ray's agents outlive their cluster for a minute if it dies while it starts.
    """
    others = set(psutil.Process().children(recursive=True))

    def end() -> None:
        for process in psutil.Process().children(recursive=True):  # parents first: they would start more
            if process not in others:
                with suppress(psutil.Error):
                    process.kill()

    return end


def leave_cluster() -> None:
    """Disconnect, which ends a cluster of this command, and kill those of its processes that hang in their exit."""
    import ray

    started: list[psutil.Process] = []
    for process in psutil.Process().children():
        with suppress(psutil.Error):
            if process.name() == RAYLET:
                started += process.children(recursive=True)
    ray.shutdown()
    for process in psutil.wait_procs(started, timeout=EXIT_SECONDS)[1]:
        with suppress(psutil.Error):
            process.kill()


def _home_holds_token() -> bool:
    """Return whether Ray's token is in the home folder, or can be written there."""
    try:
        token = Path.home() / ".ray/auth_token"
        if token.exists():
            return True
        token.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=token.parent):
            return True
    except (OSError, RuntimeError):  # RuntimeError: this user has no home folder
        return False
