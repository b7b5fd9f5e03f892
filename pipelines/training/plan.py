"""Plan of a job before it starts: replicas at once, steps, time and storage.

python pipelines/train_ensemble.py --recipe demo --run-dir runs/demo --dry-run
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from googlenet.evaluation.crops import mean_distinct_views
from googlenet.images.decoding import read_size
from pipelines.job.console import count, duration, size
from pipelines.run.dataset import Counts
from pipelines.run.directory import ReplicaFiles, finished_replicas
from pipelines.run.predictions import sorted_policies
from pipelines.run.recipe import Recipe
from pipelines.run.soups import soups_are_predicted
from pipelines.run.storage import Storage
from pipelines.training.arithmetic_choice import is_little_work
from pipelines.training.checkpoints import newest_step
from pipelines.training.network import ensemble_bytes, relative_operations
from pipelines.training.prediction_plan import (
    STARTS_IN_A_ROW,
    PredictorsThatFit,
    TriedPredictor,
    evaluation_seconds,
    resources_of_a_predictor,
    share_to_predict,
    soup_seconds,
    targets_seconds,
)
from pipelines.training.resources import Resources, check_that_one_fits, nodes_used, replicas_at_once, target_bytes
from pipelines.training.storage_plan import storage_line
from pipelines.training.targets_plan import TargetsLeft, targets_left
from pipelines.training.trial import Trial, advice_on_memory, run_trial
from pipelines.training.unused_gpus import unused_gpus_line

# The averaged weights and the raw ones.
WEIGHTS_VALIDATED = 2
SAMPLES_ON_GPU = "the time to make its samples on the GPU, which is not tried"


@dataclass(frozen=True)
class Estimate:
    """Time that the rest of a job takes, the nodes that it uses, and what that was estimated from.

    Attributes:
        counts: numbers of images.
        num_predictors: predictors that share the evaluation.
        nodes: nodes that the job uses.
        trial: a short trial, in fp32; None if there is nothing left to do.
        views_per_image: distinct views of an image, on average.
        targets: what is left of a student's targets; None without a teacher, or if they are there.
        targets_seconds: their time.
        training_seconds: time until all replicas are trained.
        evaluation_seconds: time of the evaluation.
        soup_seconds: least time of its soups.
        most_soup_seconds: their time if each greedy one is a network of its own.
        untried: on which processors predictors compute, if the trial had others; the times of targets, evaluation and
            soups are 0 then.
        shortage: why fewer predictors than usual fit; empty if they do not.
    """

    counts: Counts
    num_predictors: int
    nodes: int
    trial: Trial | None = None
    views_per_image: float = 0.0
    targets: TargetsLeft | None = None
    targets_seconds: float = 0.0
    training_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    soup_seconds: float = 0.0
    most_soup_seconds: float = 0.0
    untried: str = ""
    shortage: str = ""

    @property
    def seconds(self) -> float:
        """Time of targets, training, evaluation and soups, with the start of their processes; without preparation."""
        return self.targets_seconds + self.training_seconds + self.evaluation_seconds + self.soup_seconds


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
    limited = f" (the memory limits it, {without_memory} otherwise)" if at_once < without_memory else ""
    if recipe.replicas == 1:
        line = f"plan: 1 replica of {workers}{resources}{'' if waiting else ', finished'}"
    else:
        numbers = {f"at once{limited}": at_once, "waiting": waiting - at_once, "finished": recipe.replicas - waiting}
        placed = ", ".join(f"{number} {name}" for name, number in numbers.items() if number)
        line = f"plan: {recipe.replicas} replicas of {workers}{resources} each, {placed}"
    unused = unused_gpus_line(recipe, resources, waiting) if waiting else ""
    return [line, unused] if unused else [line]


def estimate(
    run: Storage,
    recipe: Recipe,
    resources: Resources,
    counts: Counts,
    that_fit: PredictorsThatFit,
    encoded: Sequence[bytes],
    *,
    soup: bool,
) -> Estimate:
    """Return what the rest of the job takes, with ``soup`` also soups, from a short trial on the connected cluster.

    ``encoded`` are some of the images, to time their loading and to see how many of their views are distinct.

    Raises:
        UserError: the cluster can never hold a replica, so that the trial would wait in vain.
        NodesMissingError: no node for the trial has joined in time.
    """
    sizes_px = [read_size(data)[:2] for data in encoded]
    waiting, left = _waiting(run, recipe), targets_left(run, recipe, counts.train, sizes_px)
    if waiting:
        check_that_one_fits(recipe, resources)
    # Before the trial, since it may refuse.
    planned = that_fit(ensemble_bytes(recipe, counts.classes))
    predictors = planned.at_work(counts.val)
    rest = Estimate(counts, predictors, nodes_used(recipe, resources), targets=left)
    with_soups = soup and recipe.replicas > 1 and (waiting or not soups_are_predicted(run, range(recipe.replicas)))
    if not (waiting or left or with_soups or share_to_predict(run, recipe, counts.val)):
        return rest
    # Once nothing is left to train, the nodes for training may have gone.
    tried = resources if waiting else resources_of_a_predictor(planned.num_gpus)
    at_once = _at_once(waiting, recipe, resources) if waiting else 1
    workers = math.ceil((recipe.workers_per_replica * at_once if waiting else predictors) / rest.nodes)
    steps_of_a_place = _steps(recipe, counts) * math.ceil(len(waiting) / at_once)
    trial = run_trial(recipe, tried, counts.classes, None, encoded, workers, steps_of_a_place)
    views = mean_distinct_views(sizes_px, recipe.crop_px, sorted_policies(recipe.policies))
    predictor = TriedPredictor(trial, tried, planned.num_gpus)
    training = _training_seconds(run, recipe, resources, counts, trial)
    rest = replace(rest, trial=trial, views_per_image=views, training_seconds=training, shortage=planned.remark)
    if not predictor.is_timed:
        return replace(rest, untried=f"on {'GPUs' if planned.num_gpus else 'CPUs'}, which were not tried")
    times = predictor.times(counts.val, views, predictors)
    rest = replace(rest, evaluation_seconds=evaluation_seconds(run, recipe, times, counts, are_trained=not waiting))
    if with_soups:
        least, most = soup_seconds(recipe, times, predictor, counts.val)
        rest = replace(rest, soup_seconds=least, most_soup_seconds=most)
    if not (left and left.passes):
        return rest
    of_teacher = that_fit(left.memory_bytes(counts.classes)).at_work(left.images)
    return replace(rest, targets_seconds=targets_seconds(left, recipe, counts.classes, predictor, of_teacher))


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
        return f"evaluation: {forward} with {by} {estimated.untried}: no time is estimated for what predictors do"
    return f"evaluation: {forward}, about {duration(estimated.evaluation_seconds)} in fp32 with {by}"


def _soup_line(estimated: Estimate) -> list[str]:
    """Return what soups cost; nothing without any that are left."""
    if not estimated.soup_seconds:
        return []
    least, most = duration(estimated.soup_seconds), duration(estimated.most_soup_seconds)
    several = "if each greedy one is a network of its own"
    return [f"soups: about {least} for the choice and the uniform one, up to {most} {several}"]


def _training_lines(run: Storage, recipe: Recipe, resources: Resources, counts: Counts, trial: Trial) -> list[str]:
    if not _waiting(run, recipe):
        return ["training: finished"]
    reserved, taken = size(resources.memory_bytes), size(trial.memory_bytes)
    advice = advice_on_memory(trial, resources, target_bytes(recipe, counts.classes, counts.train))
    return [
        _training_line(run, recipe, resources, counts, trial),
        _validation_line(recipe, resources, counts, trial),
        f"memory: {reserved} reserved for a worker, {taken} taken by the trial{f'; {advice}' if advice else ''}",
    ]


def _training_line(run: Storage, recipe: Recipe, resources: Resources, counts: Counts, trial: Trial) -> str:
    seconds_per_step, loading = trial.seconds_per_step[0], _loading_seconds(recipe.batch_size, recipe, resources, trial)
    waiting, steps = _waiting(run, recipe), _steps(recipe, counts)
    rounds = math.ceil(len(waiting) / _at_once(waiting, recipe, resources))
    seconds = _training_seconds(run, recipe, resources, counts, trial)
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


def _training_seconds(run: Storage, recipe: Recipe, resources: Resources, counts: Counts, trial: Trial) -> float:
    """Return the time until all replicas are trained; what a replica has done by its newest checkpoint is done."""
    waiting, steps = _waiting(run, recipe), _steps(recipe, counts)
    if not waiting:
        return 0.0
    loading = _loading_seconds(recipe.batch_size, recipe, resources, trial)
    validation = resources.validation.times(recipe.epochs) * _validation_seconds(recipe, resources, counts, trial)
    whole = steps * _together(trial.seconds_per_step[0], loading, resources) + validation
    relative, starts = relative_operations(recipe, counts.classes), STARTS_IN_A_ROW * trial.start_seconds
    slots = [0.0] * _at_once(waiting, recipe, resources)
    for replica in waiting:  # as the scheduler does: the next one where a place is free first
        done = newest_step(run.below(ReplicaFiles(replica).checkpoints)) / steps
        slots[slots.index(min(slots))] += starts + whole * relative[replica] * (1 - done)
    return max(slots)


def _waiting(run: Storage, recipe: Recipe) -> list[int]:
    finished = finished_replicas(run, recipe.replicas)
    return [replica for replica in range(recipe.replicas) if replica not in finished]


def _at_once(waiting: Sequence[int], recipe: Recipe, resources: Resources) -> int:
    return max(1, min(len(waiting), replicas_at_once(recipe, resources)))


def _steps(recipe: Recipe, counts: Counts) -> int:
    return math.ceil(counts.train / recipe.batch_size) * recipe.epochs


def _validation_line(recipe: Recipe, resources: Resources, counts: Counts, trial: Trial) -> str:
    plan = resources.validation
    images, times = plan.number_of(counts.val), plan.times(recipe.epochs)
    of_all = f"{images:,} of " if images < counts.val else ""
    each = f"{of_all}{count(counts.val, 'image')}"
    seconds = times * _validation_seconds(recipe, resources, counts, trial)
    return f"validation: {count(times, 'time')} on {each}, {duration(seconds)} of each replica's training"


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
