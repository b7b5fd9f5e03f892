"""MLflow stores and servers: their URIs, connections, and the pages of a run in them."""

import os
import re
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pipelines.errors import UserError, did_you_mean
from pipelines.run.directory import EVALUATIONS, RUN, run_id
from pipelines.run.lock import FOLDER_OF_COPIES
from pipelines.run.places import local_path
from pipelines.run.storage import Storage, may_write
from pipelines.tracking.moved import correct_artifact_places
from pipelines.tracking.schema_version import bring_up_to_this_version, check_version

EXPERIMENT = "googlenet-ensemble"
STORE_VARIABLE = "MLFLOW_TRACKING_URI"
# Without this MLflow opens its pages about language models.
TRAINING_PAGES = "workflowType=machine_learning"
# MLflow's page of all runs shows the columns that this tag of the experiment holds, if its address names the key.
VIEW_KEY = "results"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW_KEY}"
ID_TAG = "googlenet_run_id"
ROLE_TAG = "googlenet_role"
DIRECTORY_TAG = "run_directory"
PARENT = "ensemble"
SQLITE = "sqlite:///"
# Names by which MLflow knows the servers of its environment.
WITHOUT_SCHEME = ("databricks", "databricks-uc")
# Schemes that MLflow knows, and the group of packages that add others.
SCHEMES = {
    *("http", "https", "file", "databricks", "databricks-uc", "uc", "arn", "sqlite"),
    *("postgresql", "mysql", "mssql"),
}
STORE_PLUGINS = "mlflow.tracking_store"
NAME_A_FILE = "write sqlite:///PATH/mlflow.db"
NAME_A_STORE = "name one with --tracking-uri, as http://HOST:PORT or sqlite:////PATH/mlflow.db, or set HOME"
SERVERS = ("http://", "https://", "databricks", "uc:", "arn:")
PASSWORD_OF_SERVER = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"  # noqa: S105
PASSWORD_OF_DATABASE = "give it to the database's driver, as in PGPASSWORD or ~/.pgpass for PostgreSQL"  # noqa: S105
ALLOW_FOLDERS = "MLFLOW_ALLOW_FILE_STORE"
# HOST:PORT, whose host would count as a scheme.
SERVER_ALONE = re.compile(r"[\w.-]+:\d+(/|$)")
LOCK_SECONDS = 60.0
SQLITE_HEADER = b"SQLite format 3\0"
# A call to an unreachable server must fail soon; callers retry. The client itself sends no request twice, since it
# cannot know whether the first one arrived.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # Failures reach this program as exceptions; at a lower level MLflow also prints their tracebacks.
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
# Sites set it for their trainings. What MLflow sends in the background counts as sent, and its failures reach nobody.
ASYNCHRONOUS = "MLFLOW_ENABLE_ASYNC_LOGGING"


def tracking_uri_for(run: Storage, named: str = "") -> str:
    """Return ``named``, or MLFLOW_TRACKING_URI, else an SQLite store beside the run directory.

    Run directories in the same folder, and the evaluations in them, share that store. For one in an object store, it is
    in the home folder.

    Raises:
        UserError: the URI contains a password, or this user has no home folder.
    """
    if named := named or os.environ.get(STORE_VARIABLE, ""):
        return checked(named)
    if not run.is_local:
        try:
            return uri_of(Path.home() / ".googlenet-ensemble" / "mlflow.db")
        except RuntimeError as error:  # as of a container's user without an entry in /etc/passwd
            raise UserError(f"this user has no home folder for an MLflow store; {NAME_A_STORE}") from error
    return uri_of(Path((trained_run_of(run) or run).root).parent / "mlflow.db")


def trained_run_of(evaluation: Storage) -> Storage | None:
    """Return the training run in whose directory an evaluation is; None for a run directory or any other folder."""
    location, mark, options = evaluation.root.partition("?") if not evaluation.is_local else (evaluation.root, "", "")
    root, _, _ = location.rpartition(f"/{EVALUATIONS}/")
    if not root or root.endswith(":/") or evaluation.exists(RUN):  # a bucket may have that name
        return None
    trained = Storage.at(f"{root}{mark}{options}")
    return trained if trained.exists(RUN) else None


def tracking_uri_of_runs(named: str = "") -> str:
    """Return ``named``, or MLFLOW_TRACKING_URI, else the store beside the run directories in ``runs``.

    Raises:
        UserError: the URI contains a password.
    """
    return tracking_uri_for(Storage.at("runs/any"), named)


def uri_of(database: Path) -> str:
    """Return the URI of an SQLite store; characters that mean something in URIs are quoted."""
    from sqlalchemy import URL

    return URL.create("sqlite", database=str(database)).render_as_string()


def database_of(tracking_uri: str) -> Path | None:
    """Return the file of an SQLite store; None for a server or another database."""
    if not tracking_uri.startswith(SQLITE):
        return None
    from sqlalchemy import make_url

    return local_path(make_url(tracking_uri).database or "")


def checked(tracking_uri: str) -> str:
    """Return the URI with an absolute path: MLflow resolves a relative one in each process's current folder.

    Raises:
        UserError: the URI contains a password, which would be written into logs, or an unquoted question mark; or it is
            a path, a folder of MLflow's earlier stores, a server without http://, or a store that would be lost with a
            submitted job.
    """
    if SERVER_ALONE.match(tracking_uri):
        raise UserError(
            f"the MLflow URI {tracking_uri} has no scheme; for the server there, write http://{tracking_uri}"
        )
    try:
        parts = urlsplit(tracking_uri)
    except ValueError as error:  # a bracket without its other one
        raise UserError(f"the MLflow URI {tracking_uri.rpartition('@')[2]} cannot be used: {error}") from error
    if not parts.scheme and tracking_uri not in WITHOUT_SCHEME:
        store = local_path(tracking_uri).absolute()
        raise UserError(
            f"the MLflow URI {tracking_uri} has no scheme; for the SQLite store at this path, write "
            f"{uri_of(store if store.suffix else store / 'mlflow.db')}"
        )
    if parts.password or {"password", "passwd"} & parse_qs(parts.query).keys():
        way_out = PASSWORD_OF_SERVER if is_server(tracking_uri) else PASSWORD_OF_DATABASE
        raise UserError(f"the MLflow URI for {parts.hostname} contains a password; remove it, and {way_out}")
    _check_scheme(parts.scheme, tracking_uri)
    if parts.scheme == "file" and os.environ.get(ALLOW_FOLDERS, "").lower() not in ("true", "1"):
        raise UserError(
            f"MLflow no longer keeps runs in folders such as {tracking_uri}: write sqlite:///PATH/mlflow.db, or set "
            f"{ALLOW_FOLDERS}=true"
        )
    database = database_of(tracking_uri)
    return _checked_file(tracking_uri, database) if database else tracking_uri


def _checked_file(tracking_uri: str, database: Path) -> str:
    from sqlalchemy import make_url

    url = make_url(tracking_uri)
    if "?" in tracking_uri and not url.query:
        raise UserError(f"the MLflow URI {tracking_uri} has a question mark in its path; write it as %3F")
    if url.database in (None, "", ":memory:"):
        raise UserError(f"the MLflow URI {tracking_uri} names no file, so its runs would be lost; {NAME_A_FILE}")
    if database.is_dir():
        raise UserError(f"the MLflow store {database} is a folder; write {uri_of(database.absolute() / 'mlflow.db')}")
    absolute = url.set(database=str(database.resolve())).render_as_string()
    if FOLDER_OF_COPIES in database.resolve().parts:
        raise UserError(
            f"the MLflow store {absolute} lies in Ray's copy of the project, which Ray removes: name a server, or give "
            "its path from / as sqlite:////PATH"
        )
    return absolute


def _check_scheme(scheme: str, tracking_uri: str) -> None:
    """Refuse a scheme that neither MLflow nor a package with stores of its own knows, and SQLite without a file."""
    kind = scheme.partition("+")[0]
    if kind == "sqlite" and not tracking_uri.startswith(f"{scheme}:///"):
        raise UserError(f"the MLflow URI {tracking_uri} names no file, so its runs would be lost; {NAME_A_FILE}")
    if not scheme or kind in SCHEMES or entry_points(group=STORE_PLUGINS, name=scheme):
        return
    raise UserError(
        f"the MLflow URI {tracking_uri} has a scheme that MLflow does not know{did_you_mean(kind, SCHEMES)}; for a "
        f"server, write http:// or https://; for a file, {NAME_A_FILE}"
    )


def is_server(tracking_uri: str) -> bool:
    """Return whether an MLflow server is at a URI; the others are of databases that MLflow's page can be opened on."""
    return tracking_uri.startswith(SERVERS)


def page_of_experiment(tracking_uri: str) -> str:
    """Return the path of the page of all runs, relative to MLflow's address."""
    experiment = connect(tracking_uri).get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return ""
    view = f"&viewStateShareKey={VIEW_KEY}" if VIEW_TAG in experiment.tags else ""
    return f"#/experiments/{experiment.experiment_id}/runs?{TRAINING_PAGES}{view}"


def page_of_run(experiment: str, mlflow_run: str) -> str:
    """Return the path of the page of an MLflow run, relative to MLflow's address."""
    return f"#/experiments/{experiment}/runs/{mlflow_run}?{TRAINING_PAGES}"


def page_of_version(model: str, version: str) -> str:
    """Return the path of the page of a registered model's version, relative to MLflow's address."""
    return f"#/models/{model}/versions/{version}?{TRAINING_PAGES}"


def find_parent(client: Any, run: Storage) -> Any:
    """Return the MLflow run of a run directory's ensemble; None if the store does not have it."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return None
    mine = f"tags.{ID_TAG} = '{run_id(run)}' and tags.{ROLE_TAG} = '{PARENT}'"
    return next(iter(client.search_runs([experiment.experiment_id], mine)), None)


def runs_at_work(tracking_uri: str) -> list[tuple[str, str]]:
    """Return the directories of the runs that MLflow shows as running, as they were then, and their ids."""
    client = connect(tracking_uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return []
    at_work = f"tags.{ROLE_TAG} = '{PARENT}' and attributes.status = 'RUNNING'"
    tags_of_runs = [run.data.tags for run in client.search_runs([experiment.experiment_id], at_work)]
    return [(tags[DIRECTORY_TAG], tags[ID_TAG]) for tags in tags_of_runs]


def connect(tracking_uri: str) -> Any:
    """Return an ``MlflowClient``; only one process at a time creates, migrates or corrects the database.

    Raises:
        UserError: the database cannot be used with this version of MLflow.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    os.environ[ASYNCHRONOUS] = "false"
    from mlflow import MlflowClient

    database = database_of(tracking_uri)
    if database and is_read_only(database):  # shown as it is
        check_version(database)
        return MlflowClient(tracking_uri)
    with _creation_lock(database):
        if database and database.exists():
            bring_up_to_this_version(database, tracking_uri)
        client = MlflowClient(tracking_uri)
        client.search_experiments(max_results=1)
        if database:
            correct_artifact_places(database)
    return client


def is_read_only(database: Path) -> bool:
    """Return whether an SQLite store exists that this user cannot write, such as another user's."""
    # SQLite also writes a journal beside the file.
    return database.exists() and not (may_write(database) and may_write(database.parent))


def check_that_it_can_be_written(tracking_uri: str) -> None:
    """Refuse an SQLite store that this user can neither write nor make.

    Raises:
        UserError: it is one.
    """
    database = database_of(tracking_uri)
    if database is None:
        return
    folder = next(folder for folder in database.parents if folder.exists())
    if is_read_only(database) or not may_write(folder):
        own = uri_of(Path.cwd() / "runs/mlflow.db")
        raise UserError(f"cannot write the MLflow store {database}; name one of your own, such as --tracking-uri {own}")
    if database.is_file() and database.stat().st_size:
        with database.open("rb") as file:
            if file.read(len(SQLITE_HEADER)) != SQLITE_HEADER:
                raise UserError(f"the MLflow store {database} is not an SQLite database; name another file")


def _creation_lock(database: Path | None) -> AbstractContextManager[Any]:
    # Processes that create the same database at the same time break it for each other.
    if database is None:
        return nullcontext()
    from filelock import FileLock

    database.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{database}.lock", timeout=LOCK_SECONDS)
