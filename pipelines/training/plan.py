"""Plan of a job before it starts: replicas at once, steps, time and storage.

python pipelines/train_ensemble.py --recipe demo --run-dir runs/demo --dry-run
"""

import math
from dataclasses import dataclass, replace

from googlenet.evaluation.crops import view_groups, views_of_all
from pipelines.job.console import count, duration, size
from pipelines.run.directory import finished_replicas
from pipelines.run.predictions import BYTES_PER_NUMBER, bytes_per_image, sorted_policies
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training.checkpoints import CHECKPOINTS_KEPT
from pipelines.training.resources import Resources, check_that_one_fits, replicas_at_once
from pipelines.training.trial import Trial, is_little_work, run_trial

# The weights, their average and the momentum.
COPIES_IN_CHECKPOINT = 3


@dataclass(frozen=True)
class Counts:
    """Numbers of images in each split, and of classes."""

    train: int
    val: int
    classes: int


def placement_line(run: Storage, recipe: Recipe, resources: Resources) -> str:
    """Return how many replicas run at once on the connected cluster, and how many wait.

    Raises:
        UserError: the cluster can never hold a replica.
    """
    waiting = recipe.replicas - len(finished_replicas(run, recipe.replicas))
    if waiting:
        check_that_one_fits(recipe, resources)
    at_once = min(waiting, replicas_at_once(recipe, resources))
    workers = f"{recipe.workers_per_replica} workers, " if recipe.workers_per_replica > 1 else ""
    done = f", {recipe.replicas - waiting} are finished" if waiting < recipe.replicas else ""
    without_memory = min(waiting, replicas_at_once(recipe, replace(resources, memory_bytes=0)))
    limited = f" (the memory limits it, {without_memory} otherwise)" if at_once < without_memory else ""
    placed = f"{at_once} at once{limited}, {waiting - at_once} waiting{done}"
    return f"plan: {count(recipe.replicas, 'replica')} of {workers}{resources} each, {placed}"


def plan_lines(run: Storage, recipe: Recipe, resources: Resources, counts: Counts, num_predictors: int) -> list[str]:
    """Return the complete plan, with times from a short trial on the connected cluster.

    ``num_predictors`` predictors share the evaluation.

    Raises:
        UserError: the cluster can never hold a replica.
    """
    lines = [placement_line(run, recipe, resources)]
    trial = run_trial(recipe, resources, counts.classes, None)
    shards = math.ceil(counts.train / recipe.images_per_shard) + math.ceil(counts.val / recipe.images_per_shard)
    views = views_of_all(sorted_policies(recipe.policies), recipe.crop_px)
    passes = counts.val * len(views) * recipe.replicas
    evaluation = passes / (trial.passes_per_second * num_predictors)
    predictions = counts.val * bytes_per_image(
        recipe.replicas, len(recipe.policies), counts.classes, len(views), len(view_groups(views))
    )
    written = f"{size(_checkpoint_bytes(recipe, trial))} of checkpoints and weights, {size(predictions)} of predictions"
    images = f"{counts.train:,} train, {counts.val:,} val images of {count(counts.classes, 'class', 'classes')}"
    forward = f"{count(passes, 'forward pass', 'forward passes')}, about {duration(evaluation)} in fp32"
    return [
        *lines,
        f"data: {images}, {count(shards, 'shard')}",
        _training_line(run, recipe, resources, counts, trial),
        f"memory: {size(resources.memory_bytes)} reserved for a worker, {size(trial.memory_bytes)} taken by the trial",
        f"evaluation: {forward} with {count(num_predictors, 'predictor')}",
        f"storage: {written}, plus a copy of the images",
    ]


def _training_line(run: Storage, recipe: Recipe, resources: Resources, counts: Counts, trial: Trial) -> str:
    seconds_per_step = trial.seconds_per_step[0]
    waiting = recipe.replicas - len(finished_replicas(run, recipe.replicas))
    steps = math.ceil(counts.train / recipe.batch_size) * recipe.epochs
    rounds = math.ceil(waiting / max(1, min(waiting, replicas_at_once(recipe, resources)))) if waiting else 0
    validation = recipe.epochs * counts.val / trial.passes_per_second
    seconds = rounds * (steps * seconds_per_step + validation)
    # Compiling faster candidates takes minutes, too long for a plan.
    little = is_little_work(recipe, resources, counts.train, counts.classes)
    faster = "" if little else "; faster arithmetic is tried before long training"
    work = f"{count(steps, 'step')} of {count(recipe.batch_size, 'image')} for each replica"
    return (
        f"training: {work}, {seconds_per_step:.3f} s per step in fp32, about {duration(seconds)} in "
        f"{count(rounds, 'round')} (without reading images and start-up{faster})"
    )


def _checkpoint_bytes(recipe: Recipe, trial: Trial) -> int:
    copies = CHECKPOINTS_KEPT * COPIES_IN_CHECKPOINT + 1
    return recipe.replicas * trial.parameters * BYTES_PER_NUMBER * copies
