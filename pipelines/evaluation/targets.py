"""Targets of a student: its teacher's averaged probabilities of the training images, computed like an evaluation.

Shards of predictions are kept until the one file is written, so that a killed stage loses those in flight only.
"""

from collections.abc import Sequence
from dataclasses import replace
from statistics import mean
from typing import Any

import numpy as np

from pipelines.evaluation.evaluate import Settings, evaluate, replicas_to_evaluate
from pipelines.evaluation.predictors import AS_MANY_AS_FIT, PredictorOptions
from pipelines.job.console import count, say
from pipelines.run.dataset import Manifest, image_ids, read_manifest
from pipelines.run.directory import (
    PREDICTIONS,
    REPORT_JSON,
    TARGETS,
    TEACHER,
    TEACHER_JSON,
    read_recipe,
    read_report,
    replica_number,
    run_id,
)
from pipelines.run.predictions import EvaluatedEnsemble, read_predictions
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.run.teacher import write_targets

TRAINING_IMAGES = "train"


def make_targets(run: Storage, recipe: Recipe, predictors: PredictorOptions = AS_MANY_AS_FIT) -> None:
    """Write the targets of ``run``, and what its report says of the teacher, unless that is done.

    Needs a connection to a Ray cluster, and the prepared training images in ``run``.

    Raises:
        UserError: a replica's weights are damaged, or a shard differs from what was prepared.
    """
    if not recipe.teacher:
        return
    run.remove_partial_files(TEACHER)
    if not run.exists(TARGETS):
        teacher = Storage.at(recipe.teacher)
        manifest = read_manifest(run)
        ensemble = predict_training_images(run, recipe, predictors)
        keep_teacher(run, recipe, teacher, ensemble)
        average(run, manifest, ensemble)
    predictions = run.below(TEACHER).below(PREDICTIONS)
    predictions.delete_all(predictions.files(""))


def predict_training_images(run: Storage, recipe: Recipe, predictors: PredictorOptions) -> EvaluatedEnsemble:
    """Predict those training images of ``run`` that have no predictions of the teacher yet."""
    teacher = Storage.at(recipe.teacher)
    taught, manifest = read_recipe(teacher), read_manifest(run)
    replicas = replicas_to_evaluate(teacher, taught, are_judged=False)
    images = count(manifest.splits[TRAINING_IMAGES].images, "training image")
    say(f"teacher: {count(len(replicas), 'replica')} of {teacher} answer {images}")
    settings = Settings((recipe.teacher_policy,), taught.crop_px, taught.precision, predictors, keep_views=False)
    settings = replace(settings, images=run, split=TRAINING_IMAGES)
    return evaluate(run.below(TEACHER), teacher, replicas, manifest, settings)


def average(run: Storage, manifest: Manifest, ensemble: EvaluatedEnsemble) -> None:
    """Write the averages of the predictions over the replicas, in the order of the training images."""
    say("averaging the teacher's answers ...")
    predictions = run.below(TEACHER).below(PREDICTIONS)
    ids: list[str] = []
    averages = []
    for rows in read_predictions(predictions, predictions.files(""), ensemble):
        ids += rows.image_ids
        # (N, K, 1, C), of a single policy
        averages.append(rows.probabilities[:, :, 0].mean(axis=1, dtype=np.float64).astype(np.float32))
    if ids != image_ids(run, manifest.splits[TRAINING_IMAGES]):
        raise ValueError(f"{predictions} lacks training images, or has them in another order")
    write_targets(run, ids, np.concatenate(averages), ensemble.to_dict())


def keep_teacher(run: Storage, recipe: Recipe, teacher: Storage, ensemble: EvaluatedEnsemble) -> None:
    """Keep who taught ``run``, and the errors by cost of the teacher, for the report of the student.

    ``pass_cost`` is what a pass of the teacher costs in passes of the student, which may be smaller.
    """
    report = read_report(teacher) if teacher.exists(REPORT_JSON) else {}
    about: dict[str, Any] = {"run_dir": str(teacher), "id": run_id(teacher), "ensemble": ensemble.to_dict()}
    classes, numbers = len(ensemble.classes), [replica_number(name) for name in ensemble.replicas]
    theirs = _multiply_adds(read_recipe(teacher), numbers, classes)
    about["pass_cost"] = theirs / _multiply_adds(recipe, range(recipe.replicas), classes)
    run.write_json(TEACHER_JSON, {**about, "spending": report.get("spending", [])})


def _multiply_adds(recipe: Recipe, replicas: Sequence[int], classes: int) -> float:
    """Return the mean multiply-adds of a pass of some replicas, of which one may be wider."""
    from googlenet.network.complexity import multiply_adds

    widths = [recipe.replica_width(replica) for replica in replicas]
    return mean(multiply_adds(recipe.variant, width, classes, recipe.crop_px) for width in widths)
