"""Plan of the predictions: the time of a teacher's answers, of the evaluation of a run's replicas, and of its soups."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from pipelines.job.worker_process import FEEDERS_PER_PREDICTOR
from pipelines.run.dataset import Counts
from pipelines.run.directory import PREDICTIONS, replica_name
from pipelines.run.predictions import IMAGES_PER_SHARD, read_ensemble
from pipelines.run.recipe import Recipe
from pipelines.run.soups import MOST_CHOICE_IMAGES, MOST_SOUPS
from pipelines.run.storage import Storage
from pipelines.training.network import relative_operations
from pipelines.training.resources import Resources, cpus_beside_gpus
from pipelines.training.targets_plan import TargetsLeft
from pipelines.training.trial import Trial

# Processes that start one after the other: a trainer's controller and its workers, a preflight and the predictors.
STARTS_IN_A_ROW = 2


class PlannedPredictors(Protocol):
    """Predictors as the job will start them."""

    @property
    def num_gpus(self) -> float:
        """GPUs, or share of one, that each reserves."""

    @property
    def remark(self) -> str:
        """One line about a shortage; empty if there is none."""

    def at_work(self, images: int) -> int:
        """Return how many have work when so many images are predicted."""


# Returns the predictors that fit on the cluster, from the memory that one needs on a CPU ("cpu") and beside its GPU
# ("gpu").
PredictorsThatFit = Callable[[Mapping[str, int]], PlannedPredictors]


@dataclass(frozen=True)
class PredictionTimes:
    """Times of predicting all validation images, with all predictors.

    Attributes:
        one_network: seconds of the forward passes of one network.
        scaling: seconds to decode and scale the images, once for all networks.
        overlaps: whether both happen at the same time: beside a GPU, where other processes scale.
        starts: seconds until the processes have started.
    """

    one_network: float
    scaling: float
    overlaps: bool
    starts: float

    def of(self, networks: float) -> float:
        """Return the time of so many networks, without the start of their processes."""
        passes = networks * self.one_network
        return max(passes, self.scaling) if self.overlaps else passes + self.scaling


@dataclass(frozen=True)
class TriedPredictor:
    """A trial, and what a predictor reserves.

    Attributes:
        trial: the trial.
        resources: those of a worker, with which it ran.
        gpus: GPUs, or share of one, that a predictor reserves.
    """

    trial: Trial
    resources: Resources
    gpus: float

    @property
    def is_timed(self) -> bool:
        """Whether the trial had the kind of processor on which predictors compute."""
        return (self.resources.gpus_per_worker > 0) == (self.gpus > 0)

    @property
    def passes_per_second(self) -> float:
        """Forward passes per second of a predictor, which has one thread, or its share of a GPU.

        On a CPU, the trial has as many threads as a worker. A whole GPU may be faster than the share of one with which
        a trial ran, by how much is not known.
        """
        if not self.gpus:
            return self.trial.passes_per_second / max(1, int(self.resources.cpus_per_worker))
        return self.trial.passes_per_second * min(1.0, self.gpus / min(1.0, self.resources.gpus_per_worker))

    def times(self, images: int, views_per_image: float, predictors: int) -> PredictionTimes:
        """Return the times of predicting so many images."""
        one_network = images * views_per_image / (self.passes_per_second * predictors)
        # On CPUs, a predictor and its feeders share one. Those beside a GPU may be fewer than the tasks that feed it.
        cpus = max(1, int(self.resources.cpus_per_worker))
        feeders = min(FEEDERS_PER_PREDICTOR["gpu"], cpus) if self.gpus else 1
        scaling = images * self.trial.seconds_per_scaled_image / (feeders * predictors)
        return PredictionTimes(one_network, scaling, self.gpus > 0, STARTS_IN_A_ROW * self.trial.start_seconds)


def resources_of_a_predictor(gpus: float) -> Resources:
    """Return resources for a trial of predictions alone."""
    return Resources(cpus_beside_gpus(gpus) if gpus else 1.0, gpus)


def targets_seconds(left: TargetsLeft, student: Recipe, classes: int, tried: TriedPredictor, predictors: int) -> float:
    """Return the time of the teacher's answers that are left."""
    times = tried.times(left.images, left.passes_of(student, classes) / left.images, predictors)
    return times.of(1) + times.starts


def evaluation_seconds(
    run: Storage, recipe: Recipe, times: PredictionTimes, counts: Counts, *, are_trained: bool
) -> float:
    """Return the time of the evaluation of all replicas; what is predicted by trained ones is done."""
    seconds = times.of(sum(relative_operations(recipe, counts.classes)))
    if are_trained:
        seconds *= share_to_predict(run, recipe, counts.val)
    return seconds + times.starts if seconds else 0.0


def share_to_predict(run: Storage, recipe: Recipe, images: int) -> float:
    """Return which part of the shards of ``images`` validation images has no predictions of all replicas yet."""
    return max(0.0, 1 - _predicted_shards(run, recipe) / math.ceil(images / IMAGES_PER_SHARD))


def soup_seconds(recipe: Recipe, times: PredictionTimes, tried: TriedPredictor, images: int) -> tuple[float, float]:
    """Return the least and the longest time of the soups of ``images`` validation images.

    The uniform soup is one network. How many more the greedy soups are is known once they are chosen. Choosing them
    takes one crop of each image by n replicas and at least n - 1 averages of them, one after another in one process.
    """
    chosen_on = min(images, MOST_CHOICE_IMAGES) * (2 * recipe.replicas - 1)
    choice = chosen_on * (1 / tried.passes_per_second + tried.trial.seconds_per_crop)
    least, most = (choice + times.of(networks) + 2 * times.starts for networks in (1, MOST_SOUPS))
    return least, most


def _predicted_shards(run: Storage, recipe: Recipe) -> int:
    """Return how many shards are predicted by all replicas; an earlier evaluation may have had fewer of them."""
    predictions = run.below(PREDICTIONS)
    if not (names := predictions.files("")):
        return 0
    ensemble = read_ensemble(predictions, names[0])
    return len(names) if ensemble and ensemble.replicas == tuple(map(replica_name, range(recipe.replicas))) else 0
