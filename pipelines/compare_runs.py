"""Comparison of two finished runs: their differing settings, and the paired difference of every cell of their tables.

    python pipelines/compare_runs.py RUN RUN

RUN is a run directory, or the id of a run in MLflow.
"""

if __name__ == "__main__":  # by a Python that may lack packages, or an installed project
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from pipelines.job.interpreter import check_interpreter

    check_interpreter()

import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pipelines.errors import UserError
from pipelines.job.command_line import parse, run_command
from pipelines.job.console import complain, say, terminal_columns
from pipelines.job.run_option import run_at
from pipelines.report.comparison import Finished, comparison, read_finished
from pipelines.run.directory import REPORT_JSON, RUN
from pipelines.run.storage import Storage
from pipelines.tracking.fetch import PREFIX, fetch_run
from pipelines.tracking.store import tracking_uri_of_runs

ID_IN_MLFLOW = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True)
class Arguments:
    """Compare the settings and the errors of two finished runs."""

    POSITIONAL: ClassVar[tuple[str, ...]] = ("first", "second")

    first: str
    """Run directory, or id of a run in MLflow."""
    second: str
    """Run directory, or id of a run in MLflow."""
    tracking_uri: str = ""
    """MLflow store or server in which ids are looked up; the default is MLFLOW_TRACKING_URI, else runs/mlflow.db."""


def _read(name: str, tracking_uri: str) -> Finished:
    if not name.startswith(PREFIX):
        run = run_at(name)
        if run.exists(RUN) or run.exists(REPORT_JSON):
            return read_finished(run, name)
        if not ID_IN_MLFLOW.fullmatch(name):
            raise UserError(f"{name} is neither a run directory nor the id of a run in MLflow")
    complain(f"reading the run {name} from MLflow ...")
    with tempfile.TemporaryDirectory() as folder:
        title = fetch_run(tracking_uri_of_runs(tracking_uri), name, Path(folder))
        return read_finished(Storage.at(folder), title)


def _main() -> None:
    arguments = parse(Arguments)
    first, second = (_read(name, arguments.tracking_uri) for name in (arguments.first, arguments.second))
    itself = " itself" if Storage.at(arguments.first).root == Storage.at(arguments.second).root else ""
    complain(f"comparing {first.name} with{itself or f' {second.name}'} ...")
    say(comparison(first, second, terminal_columns(sys.maxsize)), wrap=False)


if __name__ == "__main__":
    run_command(_main)
