"""Replay of a run directory to an MLflow store or server; data that is already there is not sent again.

python pipelines/replay_to_mlflow.py --run-dir RUN --tracking-uri http://SERVER:5000
"""

if __name__ == "__main__":  # by a Python that may lack packages, or an installed project
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from pipelines.job.interpreter import check_interpreter

    check_interpreter()

from dataclasses import dataclass

from pipelines.job.command_line import parse, run_command
from pipelines.job.console import say
from pipelines.job.run_option import run_at
from pipelines.run.directory import REPORT_JSON
from pipelines.tracking.commands import how_to_open, how_to_use
from pipelines.tracking.publish import ChampionRule, ModelsToLog, PublishSettings
from pipelines.tracking.replay import replay
from pipelines.tracking.store import tracking_uri_for


@dataclass(frozen=True)
class Arguments:
    """Send a run directory to MLflow."""

    run_dir: str
    """Run directory: a path, or a URI of an object store."""
    tracking_uri: str = ""
    """MLflow store or server; the default is MLFLOW_TRACKING_URI, else an SQLite store beside the run directory, or in
    ~/.googlenet-ensemble if that is in an object store."""
    models: ModelsToLog = "all"
    """Models to log in MLflow: the ensemble and each replica, the ensemble alone, or none."""
    champion: ChampionRule = "better"
    """When this ensemble becomes the champion of its data set: if better, always, or never."""
    champion_metric: str = ""
    """Metric by which ensembles are better, such as negative_log_likelihood/7x144/calibrated; the default is errors."""


def _main() -> None:
    arguments = parse(Arguments)
    run = run_at(arguments.run_dir)
    chosen = arguments.models, arguments.champion, arguments.champion_metric
    publishing = PublishSettings(tracking_uri_for(run, arguments.tracking_uri), *chosen)
    sent = replay(run, publishing)
    so_far = "" if run.exists(REPORT_JSON) else "; to finish this run, repeat the command that started it"
    say(f"{run} is in MLflow at {publishing.tracking_uri}{so_far}")
    how_to = (run, publishing.tracking_uri, sent.page)
    say(how_to_use(*how_to, sent.model) if sent.is_finished else how_to_open(*how_to))


if __name__ == "__main__":
    run_command(_main)
