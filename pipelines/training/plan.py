"""Plan of a job before it starts: replicas at once, steps, time and storage.

python pipelines/train_ensemble.py --recipe demo --run-dir runs/demo --dry-run
"""

import math
from dataclasses import replace

from pipelines.job.console import count, duration, size
from pipelines.run.dataset import Counts
from pipelines.run.directory import finished_replicas
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training.arithmetic_choice import is_little_work
from pipelines.training.resources import Resources, check_that_one_fits, replicas_at_once, target_bytes
from pipelines.training.storage_plan import storage_line
from pipelines.training.time_estimate import (
    Estimate,
    loading_seconds,
    places,
    steps_of_a_replica,
    training_seconds,
    validation_seconds,
    waiting_replicas,
)
from pipelines.training.trial import Trial, advice_on_memory
from pipelines.training.unused_gpus import unused_gpus_line

SAMPLES_ON_GPU = "the time to make its samples on the GPU (not measured)"


def placement_lines(run: Storage, recipe: Recipe, resources: Resources) -> list[str]:
    """Return how many replicas run at once on the connected cluster and how many wait, and what GPUs stay unused.

    Raises:
        UserError: the cluster can never hold a replica.
    """
    waiting = recipe.replicas - len(finished_replicas(run, recipe.replicas))
    if waiting:
        check_that_one_fits(recipe, resources)
    at_once = min(waiting, replicas_at_once(recipe, resources)) if waiting else 0
    workers = f"{recipe.workers_per_replica} workers, " if recipe.workers_per_replica > 1 else ""
    without_memory = min(waiting, replicas_at_once(recipe, replace(resources, memory_bytes=0))) if waiting else 0
    limited = f" (limited by memory, {without_memory} otherwise)" if at_once < without_memory else ""
    if recipe.replicas == 1:
        line = f"plan: 1 replica of {workers}{resources}{'' if waiting else ', finished'}"
    else:
        numbers = {f"at once{limited}": at_once, "waiting": waiting - at_once, "finished": recipe.replicas - waiting}
        placed = ", ".join(f"{number} {name}" for name, number in numbers.items() if number)
        line = f"plan: {recipe.replicas} replicas of {workers}{resources} each, {placed}"
    unused = unused_gpus_line(recipe, resources, waiting) if waiting else ""
    return [line, unused] if unused else [line]


def plan_lines(run: Storage, recipe: Recipe, resources: Resources, estimated: Estimate) -> list[str]:
    """Return the complete plan.

    Raises:
        UserError: the cluster can never hold a replica.
    """
    counts, trial = estimated.counts, estimated.trial
    shards = math.ceil(counts.train / recipe.images_per_shard) + math.ceil(counts.val / recipe.images_per_shard)
    images = f"{counts.train:,} train, {count(counts.val, 'val image')} of {count(counts.classes, 'class', 'classes')}"
    lines = [*placement_lines(run, recipe, resources), f"data: {images}, {count(shards, 'shard')}"]
    lines += _targets_line(recipe, estimated)
    if not trial:
        return [*lines, "training: finished", "evaluation: finished"]
    return [
        *lines,
        *_training_lines(run, recipe, resources, counts, trial),
        _evaluation_line(recipe, estimated),
        *([f"predictors: {estimated.shortage}"] if estimated.shortage else []),
        *_soup_line(estimated),
        storage_line(recipe, counts, trial.parameters, estimated.targets),
    ]


def _targets_line(recipe: Recipe, estimated: Estimate) -> list[str]:
    """Return what is left of a teacher's answers; nothing without one."""
    if not recipe.teacher:
        return []
    if not (estimated.targets and estimated.targets.passes):
        return ["targets: finished"]
    answers = count(estimated.targets.passes, "forward pass", "forward passes")
    time = estimated.untried or f"about {duration(estimated.targets_seconds)}"
    return [f"targets: {answers} of the teacher, {time}"]


def _evaluation_line(recipe: Recipe, estimated: Estimate) -> str:
    passes = round(estimated.counts.val * estimated.views_per_image * recipe.replicas)
    forward, by = count(passes, "forward pass", "forward passes"), count(estimated.num_predictors, "predictor")
    if estimated.untried:
        return f"evaluation: {forward} with {by} {estimated.untried}: no estimate of the time"
    return f"evaluation: {forward}, about {duration(estimated.evaluation_seconds)} in fp32 with {by}"


def _soup_line(estimated: Estimate) -> list[str]:
    """Return what soups cost; nothing without any that are left."""
    if not estimated.soup_seconds:
        return []
    least, most = duration(estimated.soup_seconds), duration(estimated.most_soup_seconds)
    several = "if all greedy soups differ"
    return [f"soups: about {least} to choose them and predict the uniform one, up to {most} {several}"]


def _training_lines(run: Storage, recipe: Recipe, resources: Resources, counts: Counts, trial: Trial) -> list[str]:
    if not waiting_replicas(run, recipe):
        return ["training: finished"]
    reserved, taken = size(resources.memory_bytes), size(trial.memory_bytes)
    advice = advice_on_memory(trial, resources, target_bytes(recipe, counts.classes, counts.train))
    return [
        _training_line(run, recipe, resources, counts, trial),
        _validation_line(recipe, resources, counts, trial),
        f"memory: {reserved} reserved for a worker, {taken} taken by the trial{f'; {advice}' if advice else ''}",
    ]


def _training_line(run: Storage, recipe: Recipe, resources: Resources, counts: Counts, trial: Trial) -> str:
    seconds_per_step, loading = trial.seconds_per_step[0], loading_seconds(recipe.batch_size, recipe, resources, trial)
    waiting, steps = waiting_replicas(run, recipe), steps_of_a_replica(recipe, counts)
    rounds = math.ceil(len(waiting) / places(waiting, recipe, resources))
    seconds = training_seconds(run, recipe, resources, counts, trial)
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
        f"{count(rounds, 'round')} (with validation, without reading from storage{faster}{starves})"
    )


def _validation_line(recipe: Recipe, resources: Resources, counts: Counts, trial: Trial) -> str:
    plan = resources.validation
    images, times = plan.number_of(counts.val), plan.times(recipe.epochs)
    of_all = f"{images:,} of " if images < counts.val else ""
    each = f"{of_all}{count(counts.val, 'image')}"
    seconds = times * validation_seconds(recipe, resources, counts, trial)
    return f"validation: {count(times, 'time')} on {each}, {duration(seconds)} of each replica's training"
