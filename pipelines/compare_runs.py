"""Two finished runs: what differed between them, and the paired difference of every cell of their tables.

    python pipelines/compare_runs.py RUN RUN

RUN is a run directory, or the id of a run in MLflow.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pipelines.command_line import parse, run_command
from pipelines.comparison import Finished, comparison, read_finished
from pipelines.progress import say
from pipelines.run_directory import RUN
from pipelines.storage import Storage
from pipelines.tracking.fetch import PREFIX, fetch_run
from pipelines.tracking.store import tracking_uri_of_runs


@dataclass(frozen=True)
class Arguments:
    """Say what differs between two runs, in their settings and in their errors."""

    first: Annotated[str, tyro.conf.Positional]
    """Run directory, or id of a run in MLflow."""
    second: Annotated[str, tyro.conf.Positional]
    """Run directory, or id of a run in MLflow."""
    tracking_uri: str = ""
    """MLflow store or server of ids; the default is MLFLOW_TRACKING_URI, else runs/mlflow.db."""


def _read(name: str, tracking_uri: str) -> Finished:
    if not name.startswith(PREFIX) and Storage.at(name).exists(RUN):
        return read_finished(Storage.at(name), name)
    with tempfile.TemporaryDirectory() as folder:
        title = fetch_run(tracking_uri or tracking_uri_of_runs(), name, Path(folder))
        return read_finished(Storage.at(folder), title)


def _main() -> None:
    arguments = parse(Arguments)
    first, second = (_read(name, arguments.tracking_uri) for name in (arguments.first, arguments.second))
    say(comparison(first, second))


if __name__ == "__main__":
    run_command(_main)
