"""Time that the rest of a job takes, estimated from a short trial."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from googlenet.evaluation.crops import mean_distinct_views
from googlenet.images.decoding import read_size
from pipelines.run.dataset import Counts
from pipelines.run.directory import ReplicaFiles, finished_replicas
from pipelines.run.predictions import sorted_policies
from pipelines.run.recipe import Recipe
from pipelines.run.soups import soups_are_predicted
from pipelines.run.storage import Storage
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
from pipelines.training.resources import Resources, check_that_one_fits, nodes_used, replicas_at_once
from pipelines.training.targets_plan import TargetsLeft, targets_left
from pipelines.training.trial import Trial, run_trial

# The averaged weights and the raw ones.
WEIGHTS_VALIDATED = 2


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
    waiting, left = waiting_replicas(run, recipe), targets_left(run, recipe, counts.train, sizes_px)
    if waiting:
        check_that_one_fits(recipe, resources)
    # Before the trial, since it may refuse.
    planned = that_fit(ensemble_bytes(recipe, counts.classes))
    rest = Estimate(counts, planned.at_work(counts.val), nodes_used(recipe, resources), targets=left)
    with_soups = soup and recipe.replicas > 1 and (waiting or not soups_are_predicted(run, range(recipe.replicas)))
    if not (waiting or left or with_soups or share_to_predict(run, recipe, counts.val)):
        return rest
    # Once nothing is left to train, the nodes for training may have gone.
    tried = resources if waiting else resources_of_a_predictor(planned.num_gpus)
    at_once = places(waiting, recipe, resources) if waiting else 1
    workers = math.ceil((recipe.workers_per_replica * at_once if waiting else rest.num_predictors) / rest.nodes)
    steps_of_a_place = steps_of_a_replica(recipe, counts) * math.ceil(len(waiting) / at_once)
    trial = run_trial(recipe, tried, counts.classes, None, encoded, workers, steps_of_a_place)
    views = mean_distinct_views(sizes_px, recipe.crop_px, sorted_policies(recipe.policies))
    training = training_seconds(run, recipe, resources, counts, trial)
    rest = replace(rest, trial=trial, views_per_image=views, training_seconds=training, shortage=planned.remark)
    predictor = TriedPredictor(trial, tried, planned.num_gpus)
    return _with_predictions(
        rest, run, recipe, predictor, that_fit, are_trained=not waiting, with_soups=bool(with_soups)
    )


def _with_predictions(
    rest: Estimate,
    run: Storage,
    recipe: Recipe,
    tried: TriedPredictor,
    that_fit: PredictorsThatFit,
    *,
    are_trained: bool,
    with_soups: bool,
) -> Estimate:
    """Return an estimate with the times of the evaluation, of soups and of a teacher's answers, if they are known."""
    if not tried.is_timed:
        return replace(rest, untried=f"on {'GPUs' if tried.gpus else 'CPUs'}, which were not tried")
    counts, left = rest.counts, rest.targets
    times = tried.times(counts.val, rest.views_per_image, rest.num_predictors)
    rest = replace(rest, evaluation_seconds=evaluation_seconds(run, recipe, times, counts, are_trained=are_trained))
    if with_soups:
        least, most = soup_seconds(recipe, times, tried, counts.val)
        rest = replace(rest, soup_seconds=least, most_soup_seconds=most)
    if not (left and left.passes):
        return rest
    of_teacher = that_fit(left.memory_bytes(counts.classes)).at_work(left.images)
    return replace(rest, targets_seconds=targets_seconds(left, recipe, counts.classes, tried, of_teacher))


def training_seconds(run: Storage, recipe: Recipe, resources: Resources, counts: Counts, trial: Trial) -> float:
    """Return the time until all replicas are trained; what a replica has done by its newest checkpoint is done."""
    waiting, steps = waiting_replicas(run, recipe), steps_of_a_replica(recipe, counts)
    if not waiting:
        return 0.0
    loading = loading_seconds(recipe.batch_size, recipe, resources, trial)
    validation = resources.validation.times(recipe.epochs) * validation_seconds(recipe, resources, counts, trial)
    whole = steps * _together(trial.seconds_per_step[0], loading, resources) + validation
    relative, starts = relative_operations(recipe, counts.classes), STARTS_IN_A_ROW * trial.start_seconds
    slots = [0.0] * places(waiting, recipe, resources)
    for replica in waiting:  # as the scheduler does: the next one where a place is free first
        done = newest_step(run.below(ReplicaFiles(replica).checkpoints)) / steps
        slots[slots.index(min(slots))] += starts + whole * relative[replica] * (1 - done)
    return max(slots)


def validation_seconds(recipe: Recipe, resources: Resources, counts: Counts, trial: Trial) -> float:
    """Return the time of one validation by the workers of a replica."""
    images = math.ceil(resources.validation.number_of(counts.val) / recipe.workers_per_replica)
    passes = WEIGHTS_VALIDATED * images / trial.passes_per_second
    return _together(passes, images * trial.seconds_per_crop / max(1, resources.loader_processes), resources)


def loading_seconds(images: int, recipe: Recipe, resources: Resources, trial: Trial) -> float:
    """Return the time to load ``images`` training images, shared by the workers of a replica."""
    own = 0 if resources.gpu_augmentation else math.ceil(images / recipe.workers_per_replica)
    return own * trial.seconds_per_sample / max(1, resources.loader_processes)


def _together(computing: float, loading: float, resources: Resources) -> float:
    """Return the time of computing and loading: at the same time if there are processes that load."""
    return max(computing, loading) if resources.loader_processes else computing + loading


def waiting_replicas(run: Storage, recipe: Recipe) -> list[int]:
    """Return the replicas that are left to train."""
    finished = finished_replicas(run, recipe.replicas)
    return [replica for replica in range(recipe.replicas) if replica not in finished]


def places(waiting: Sequence[int], recipe: Recipe, resources: Resources) -> int:
    """Return how many of the waiting replicas run at once, at least one."""
    return max(1, min(len(waiting), replicas_at_once(recipe, resources)))


def steps_of_a_replica(recipe: Recipe, counts: Counts) -> int:
    """Return the steps of its whole training."""
    return math.ceil(counts.train / recipe.batch_size) * recipe.epochs
