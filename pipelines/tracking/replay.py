"""Replay of a run directory into any MLflow store."""

from pipelines.errors import TryAgainError, UserError
from pipelines.job.console import complain, say
from pipelines.job.log import ENDED, INTERRUPTED, RUNNING, read_jobs
from pipelines.run.dataset import read_manifest
from pipelines.run.directory import (
    MANIFEST,
    REPORT_JSON,
    ReplicaFiles,
    finished_replicas,
    read_recipe,
    read_report,
    replica_name,
)
from pipelines.run.lock import reading
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.tracking.failures import is_away, reason_of
from pipelines.tracking.follower import FINISHED, Tracker
from pipelines.tracking.publish import PublishSettings
from pipelines.tracking.store import check_that_it_can_be_written


def replay(run: Storage, publishing: PublishSettings) -> Tracker:
    """Send everything in ``run``; return what sent it, which knows its page and its model.

    Raises:
        UserError: there is no run, MLflow cannot be written, or a file of the run is missing or damaged.
        TryAgainError: a job is working on the run, or MLflow does not answer.
    """
    recipe = read_recipe(run)
    if not run.exists(MANIFEST):
        if run.exists(REPORT_JSON) or finished_replicas(run, recipe.replicas):
            raise UserError(f"{run} lacks {MANIFEST}: copy it from where the run was made; the images are not needed")
        raise UserError(f"nothing has been prepared in {run} yet; there is nothing to send")
    check_that_it_can_be_written(publishing.tracking_uri)
    manifest = read_manifest(run)
    tracker = Tracker(run, recipe, manifest, publishing)
    with reading(run, complain):
        say(f"sending {run} to MLflow at {publishing.tracking_uri} ...")
        phases = phases_of(run, recipe)
        try:
            tracker.send_all(phases, outcome_of(run, phases))
        except UserError:  # names its file, or the store
            raise
        except Exception as error:
            lacks = " lacks data of the models" if tracker.in_step else ""
            kind = TryAgainError if is_away(error) else UserError
            raise kind(f"MLflow at {publishing.tracking_uri}{lacks}: {reason_of(error)}") from error
    if tracker.outcome:
        say(tracker.outcome)
    return tracker


def outcome_of(run: Storage, phases: dict[int, str]) -> str:
    """Return how the newest job on ``run`` ended, as a status of MLflow; no job may be working on it."""
    jobs = read_jobs(run)
    outcome = jobs[-1]["outcome"] if jobs else RUNNING
    if run.exists(REPORT_JSON) and _has_reported(run, phases, allow_missing=outcome == ENDED):
        return FINISHED
    return "KILLED" if outcome in (RUNNING, INTERRUPTED) else "FAILED"


def _has_reported(run: Storage, phases: dict[int, str], *, allow_missing: bool) -> bool:
    """Return whether the report, which may be of an earlier job, has all finished replicas, and none is missing."""
    reported = read_report(run)["ensemble"].get("replicas", [])
    done = [replica_name(replica) for replica, phase in phases.items() if phase == "done"]
    return {*done} <= {*reported} and (allow_missing or len(done) == len(phases))


def phases_of(run: Storage, recipe: Recipe) -> dict[int, str]:
    """Return the phase of each replica by the files it left; no job may be working on it."""
    phases = dict.fromkeys(range(recipe.replicas), "stopped")
    failed = [replica for replica in phases if run.exists(ReplicaFiles(replica).failure)]
    done = finished_replicas(run, recipe.replicas)
    return phases | dict.fromkeys(failed, "failed") | dict.fromkeys(done, "done")
