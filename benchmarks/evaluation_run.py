"""A run directory with images and untrained replicas, for benchmarks of the evaluation."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from googlenet import GoogLeNet
from googlenet.evaluation.crops import Policy
from googlenet.network.arithmetic import Arithmetic
from googlenet.network.choices import Variant
from googlenet.network.initialisation import initialise
from googlenet.network.preprocessing import CAFFE_PREPROCESSING
from googlenet.network.weights import to_safetensors
from googlenet.randomness import torch_generator
from pipelines.data.prepare import prepare_for_evaluation
from pipelines.data.sources import unlabelled_images
from pipelines.evaluation.predictors import IMAGES_PER_SHARD, Predictors
from pipelines.evaluation.sharded_prediction import PredictionTask, missing_shards, predict
from pipelines.run.directory import ReplicaFiles, replica_name
from pipelines.run.predictions import EvaluatedEnsemble, read_cost
from pipelines.run.storage import Storage


def untrained_replica(width: float, classes: int, variant: Variant) -> GoogLeNet:
    """Return a network with initial weights."""
    network = GoogLeNet(classes, variant, aux_heads=False, width=width)
    initialise(network, "xavier", torch_generator(0, "initial_weights"))
    return network


def make_task(
    folder: Path, images: Sequence[bytes], network: GoogLeNet, crop_px: int, arithmetic: Arithmetic,
    policies: tuple[Policy, ...] = (1, 10, 144),
) -> PredictionTask:  # fmt: skip
    """Write images and one replica to a new run directory below ``folder``. Needs a connection to a Ray cluster."""
    photos = folder / "photos"
    photos.mkdir(parents=True)
    for number, data in enumerate(images):
        (photos / f"{number:06d}.jpg").write_bytes(data)
    run = Storage.at(str(folder / "run"))
    classes = tuple(f"class_{label}" for label in range(network.num_classes))
    manifest = prepare_for_evaluation(run, str(photos), unlabelled_images(str(photos), classes), "stop")
    weights = ReplicaFiles(0).weights
    run.write(weights, to_safetensors(network, network.state_dict(), CAFFE_PREPROCESSING))
    ensemble = EvaluatedEnsemble((replica_name(0),), ("",), policies, crop_px, classes, manifest.digest, arithmetic)
    return PredictionTask(run, run, (weights,), ensemble, manifest.splits["val"])


@dataclass(frozen=True)
class Stage:
    """Time spent by an evaluation.

    Attributes:
        seconds: total.
        steady_seconds: from the start of the first shard to the last file, without start-up.
        seconds_per_image: while all predictors are busy, including pauses between shards. The first quarter of the
            shards is left out, because it starts with cold caches.
        busy_seconds: time spent predicting, summed over the predictors.
        forward_passes: computed; equal views count once.
    """

    seconds: float
    steady_seconds: float
    seconds_per_image: float
    busy_seconds: float
    forward_passes: int


def predict_all(task: PredictionTask, images: int, predictors: Predictors) -> Stage:
    """Delete existing predictions, and predict all images."""
    for name in task.predictions.files(""):
        task.predictions.delete(name)
    started = time.time()
    predict(task, missing_shards(task, images), images, predictors)
    seconds = time.time() - started
    files = task.predictions.files("")
    written = {name: Path(task.predictions.path(name)).stat().st_mtime for name in files}
    costs = {name: read_cost(task.predictions, name) for name in files}
    work = [(written[name] - costs[name].seconds, written[name]) for name in files]
    return Stage(
        seconds,
        max(written.values()) - min(start for start, _ in work),
        seconds_per_shard(work, predictors.number) / IMAGES_PER_SHARD,
        sum(cost.seconds for cost in costs.values()),
        sum(cost.forward_passes for cost in costs.values()),
    )


def seconds_per_shard(work: Sequence[tuple[float, float]], predictors: int) -> float:
    """Return the time per shard, from the first to the last moment when ``predictors`` shards are in progress.

    ``work`` holds start and end of each shard. A shard partly within that time counts in proportion; the first
    quarter of the shards is left out.
    """
    turns = sorted([(start, 1) for start, _ in work] + [(end, -1) for _, end in work])
    at_once = list(accumulate(turn for _, turn in turns))
    busiest = min(predictors, max(at_once))
    full = [number for number, shards in enumerate(at_once) if shards >= busiest]
    warm = sorted(end for _, end in work)[len(work) // 4]
    first, last = max(warm, turns[full[0]][0]), turns[full[-1] + 1][0]
    shards = sum(max(0.0, min(end, last) - max(start, first)) / (end - start) for start, end in work)
    return (last - first) / shards
