"""What follows a finished run in MLflow: the models, their versions, the champion."""

import threading
from dataclasses import dataclass
from typing import Literal

from pipelines.dataset import Manifest
from pipelines.predictions import EvaluatedEnsemble
from pipelines.recipe import Recipe
from pipelines.report import REPORT_JSON
from pipelines.run_directory import replica_number
from pipelines.storage import Storage
from pipelines.tracking.champion import ChampionRule
from pipelines.tracking.follower import reason_of

PUBLISH_SECONDS = 900.0
ModelsToLog = Literal["all", "ensemble", "none"]


@dataclass(frozen=True)
class Publication:
    """Where to, what, and which version shall be the champion."""

    tracking_uri: str
    models: ModelsToLog = "all"
    champion: ChampionRule = "better"


def publish(run: Storage, recipe: Recipe, manifest: Manifest, publication: Publication) -> str:
    """Log the models of a finished run; what came of it, in one line. No failure of MLflow goes further than that."""
    if publication.models == "none":
        return "model: not logged"
    told: list[str] = []

    def work() -> None:
        try:
            told.append(f"model: {_publish(run, recipe, manifest, publication)}")
        except Exception as error:  # noqa: BLE001  # the result is there without it
            told.append(f"warning: models not logged in MLflow at {publication.tracking_uri}: {reason_of(error)}")

    # A server that answers, but slowly, shall not hold a cluster for hours.
    thread = threading.Thread(target=work, name="models", daemon=True)
    thread.start()
    thread.join(PUBLISH_SECONDS)
    slow = f"warning: MLflow at {publication.tracking_uri} takes too long; replay_to_mlflow.py logs the models"
    return told[0] if told else slow


def _publish(run: Storage, recipe: Recipe, manifest: Manifest, publication: Publication) -> str:
    from pipelines.tracking.champion import choose_champion
    from pipelines.tracking.models import log_ensemble, log_replica
    from pipelines.tracking.store import RunsOf

    runs = RunsOf(publication.tracking_uri, run, recipe)
    if publication.models == "all":
        for name in EvaluatedEnsemble.from_dict(run.read_json(REPORT_JSON)["ensemble"]).replicas:
            log_replica(runs, run, replica_number(name))
    number = log_ensemble(runs, run, manifest)
    return choose_champion(runs, number, publication.champion)
