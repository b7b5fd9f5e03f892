"""Publication of a finished run in MLflow: the models, their versions, the champion."""

import threading
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, Literal

from pipelines.run.dataset import Manifest
from pipelines.run.directory import REPORT_JSON, replica_number
from pipelines.run.predictions import EvaluatedEnsemble
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.tracking.follower import reason_of
from pipelines.tracking.models import ERRORS, MODEL, VAL_DIGEST_TAG, log_ensemble, log_replica
from pipelines.tracking.store import MlflowRuns

ChampionRule = Literal["better", "always", "never"]
CHAMPION = "champion"

PUBLISH_SECONDS = 900.0
ModelsToLog = Literal["all", "ensemble", "none"]


@dataclass(frozen=True)
class PublishSettings:
    """Store or server, models to log, and rule for the champion."""

    tracking_uri: str
    models: ModelsToLog = "all"
    champion: ChampionRule = "better"


def publish(run: Storage, recipe: Recipe, manifest: Manifest, publishing: PublishSettings) -> str:
    """Log the models of a finished run; return the outcome in one line. Failures of MLflow are not raised."""
    if publishing.models == "none":
        return "model: not logged"
    done: Future[str] = Future()

    def work() -> None:
        try:
            done.set_result(_publish(run, recipe, manifest, publishing))
        except BaseException as error:  # noqa: BLE001  # also SystemExit, or the waiting would last to its end
            done.set_exception(error)

    # A daemon thread, which executors do not offer: a slow server must not hold a cluster for hours.
    threading.Thread(target=work, name="models", daemon=True).start()
    if not wait([done], PUBLISH_SECONDS).done:
        return f"warning: MLflow at {publishing.tracking_uri} is too slow; log the models with replay_to_mlflow.py"
    try:
        return f"model: {done.result()}"
    except Exception as error:  # noqa: BLE001
        return f"warning: models not logged in MLflow at {publishing.tracking_uri}: {reason_of(error)}"


def _publish(run: Storage, recipe: Recipe, manifest: Manifest, publishing: PublishSettings) -> str:
    runs = MlflowRuns(publishing.tracking_uri, run, recipe)
    if publishing.models == "all":
        for name in EvaluatedEnsemble.from_dict(run.read_json(REPORT_JSON)["ensemble"]).replicas:
            log_replica(runs, run, replica_number(name))
    number = log_ensemble(runs, run, manifest)
    return choose_champion(runs, number, publishing.champion)


def choose_champion(runs: MlflowRuns, number: str, rule: ChampionRule) -> str:
    """Give version ``number`` the alias ``champion`` if ``rule`` says so; return what was done, and why."""
    new = runs.client.get_model_version(MODEL, number)
    aliases = runs.client.get_registered_model(MODEL).aliases
    champion = runs.client.get_model_version(MODEL, aliases[CHAMPION]) if CHAMPION in aliases else None
    wins, why = _verdict(new, champion, rule)
    if wins:
        runs.client.set_registered_model_alias(MODEL, CHAMPION, number)
    return why


def _verdict(new: Any, champion: Any, rule: ChampionRule) -> tuple[bool, str]:
    name = f"{MODEL} version {new.version}"
    if champion is None:
        return rule != "never", f"{name}, the first" + (" champion" if rule != "never" else "")
    old = f"version {champion.version}"
    if champion.version == new.version:
        return False, f"{name}, the champion"
    if rule == "always":
        return True, f"{name}, the new champion after {old}"
    if rule == "never" or new.tags[VAL_DIGEST_TAG] != champion.tags.get(VAL_DIGEST_TAG):
        why = "" if rule == "never" else ", which was evaluated on other images"
        return False, f"{name}; {old}{why}, stays champion"
    ours, theirs = (tuple(float(version.tags[error]) for error in ERRORS) for version in (new, champion))
    errors = f"top-5 / top-1 error {ours[0]:.2f} / {ours[1]:.2f} %, {old} {theirs[0]:.2f} / {theirs[1]:.2f} %"
    return ours < theirs, f"{name}{', the new champion' if ours < theirs else f'; {old} stays champion'} ({errors})"
