"""Failures of MLflow: their reason in one line, and repetition of what failed for a reason that may pass."""

import re
import sqlite3
import time
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from pipelines.errors import UserError

T = TypeVar("T")
# Between attempts: a server that is restarted, or the proxy in front of it, is back within half a minute.
PAUSES_SECONDS = (5.0, 10.0, 20.0)
# Refusals that may pass: the request came too slowly, or there were too many of them.
REQUEST_TIMEOUT, TOO_MANY_REQUESTS = 408, 429
SERVER_ERROR = 500
# Libraries by which MLflow's client itself reaches a store of files; their errors are none of Python's for connections.
CLIENTS_OF_STORES = ("azure", "boto3", "botocore", "google", "s3transfer")
NETWORK_LIBRARIES = (*CLIENTS_OF_STORES, "urllib3")
# In what a database says of a user or a database that it does not admit.
NOT_ADMITTED = ("authentication", "Access denied", "does not exist")
# What SQLite says while another process writes.
LOCKED = "database is locked"
# What this program raises where a file that it read, as JSON, has other content than it wrote.
EDITED = (KeyError, TypeError, AttributeError, IndexError)
# MLflow's words for a parameter of a run that has another value.
OTHER_PARAMETERS = "Changing param values is not allowed"
# How MLflow's server begins its refusal of a request for a host name that is not one of its own.
OTHER_HOST = "Invalid Host header"
# How SQLAlchemy begins the message of a database.
DRIVER_ERROR = re.compile(r"^\(\w+\.\w+\) ")
# How Python names the reason of a failed connection, such as "[Errno 111] Connection refused".
SYSTEM_ERROR = re.compile(r"\[Errno -?\d+\] ([^'\")(]+)")
# What the client says about an address that the server does not have; it has other words for a missing run or model.
UNKNOWN_ENDPOINT = re.compile(r"endpoint (\S+) failed with error code 404")


def repeatedly(
    attempt: Callable[[], T], tell: Callable[[str], None], wait: Callable[[float], bool | None] = time.sleep
) -> T:
    """Return what ``attempt`` returns; it is repeated a few times while it fails for a reason that may pass.

    Args:
        attempt: asks the store what it has already, so that a repetition sends nothing twice.
        tell: gets the reason of a failure that is followed by another attempt.
        wait: pauses for some seconds; returns whether there is no time for another attempt.

    Raises:
        Exception: that of the last attempt.
    """
    for pause_seconds in PAUSES_SECONDS:
        try:
            return attempt()
        except Exception as error:
            if not may_pass(error):
                raise
            tell(reason_of(error))
            if wait(pause_seconds):
                raise
    return attempt()


def may_pass(error: Exception) -> bool:
    """Return whether an attempt may succeed later: a server failed or did not answer, or a database is locked.

    Everything else is of this machine or of the run directory, or has been tried for long enough: MLflow itself asks a
    database that refuses its connection ten times.
    """
    if status := _status_of(error):
        return status >= SERVER_ERROR or status in (REQUEST_TIMEOUT, TOO_MANY_REQUESTS)
    return _is_of_connection(error) or LOCKED in str(error)


def is_away(error: Exception) -> bool:
    """Return whether MLflow answers again without the user's help, however often it was asked just now."""
    from sqlalchemy.exc import OperationalError

    if not isinstance(error, OperationalError) or isinstance(error.orig, sqlite3.Error):
        return may_pass(error)
    return not any(text in str(error.orig) for text in NOT_ADMITTED)


def reason_of(error: Exception) -> str:
    """Return one line on why MLflow, or the connection to it, failed."""
    if isinstance(error, UserError):
        return str(error)
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    first_line = DRIVER_ERROR.sub("", first_line)
    if known := _meaning_of(first_line):
        return known
    if _status_of(error) in (401, 403):
        if type(error).__module__.partition(".")[0] in CLIENTS_OF_STORES:
            return f"its artifact store refuses the credentials ({first_line}); check the bucket's credentials here"
        return f"it refuses the credentials ({first_line}); set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    if isinstance(error, EDITED) and _is_of_this_program(error):
        return f"a file of the run was changed or is damaged ({error!r}): restore it from a copy"
    return _reason_of_failure(error, first_line)


def _is_of_this_program(error: Exception) -> bool:
    """Return whether a function of this program raised it: one of a library says nothing of the files of a run."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and str(frames[-1].f_globals.get("__name__")).startswith(f"{__name__.partition('.')[0]}.")


def _reason_of_failure(error: Exception, first_line: str) -> str:
    if isinstance(error, OSError) and not _is_of_connection(error):
        return f"a file cannot be read or written: {first_line}"
    return f"it cannot be used: {first_line}"


def _meaning_of(line: str) -> str:
    """Return what a message of MLflow's client means for a user; empty for one that is not known."""
    # The client's text ends with the reason, after the library's names of it.
    if "Caused by ProxyError" in line:
        return "the proxy in the environment does not answer; correct it, or add the host of the server to NO_PROXY"
    if "Caused by " in line and (system := SYSTEM_ERROR.search(line)):
        return f"it does not answer ({system[1].strip()})"
    if unknown := UNKNOWN_ENDPOINT.search(line):
        way_out = ", or choose --models none" if "logged-models" in unknown[1] else ""
        return f"it does not know {unknown[1]}: the server is too old or is not an MLflow server; update it{way_out}"
    if OTHER_PARAMETERS in line:
        return (
            "it has this run with other parameters, which it does not change: run.json was edited, or the run is a "
            "copy; name another store with --tracking-uri"
        )
    if OTHER_HOST in line:
        return (
            "it refuses the host name in the address: use one of its --allowed-hosts, or restart it with this host "
            "name among them; cluster/mlflow_server.sh allows the head's address"
        )
    return ""


def _is_of_connection(error: Exception) -> bool:
    from requests import RequestException

    if isinstance(error, ConnectionError | TimeoutError | RequestException):
        return True
    return type(error).__module__.partition(".")[0] in NETWORK_LIBRARIES


def _status_of(error: Exception) -> int:
    """Return the HTTP status of a failed request; 0 if there is none."""
    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's
        return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    of_upload: int | None = getattr(response, "status_code", None)
    of_call: Any = getattr(error, "get_http_status_code", lambda: 0)
    return of_upload or int(of_call())
