"""Send all that a run directory holds to an MLflow store or server; what is there already is not sent twice.

python pipelines/replay_to_mlflow.py --run-dir RUN --tracking-uri http://SERVER:5000
"""

from dataclasses import dataclass

from pipelines.command_line import parse, run_command
from pipelines.console import say
from pipelines.dataset import MANIFEST, read_manifest
from pipelines.errors import UserError
from pipelines.job_log import ENDED, INTERRUPTED, RUNNING, read_jobs
from pipelines.recipe import Recipe
from pipelines.report import REPORT_JSON
from pipelines.run_directory import ReplicaFiles, finished_replicas, read_recipe
from pipelines.run_lock import only_job_on
from pipelines.storage import Storage
from pipelines.tracking.champion import ChampionRule
from pipelines.tracking.follower import reason_of, send_once
from pipelines.tracking.publish import ModelsToLog, Publication, publish
from pipelines.tracking.store import how_to_open, tracking_uri_for


@dataclass(frozen=True)
class Arguments:
    """Send a run directory to MLflow."""

    run_dir: str
    """Run directory: a path, or a URI of an object store."""
    tracking_uri: str = ""
    """MLflow store or server; the default is MLFLOW_TRACKING_URI, else an SQLite store beside the run directory."""
    models: ModelsToLog = "all"
    """Models to log in MLflow: the ensemble and each replica, the ensemble alone, or none."""
    champion: ChampionRule = "better"
    """When this ensemble becomes the registered model's champion: if it errs less on the same images, always, never."""


def replay(run: Storage, publication: Publication) -> str:
    """Send all that ``run`` holds; where MLflow shows it, below its address.

    Raises:
        UserError: it is no run, a job is at work on it, or MLflow does not answer.
    """
    recipe = read_recipe(run)
    if not run.exists(MANIFEST):
        raise UserError(f"nothing has been prepared in {run} yet; there is nothing to send")
    manifest = read_manifest(run)
    with only_job_on(run):
        phases = phases_of(run, recipe)
        final = outcome_of(run, phases)
        try:
            page = send_once(run, recipe, manifest, publication.tracking_uri, phases, final)
        except Exception as error:
            raise UserError(f"MLflow at {publication.tracking_uri}: {reason_of(error)}") from error
        if final == "FINISHED":
            say(publish(run, recipe, manifest, publication))
    return page


def outcome_of(run: Storage, phases: dict[int, str]) -> str:
    """How the newest job on ``run`` ended, as MLflow calls it; nobody is at work on it."""
    jobs = read_jobs(run)
    outcome = jobs[-1]["outcome"] if jobs else RUNNING
    complete = run.exists(REPORT_JSON) and (outcome == ENDED or set(phases.values()) == {"done"})
    if complete:
        return "FINISHED"
    return "KILLED" if outcome in (RUNNING, INTERRUPTED) else "FAILED"


def phases_of(run: Storage, recipe: Recipe) -> dict[int, str]:
    """What became of each replica, by the files it left; nobody is at work on it."""
    phases = dict.fromkeys(range(recipe.replicas), "stopped")
    failed = [replica for replica in phases if run.exists(ReplicaFiles(replica).failure)]
    done = finished_replicas(run, recipe.replicas)
    return phases | dict.fromkeys(failed, "failed") | dict.fromkeys(done, "done")


def _main() -> None:
    arguments = parse(Arguments)
    run = Storage.at(arguments.run_dir)
    publication = Publication(tracking_uri_for(run, arguments.tracking_uri), arguments.models, arguments.champion)
    page = replay(run, publication)
    say(f"{run} is in MLflow at {publication.tracking_uri}")
    say(how_to_open(publication.tracking_uri, page))


if __name__ == "__main__":
    run_command(_main)
