"""Plan of the predictions: the time of the evaluation of a run's replicas, and of its soups."""

import math
from dataclasses import dataclass

from pipelines.job.worker_process import FEEDERS_PER_PREDICTOR
from pipelines.run.dataset import Counts
from pipelines.run.directory import PREDICTIONS, replica_name
from pipelines.run.predictions import IMAGES_PER_SHARD, read_ensemble
from pipelines.run.recipe import Recipe
from pipelines.run.soups import MOST_CHOICE_IMAGES, MOST_SOUPS
from pipelines.run.storage import Storage
from pipelines.training.network import relative_operations
from pipelines.training.resources import Resources
from pipelines.training.trial import Trial

# Processes that start one after the other: a trainer's controller and its workers, a preflight and the predictors.
STARTS_IN_A_ROW = 2


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


def prediction_times(
    trial: Trial, resources: Resources, images: int, views_per_image: float, predictors: int
) -> PredictionTimes:
    """Return the times of predicting so many images, from those of a trial."""
    on_gpu = resources.gpus_per_worker > 0
    one_network = images * views_per_image / (predictor_speed(trial, resources) * predictors)
    # On CPUs, a predictor and its feeders share one. Those beside a GPU may be fewer than the tasks that feed it.
    feeders = min(FEEDERS_PER_PREDICTOR["gpu"], max(1, int(resources.cpus_per_worker))) if on_gpu else 1
    scaling = images * trial.seconds_per_scaled_image / (feeders * predictors)
    return PredictionTimes(one_network, scaling, on_gpu, STARTS_IN_A_ROW * trial.start_seconds)


def predictor_speed(trial: Trial, resources: Resources) -> float:
    """Return the passes per second of a predictor, which has one thread, or the whole GPU.

    On a CPU, the trial has as many threads as a worker.
    """
    threads = 1 if resources.gpus_per_worker else max(1, int(resources.cpus_per_worker))
    return trial.passes_per_second / threads


def evaluation_seconds(
    run: Storage, recipe: Recipe, times: PredictionTimes, counts: Counts, *, are_trained: bool
) -> float:
    """Return the time of the evaluation of all replicas; what is predicted by trained ones is done."""
    seconds = times.of(sum(relative_operations(recipe, counts.classes)))
    if are_trained:
        seconds *= max(0.0, 1 - _predicted_shards(run, recipe) / math.ceil(counts.val / IMAGES_PER_SHARD))
    return seconds + times.starts if seconds else 0.0


def soup_seconds(
    recipe: Recipe, times: PredictionTimes, trial: Trial, resources: Resources, images: int
) -> tuple[float, float]:
    """Return the least and the longest time of the soups of ``images`` validation images.

    The uniform soup is one network. How many more the greedy ones are is known when they are chosen, which takes at
    least the replicas and one more of them after another, each with one crop and in one process.
    """
    chosen_on = min(images, MOST_CHOICE_IMAGES) * (2 * recipe.replicas - 1)
    choice = chosen_on * (1 / predictor_speed(trial, resources) + trial.seconds_per_crop)
    least, most = (choice + times.of(networks) + 2 * times.starts for networks in (1, MOST_SOUPS))
    return least, most


def _predicted_shards(run: Storage, recipe: Recipe) -> int:
    """Return how many shards are predicted by all replicas; an earlier evaluation may have had fewer of them."""
    predictions = run.below(PREDICTIONS)
    if not (names := predictions.files("")):
        return 0
    ensemble = read_ensemble(predictions, names[0])
    return len(names) if ensemble and ensemble.replicas == tuple(map(replica_name, range(recipe.replicas))) else 0
