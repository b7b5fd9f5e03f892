"""MLflow's user interface, opened on the newest run.

    python pipelines/review.py

The server listens on 127.0.0.1 and has two processes; ``mlflow ui`` starts nine by default.
"""

if __name__ == "__main__":  # by a Python that may lack packages, or an installed project
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from pipelines.job.interpreter import check_interpreter

    check_interpreter()

import os
import shlex
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import UserError
from pipelines.job.command_line import parse, run_command
from pipelines.job.console import complain, say
from pipelines.run.directory import ANSWERS_CSV, MANIFEST, REPORT_JSON, RUN, read_run
from pipelines.run.lock import RunInUseError, reading
from pipelines.run.places import local_path, without_file_scheme
from pipelines.run.storage import Storage
from pipelines.run.storage_failures import STORE_FAILURES
from pipelines.tracking.commands import replay_command
from pipelines.tracking.evaluation import find_evaluation
from pipelines.tracking.failures import reason_of
from pipelines.tracking.moved import find_directory
from pipelines.tracking.publish import PublishSettings
from pipelines.tracking.replay import replay
from pipelines.tracking.store import (
    checked,
    connect,
    database_of,
    find_parent,
    is_read_only,
    is_server,
    page_of_experiment,
    page_of_run,
    runs_at_work,
    tracking_uri_for,
)

ENVIRONMENT = {
    # The server's own failures reach nobody else.
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}


@dataclass(frozen=True)
class Arguments:
    """Open runs in MLflow's user interface."""

    run_dir: str = ""
    """Run directory, or folder of an evaluation, to open; the default is the MLflow store of the newest in --runs."""
    runs: str = "runs"
    """Folder of run directories."""
    tracking_uri: str = ""
    """MLflow store to open instead of the run's own, which is beside the run directory."""
    port: int = 5000
    """Port on 127.0.0.1."""


def newest_run(runs: Path) -> Path:
    """Return the run directory in ``runs`` that was started or resumed last.

    Raises:
        UserError: there is no run directory.
    """
    directories = [path.parent for path in runs.glob(f"*/{RUN}")]
    if not directories:
        raise UserError(f"no run in {runs.resolve()}; choose one with --run-dir, or its folder with --runs")
    return max(directories, key=lambda run: max(map(_changed, (run, run / RUN, *run.glob("jobs/*.json")))))


def _changed(path: Path) -> float:
    """Return when a file was written; 0 if a job or a user removes it right now."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def bring_up_to_date(tracking_uri: str, database: Path) -> None:
    """Update runs that MLflow shows as running but whose jobs were killed, and could not report their end."""
    for directory, wanted in runs_at_work(tracking_uri):
        try:
            run = find_directory(database, directory, wanted)
            if run is None:
                say(f"warning: {directory} no longer exists, so MLflow keeps showing its run as running")
            else:
                replay(run, PublishSettings(tracking_uri, models="none"))
        except RunInUseError:
            say(f"{directory} is still running")
        except (UserError, *STORE_FAILURES) as error:
            say(f"warning: {error}")


def _store(arguments: Arguments) -> str:
    if arguments.tracking_uri:
        return checked(arguments.tracking_uri)
    if "://" in without_file_scheme(arguments.runs) and not arguments.run_dir:
        raise UserError(f"--runs {arguments.runs}: no local folder; name the run in that store with --run-dir")
    run = Storage.at(arguments.run_dir or str(newest_run(local_path(arguments.runs))))
    say(f"run: {run}")
    return tracking_uri_for(run)


def page_to_open(tracking_uri: str, run_dir: str) -> str:
    """Return the page of the run in ``run_dir``, or that of all runs, relative to MLflow's address."""
    if not run_dir:
        return page_of_experiment(tracking_uri)
    run, client = Storage.at(run_dir), connect(tracking_uri)
    is_training = run.exists(RUN) and "recipe" in read_run(run)
    tracked = find_parent(client, run) if is_training else find_evaluation(client, run)
    if tracked is not None:
        return page_of_run(tracked.info.experiment_id, tracked.info.run_id)
    database = database_of(tracking_uri)
    if database and is_read_only(database):
        way_out = ", which is read-only"
    else:
        way_out = _way_out(run, tracking_uri) if is_training else _way_out_of_evaluation(run, tracking_uri)
    say(f"warning: {run} is not in this MLflow store{way_out}")
    return page_of_experiment(tracking_uri)


def _way_out(run: Storage, tracking_uri: str) -> str:
    """Return the end of a line on a run that the store lacks: the command that sends it, or why none can now."""
    try:
        with reading(run, complain):
            is_prepared = run.exists(MANIFEST)
    except RunInUseError:
        return "; it is in use by another command now"
    if not is_prepared:
        return f"; without its {MANIFEST}, it cannot be sent"
    return f"; to send it: {replay_command(run, tracking_uri)}"


def _way_out_of_evaluation(run: Storage, tracking_uri: str) -> str:
    """Return the end of a line on an evaluation that the store lacks; only its own command sends it."""
    if run.exists(REPORT_JSON):
        options = f"with --tracking-uri {shlex.quote(tracking_uri)} and without --no-mlflow"
        return f"; to send it, run its command again {options}"
    if run.exists(ANSWERS_CSV):
        return "; its images have no labels, so it is never sent"
    return "; it has no report yet: run its command again"


def check_port(port: int) -> None:
    """Refuse a port that cannot be listened on: MLflow would print a traceback and end as if all was well.

    Raises:
        UserError: another program listens on it, or only administrators may.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as MLflow does; a closed connection may linger
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UserError(f"cannot listen on port {port} ({reason}): choose another with --port") from error


def _address_on_server(uri: str, run_dir: str) -> str:
    """Return the address of the page on a server; of one that does not answer, the server's own, and warn."""
    try:
        page = page_to_open(uri, run_dir) if uri.startswith("http") else ""
    except Exception as error:  # noqa: BLE001  # a browser may be let in where a program is not
        complain(f"warning: MLflow at {uri}: {reason_of(error)}")
        page = ""
    return f"{uri.rstrip('/')}/{page}" if page else uri


def _main() -> None:
    arguments = parse(Arguments)
    if arguments.run_dir and not any(map(Storage.at(arguments.run_dir).exists, (RUN, REPORT_JSON))):
        raise UserError(f"{arguments.run_dir} holds no run; choose another --run-dir")
    uri = _store(arguments)
    database = database_of(uri)
    if is_server(uri):
        complain("asking the MLflow server for the run's page ...")
        say(f"MLflow: {_address_on_server(uri, arguments.run_dir)}")
        return
    if database and not database.exists():
        raise UserError(f"MLflow store not found: {database}; fill one from a run directory with replay_to_mlflow.py")
    check_port(arguments.port)
    try:
        say(f"opening the MLflow store {database or uri} ...")
        if database and is_read_only(database):
            say(f"{database} is read-only: runs are shown as they are there")
        elif database:  # a database that several machines share has runs at work whose directories are on others
            bring_up_to_date(uri, database)
        page = page_to_open(uri, arguments.run_dir)
    except Exception as error:
        raise UserError(f"MLflow at {uri}: {reason_of(error)}") from error
    address = f"http://127.0.0.1:{arguments.port}"
    say(f"MLflow: {address}/{page}   (in a few seconds; Ctrl-C to stop)")
    command = ["mlflow", "ui", "--workers", "1", "--host", "127.0.0.1", "--port", str(arguments.port)]
    os.execve(  # noqa: S606  # MLflow replaces this process, and gets its Ctrl-C
        sys.executable,
        [sys.executable, "-m", *command, "--backend-store-uri", uri],
        {**os.environ, **ENVIRONMENT},
    )


if __name__ == "__main__":
    run_command(_main)
