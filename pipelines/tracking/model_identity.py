"""Identity of the models of a run in MLflow: which of them are logged and registered already."""

import hashlib
import json
from typing import Any

from pipelines.run.budget import read_budget
from pipelines.run.calibration import read_calibration
from pipelines.run.predictions import EvaluatedEnsemble, digest_of_all
from pipelines.run.storage import Storage
from pipelines.tracking.runs import Experiment, MlflowRuns

WEIGHTS_TAG = "weights_digest"
# Digest of all that decides the answers of an ensemble; versions of earlier releases lack it.
ANSWERS_TAG = "answers_digest"
# Of numbers in the digest of the answers: what is fitted again on another processor differs in the last bits.
SIGNIFICANT_DIGITS = 5
NOT_THERE = "RESOURCE_DOES_NOT_EXIST"


def digest_of(ensemble: EvaluatedEnsemble) -> str:
    """Return a digest of all weights of an ensemble."""
    return digest_of_all(ensemble.weights_digests)


def digest_tags(run: Storage, ensemble: EvaluatedEnsemble) -> dict[str, str]:
    """Return the tags of a model by which a run's ensemble is known: of its weights, and of what it answers."""
    about = json.dumps(_rounded(description_of(run, ensemble)), sort_keys=True)
    return {WEIGHTS_TAG: digest_of(ensemble), ANSWERS_TAG: hashlib.sha256(about.encode()).hexdigest()}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return f"{value:.{SIGNIFICANT_DIGITS}g}" if isinstance(value, float) else value


def description_of(run: Storage, ensemble: EvaluatedEnsemble) -> dict[str, Any]:
    """Return what a model holds beside its weights: classes and crops, and what the run keeps for its answers."""
    about: dict[str, Any] = {
        "replicas": list(ensemble.replicas),
        "classes": list(ensemble.classes),
        "crop_px": ensemble.crop_px,
        "policies": list(ensemble.policies),
    }
    if known := read_calibration(run, ensemble.weights_digests):
        about["calibration"] = known.to_dict()
    if kept := read_budget(run, ensemble.weights_digests):
        about["budget"] = kept.to_dict()
    return about


def registered_version(runs: MlflowRuns, name: str, digests: dict[str, str]) -> Any:
    """Return the newest version of a registered model that is the run's ensemble; None if there is none."""
    same_weights = f"name = '{name}' and tags.{WEIGHTS_TAG} = '{digests[WEIGHTS_TAG]}'"
    versions = [known for known in runs.client.search_model_versions(same_weights) if known.run_id == runs.parent]
    same = [known for known in versions if _has_same_answers(known.tags, digests[ANSWERS_TAG])]
    return max(same, key=lambda known: int(known.version), default=None)


def logged_ensemble(runs: MlflowRuns, run: Storage, ensemble: EvaluatedEnsemble) -> str | None:
    """Return the id of an ensemble's model, if it is logged; a version in the registry does not keep it."""
    return logged_model(runs, runs.parent, *digest_tags(run, ensemble).values())


def logged_model(runs: Experiment, mlflow_run: str, digest: str, answers: str = "") -> str | None:
    """Return the id of an MLflow run's newest complete model of these weights; interrupted uploads do not count.

    ``answers`` is the digest of its answers, if that matters.
    """
    outputs = runs.client.get_run(mlflow_run).outputs.model_outputs
    models = [model for output in outputs if (model := _existing_model(runs, output.model_id))]
    same = [model for model in models if model.tags.get(WEIGHTS_TAG) == digest and str(model.status) == "READY"]
    same = [model for model in same if _has_same_answers(model.tags, answers)]
    return str(max(same, key=lambda model: model.creation_timestamp).model_id) if same else None


def _existing_model(runs: Experiment, model_id: str) -> Any:
    """Return a logged model; None if a user has deleted it, which the run that logged it still names."""
    from mlflow.exceptions import MlflowException

    try:
        return runs.client.get_logged_model(model_id)
    except MlflowException as error:
        if error.error_code != NOT_THERE:
            raise
        return None


def keep_digests(runs: MlflowRuns, digests: dict[str, str], known: Any, model_id: str | None) -> None:
    """Give a version and a logged model of an earlier release the digest of their answers.

    Without it they would be taken for every later evaluation with the same weights.
    """
    if known and ANSWERS_TAG not in known.tags:
        runs.client.set_model_version_tag(known.name, str(known.version), ANSWERS_TAG, digests[ANSWERS_TAG])
    if model_id and ANSWERS_TAG not in runs.client.get_logged_model(model_id).tags:
        runs.client.set_logged_model_tags(model_id, {ANSWERS_TAG: digests[ANSWERS_TAG]})


def _has_same_answers(tags: dict[str, str], answers: str) -> bool:
    return not answers or tags.get(ANSWERS_TAG, answers) == answers
