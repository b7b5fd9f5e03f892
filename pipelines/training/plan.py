"""Plan of a job before it starts: replicas at once, steps, time and storage.

python pipelines/train_ensemble.py --recipe demo --run-dir runs/demo --dry-run
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from googlenet.evaluation.crops import num_views, view_groups, views_of_all
from pipelines.job.console import count, duration, size
from pipelines.run.directory import TARGETS, finished_replicas, read_recipe
from pipelines.run.predictions import BYTES_PER_NUMBER, bytes_per_image, sorted_policies
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training.checkpoints import CHECKPOINTS_KEPT
from pipelines.training.resources import Resources, check_that_one_fits, replicas_at_once, unused_gpus_line
from pipelines.training.trial import Trial, is_little_work, run_trial

# The weights, their average and the momentum.
COPIES_IN_CHECKPOINT = 3
# The averaged weights and the raw ones.
WEIGHTS_VALIDATED = 2
SAMPLES_ON_GPU = "the time to make its samples on the GPU, which is not tried"


@dataclass(frozen=True)
class Counts:
    """Numbers of images in each split, and of classes."""

    train: int
    val: int
    classes: int


def placement_lines(run: Storage, recipe: Recipe, resources: Resources) -> list[str]:
    """Return how many replicas run at once on the connected cluster and how many wait, and what GPUs stay unused.

    Raises:
        UserError: the cluster can never hold a replica.
    """
    waiting = recipe.replicas - len(finished_replicas(run, recipe.replicas))
    if waiting:
        check_that_one_fits(recipe, resources)
    at_once = min(waiting, replicas_at_once(recipe, resources))
    workers = f"{recipe.workers_per_replica} workers, " if recipe.workers_per_replica > 1 else ""
    without_memory = min(waiting, replicas_at_once(recipe, replace(resources, memory_bytes=0)))
    limited = f" (the memory limits it, {without_memory} otherwise)" if at_once < without_memory else ""
    if recipe.replicas == 1:
        line = f"plan: 1 replica of {workers}{resources}{'' if waiting else ', finished'}"
    else:
        numbers = {f"at once{limited}": at_once, "waiting": waiting - at_once, "finished": recipe.replicas - waiting}
        placed = ", ".join(f"{number} {name}" for name, number in numbers.items() if number)
        line = f"plan: {recipe.replicas} replicas of {workers}{resources} each, {placed}"
    unused = unused_gpus_line(recipe, resources) if waiting else ""
    return [line, unused] if unused else [line]


def plan_lines(
    run: Storage,
    recipe: Recipe,
    resources: Resources,
    counts: Counts,
    num_predictors: int,
    encoded: Sequence[bytes],
) -> list[str]:
    """Return the complete plan, with times from a short trial on the connected cluster.

    ``num_predictors`` predictors share the evaluation. ``encoded`` are some of the images, to time their loading.

    Raises:
        UserError: the cluster can never hold a replica.
    """
    lines = placement_lines(run, recipe, resources)
    trial = run_trial(recipe, resources, counts.classes, None, encoded)
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
        *_targets_line(run, recipe, counts, trial.passes_per_second * num_predictors),
        _training_line(run, recipe, resources, counts, trial),
        _validation_line(recipe, resources, counts, trial),
        f"memory: {size(resources.memory_bytes)} reserved for a worker, {size(trial.memory_bytes)} taken by the trial",
        f"evaluation: {forward} with {count(num_predictors, 'predictor')}",
        f"storage: {written}, plus a copy of the images",
    ]


def _targets_line(run: Storage, recipe: Recipe, counts: Counts, passes_per_second: float) -> list[str]:
    """Return what a teacher's answers cost, as if its networks were as large as the student's; nothing without one."""
    if not recipe.teacher:
        return []
    if run.exists(TARGETS):
        return ["targets: finished"]
    teacher = Storage.at(recipe.teacher)
    replicas = len(finished_replicas(teacher, read_recipe(teacher).replicas))
    passes = counts.train * num_views(recipe.teacher_policy) * replicas
    seconds = duration(passes / passes_per_second)
    return [f"targets: {count(passes, 'forward pass', 'forward passes')} of the teacher's networks, about {seconds}"]


def _training_line(run: Storage, recipe: Recipe, resources: Resources, counts: Counts, trial: Trial) -> str:
    seconds_per_step, loading = trial.seconds_per_step[0], _loading_seconds(recipe.batch_size, recipe, resources, trial)
    waiting = recipe.replicas - len(finished_replicas(run, recipe.replicas))
    if not waiting:
        return "training: finished"
    steps = math.ceil(counts.train / recipe.batch_size) * recipe.epochs
    rounds = math.ceil(waiting / max(1, min(waiting, replicas_at_once(recipe, resources))))
    validation = resources.validation.times(recipe.epochs) * _validation_seconds(recipe, resources, counts, trial)
    seconds = rounds * (steps * _together(seconds_per_step, loading, resources) + validation)
    # Compiling faster candidates takes minutes, too long for a plan.
    little = is_little_work(recipe, resources, counts.train, counts.classes)
    faster = "" if little else "; faster arithmetic is tried before long training"
    work = f"{count(steps, 'step')} of {count(recipe.batch_size, 'image')} for each replica"
    processes = resources.loader_processes
    by = f" in {count(processes, 'process', 'processes')}" if processes else ""
    load = f"{loading:.3f} s to load its images{by}" if not resources.gpu_augmentation else SAMPLES_ON_GPU
    starves = "; the GPU waits for them: add --cpus-per-worker" if processes and loading > seconds_per_step else ""
    return (
        f"training: {work}, {seconds_per_step:.3f} s per step in fp32 and {load}, about {duration(seconds)} in "
        f"{count(rounds, 'round')} (with validation, without reading from storage and start-up{faster}{starves})"
    )


def _validation_line(recipe: Recipe, resources: Resources, counts: Counts, trial: Trial) -> str:
    plan = resources.validation
    images, times = plan.number_of(counts.val), plan.times(recipe.epochs)
    some = f" of {counts.val:,}" if images < counts.val else ""
    seconds = times * _validation_seconds(recipe, resources, counts, trial)
    return (
        f"validation: {count(times, 'time')} on {images:,}{some} images, {duration(seconds)} of each replica's training"
    )


def _validation_seconds(recipe: Recipe, resources: Resources, counts: Counts, trial: Trial) -> float:
    """Return the time of one validation by the workers of a replica."""
    images = math.ceil(resources.validation.number_of(counts.val) / recipe.workers_per_replica)
    passes = WEIGHTS_VALIDATED * images / trial.passes_per_second
    return _together(passes, images * trial.seconds_per_crop / max(1, resources.loader_processes), resources)


def _loading_seconds(images: int, recipe: Recipe, resources: Resources, trial: Trial) -> float:
    """Return the time to load ``images`` training images, shared by the workers of a replica."""
    own = 0 if resources.gpu_augmentation else math.ceil(images / recipe.workers_per_replica)
    return own * trial.seconds_per_sample / max(1, resources.loader_processes)


def _together(computing: float, loading: float, resources: Resources) -> float:
    """Return the time of computing and loading: at the same time if there are processes that load."""
    return max(computing, loading) if resources.loader_processes else computing + loading


def _checkpoint_bytes(recipe: Recipe, trial: Trial) -> int:
    copies = CHECKPOINTS_KEPT * COPIES_IN_CHECKPOINT + 1
    return recipe.replicas * trial.parameters * BYTES_PER_NUMBER * copies
