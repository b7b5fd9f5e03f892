"""Commands to open, serve and ask a run in MLflow, and to send it again, quoted for the shell."""

import os
import shlex

from pipelines.run.commands import command_of
from pipelines.run.storage import Storage
from pipelines.tracking.store import STORE_VARIABLE, tracking_uri_for

PORT = 8080
# MLflow's default of a minute for a request is six images of seven models with 144 crops on two cores with AVX-512.
SERVE_OPTIONS = f"--env-manager local --port {PORT} --timeout 600"
# A photograph in base64 is too long for an argument, so it goes through pipes.
ASK = (
    r"""base64 < PHOTO | tr -d '\n' | sed 's/.*/{"dataframe_records": [{"image": "&"}]}/' | """
    f"curl -H 'Content-Type: application/json' -d @- 127.0.0.1:{PORT}/invocations"
)


def how_to_open(run: Storage, tracking_uri: str, page: str = "") -> str:
    """Return the address or the command that shows a run; ``page`` is relative to MLflow's address."""
    if tracking_uri.startswith(("http://", "https://")):
        return f"MLflow: {tracking_uri.rstrip('/')}/{page}"
    return f"MLflow: {_command('review', run, tracking_uri)}"


def how_to_use(run: Storage, tracking_uri: str, page: str, model: str) -> str:
    """Return the lines that open, serve and ask a run; ``model`` is its URI, empty if it has not been logged."""
    if not model:
        return f"{how_to_open(run, tracking_uri, page)}\nserve: log it first with {replay_command(run, tracking_uri)}"
    store, words = shlex.quote(tracking_uri), shlex.quote(model)
    serve = f"{STORE_VARIABLE}={store} mlflow models serve -m {words} {SERVE_OPTIONS}"
    return f"{how_to_open(run, tracking_uri, page)}\nserve:  {serve}\nask:    {ASK}"


def replay_command(run: Storage, tracking_uri: str, *options: str) -> str:
    """Return the command that sends a run to its MLflow store again."""
    return _command("replay_to_mlflow", run, tracking_uri, *options)


def _command(name: str, run: Storage, tracking_uri: str, *options: str) -> str:
    # A shell into which the command is copied need not have the variable.
    is_other = os.environ.get(STORE_VARIABLE) or tracking_uri != tracking_uri_for(run)
    return command_of(name, run, *(("--tracking-uri", tracking_uri) if is_other else ()), *options)
