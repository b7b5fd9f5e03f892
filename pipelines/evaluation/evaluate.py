"""Evaluation of an ensemble whose weights and images are in run directories: preflight, then predictions."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from googlenet.evaluation.crops import Policy
from googlenet.evaluation.kept_budget import EarlyStop
from googlenet.network.arithmetic import FP32
from pipelines.errors import UserError
from pipelines.evaluation.cost import cost_line
from pipelines.evaluation.predictors import AS_MANY_AS_FIT, PredictorOptions, Predictors
from pipelines.evaluation.preflight import Preflight, preflight
from pipelines.evaluation.sharded_prediction import PredictionTask, images_of, missing_shards, predict
from pipelines.job.console import count, say
from pipelines.job.process_memory import prediction_bytes
from pipelines.run.dataset import Manifest, check_shards, read_manifest
from pipelines.run.directory import ReplicaFiles, finished_replicas, replica_name
from pipelines.run.first_start import keep_start
from pipelines.run.predictions import EvaluatedEnsemble, sorted_policies
from pipelines.run.recipe import MOST_REPLICAS, PrecisionChoice, Recipe, ensembles_line
from pipelines.run.storage import Storage
from pipelines.run.weights import read_replica


@dataclass(frozen=True)
class Settings:
    """Settings of an evaluation.

    Attributes:
        policies: crop policies.
        crop_px: side of the crops.
        precision: precision of the networks, or ``auto``.
        predictors: predictors that are asked for.
        early_stop: when to stop adding views and replicas; None for never.
        keep_views: whether to keep probabilities of single views, to choose views and thresholds on.
        images: run directory of the images; None for the one that is written.
        split: which of its images to predict.
        start: that of the command, for the report; None in a training job, which has a log.
    """

    policies: Sequence[Policy]
    crop_px: int
    precision: PrecisionChoice = "auto"
    predictors: PredictorOptions = AS_MANY_AS_FIT
    keep_views: bool = True
    early_stop: EarlyStop | None = None
    images: Storage | None = None
    split: str = "val"
    start: Mapping[str, Any] | None = None


def evaluate_run(
    run: Storage,
    recipe: Recipe,
    predictors: PredictorOptions = AS_MANY_AS_FIT,
    start: Mapping[str, Any] | None = None,
) -> EvaluatedEnsemble:
    """Evaluate the finished replicas of a training run on its validation images.

    Raises:
        UserError: see :func:`replicas_to_evaluate` and :func:`evaluate`.
    """
    settings = Settings(recipe.policies, recipe.crop_px, recipe.precision, predictors, start=start)
    return evaluate(run, run, replicas_to_evaluate(run, recipe), read_manifest(run), settings)


def replicas_to_evaluate(trained: Storage, recipe: Recipe, *, are_judged: bool = True) -> list[int]:
    """Return the finished replicas of a training run, which are judged unless they only have to answer.

    Raises:
        UserError: no replica is finished, or more are than a report can judge.
    """
    if not (replicas := finished_replicas(trained, recipe.replicas)):
        raise UserError(f"no replica of {trained} is finished; run train_ensemble.py on it again")
    if are_judged and len(replicas) > MOST_REPLICAS:
        raise UserError(
            f"{trained} has {len(replicas)} finished replicas, too many for a report: {ensembles_line(len(replicas))}; "
            "they still answer for images without labels (--data FOLDER --unlabelled)"
        )
    return replicas


def evaluate(
    run: Storage, trained: Storage, replicas: Sequence[int], manifest: Manifest, settings: Settings
) -> EvaluatedEnsemble:
    """Predict those images that have no predictions in ``run`` yet; return the evaluated ensemble.

    ``manifest`` describes the images, by default the validation images of ``run`` itself. ``replicas`` are the numbers
    of replicas whose weights are in ``trained``. Needs a connection to a Ray cluster.

    Raises:
        UserError: a replica's weights are damaged, or a shard differs from what was prepared.
    """
    say(f"checking the images, and reading the weights of {count(len(replicas), 'replica')} ...")
    check_shards(settings.images or run, manifest)
    weights = tuple(ReplicaFiles(replica).weights for replica in replicas)
    digests, memory_bytes = _digests_and_memory(trained, weights, settings.crop_px)
    ensemble = EvaluatedEnsemble(
        replicas=tuple(replica_name(replica) for replica in replicas),
        weights_digests=digests,
        policies=sorted_policies(settings.policies),
        crop_px=settings.crop_px,
        classes=manifest.classes,
        dataset_digest=manifest.digest,
        arithmetic=FP32,
    )
    split = manifest.splits[settings.split]
    task = PredictionTask(run, trained, weights, ensemble, split, settings.keep_views, images=settings.images)
    predictors = Predictors.that_fit(settings.predictors, memory_bytes)
    predictors.tell_shortage()
    if stop := settings.early_stop:
        task = replace(task, ensemble=replace(ensemble, budget=stop.key), early_stop=stop)
    checked = preflight(task, settings.precision, predictors)
    task = replace(task, ensemble=replace(task.ensemble, arithmetic=checked.arithmetic))
    images = split.images
    missing = missing_shards(task, images)
    if missing:
        done = images - images_of(missing, images)
        say(cost_line(checked, task.ensemble, images, done, min(predictors.number, len(missing))))
        if settings.early_stop:
            say("this is what all passes would cost; answers that stop early need fewer")
        if not done:
            keep_start(run, settings.start)
    predict(task, missing, images, replace(predictors, seconds_per_image=_seconds_per_image(checked, task)))
    return task.ensemble


def _seconds_per_image(checked: Preflight, task: PredictionTask) -> float:
    """Return the time of a predictor for an image; 0 where it is unknown, as for answers that stop early."""
    if checked.views_per_image is None or task.early_stop:
        return 0.0
    return checked.views_per_image * len(task.weights) / checked.passes_per_second


def _digests_and_memory(
    trained: Storage, weights: Sequence[str], crop_px: int
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return the SHA-256 of each file of weights, and the memory of a predictor of all of them."""
    files = [read_replica(trained, name) for name in weights]
    models = [stored.build().model for _, stored in files]
    return tuple(hashlib.sha256(content).hexdigest() for content, _ in files), prediction_bytes(models, crop_px)
