"""What a job is about to do, before it does it: how many replicas run at once, how many steps, how long, how much.

python pipelines/train_ensemble.py --recipe demo --run-dir runs/demo --dry-run
"""

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from googlenet.crops import view_groups, views_of_all
from pipelines.allocator import KEEP_FREED_MEMORY
from pipelines.checkpoints import CHECKPOINTS_KEPT
from pipelines.predictions import BYTES_PER_NUMBER, bytes_per_image, sorted_policies
from pipelines.progress import duration, size
from pipelines.recipes import Recipe
from pipelines.replica_scheduler import Resources, check_that_one_fits, window
from pipelines.run_directory import finished_replicas
from pipelines.sharded_prediction import IMAGES_PER_SHARD, Predictors
from pipelines.storage import Storage

TRIAL_STEPS = 3
TRIAL_VIEWS = 48
# Weights, their average and the momentum.
COPIES_IN_CHECKPOINT = 3


@dataclass(frozen=True)
class Counts:
    """Images of each split, and classes."""

    train: int
    val: int
    classes: int


@dataclass(frozen=True)
class Trial:
    """Measured by a task with a replica's resources, on random pixels.

    Attributes:
        seconds_per_step: of training, without reading images.
        passes_per_second: forward passes of an evaluation in fp32.
        parameters: of one network.
    """

    seconds_per_step: float
    passes_per_second: float
    parameters: int


def placement_line(run: Storage, recipe: Recipe, resources: Resources) -> str:
    """How many replicas run at once on the connected cluster, and what waits.

    Raises:
        UserError: not a single one can ever be placed.
    """
    check_that_one_fits(resources)
    waiting = recipe.replicas - len(finished_replicas(run, recipe.replicas))
    at_once = min(waiting, window(resources))
    gpus = f" and {resources.gpus_per_replica:g} GPUs" if resources.gpus_per_replica else ""
    done = f", {recipe.replicas - waiting} are finished" if waiting < recipe.replicas else ""
    return (
        f"plan: {recipe.replicas} replicas of {resources.cpus_per_replica:g} CPUs{gpus} each, "
        f"{at_once} at once, {waiting - at_once} wait{done}"
    )


def plan_lines(
    run: Storage, recipe: Recipe, resources: Resources, counts: Counts, gpus_per_predictor: float
) -> list[str]:
    """The whole plan, with times from a short trial on the connected cluster.

    Raises:
        UserError: not a single replica can ever be placed.
    """
    import ray

    lines = [placement_line(run, recipe, resources)]
    task = ray.remote(
        num_cpus=resources.cpus_per_replica,
        num_gpus=resources.gpus_per_replica,
        max_calls=1,
        runtime_env={"env_vars": KEEP_FREED_MEMORY},
    )(_try)
    trial: Trial = ray.get(task.remote(recipe, counts.classes))
    waiting = recipe.replicas - len(finished_replicas(run, recipe.replicas))
    steps = math.ceil(counts.train / recipe.batch_size) * recipe.epochs
    rounds = math.ceil(waiting / max(1, min(waiting, window(resources)))) if waiting else 0
    validation = recipe.epochs * counts.val / trial.passes_per_second
    training = rounds * (steps * trial.seconds_per_step + validation)
    views = views_of_all(sorted_policies(recipe.policies), recipe.crop_px)
    passes = counts.val * len(views) * recipe.replicas
    predictors = min(Predictors.that_fit(gpus_per_predictor).number, math.ceil(counts.val / IMAGES_PER_SHARD))
    evaluation = passes / (trial.passes_per_second * predictors)
    shards = math.ceil(counts.train / recipe.images_per_shard) + math.ceil(counts.val / recipe.images_per_shard)
    data = f"{counts.train} train, {counts.val} val images of {counts.classes} classes, {shards} shards"
    per_replica = (
        f"{steps:,} steps of {recipe.batch_size} images for each replica, {trial.seconds_per_step:.3f} s a step"
    )
    predictions = counts.val * bytes_per_image(
        recipe.replicas, len(recipe.policies), counts.classes, len(views), len(view_groups(views))
    )
    written = f"{size(_checkpoint_bytes(recipe, trial))} of checkpoints and weights, {size(predictions)} of predictions"
    return [
        *lines,
        f"data: {data}",
        f"training: {per_replica}, about {duration(training)} in {rounds} rounds (reading images and start-up apart)",
        f"evaluation: {passes:,} forward passes, about {duration(evaluation)} in fp32 with {predictors} predictors",
        f"storage: {written}, beside a copy of the images",
    ]


def _checkpoint_bytes(recipe: Recipe, trial: Trial) -> int:
    copies = CHECKPOINTS_KEPT * COPIES_IN_CHECKPOINT + 1
    return recipe.replicas * trial.parameters * BYTES_PER_NUMBER * copies


def _try(recipe: Recipe, classes: int) -> Trial:
    """Steps and forward passes on random pixels; runs on a worker."""
    import torch

    from googlenet.loop import LoopSettings, TrainState, train_step
    from googlenet.model import GoogLeNet
    from googlenet.optim import PolyakAverage, build_sgd
    from googlenet.preprocessing import SCRATCH_PREPROCESSING
    from googlenet.randomness import torch_generator
    from googlenet.records import Batch

    torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = GoogLeNet(classes, recipe.variant, recipe.aux_heads, recipe.width, lrn=recipe.lrn)
    model = model.to(device=device, memory_format=torch.channels_last)
    optimizer = build_sgd(
        model, momentum=recipe.momentum, weight_decay=recipe.weight_decay, decay_biases=recipe.decay_biases
    )
    state = TrainState(model, optimizer, PolyakAverage(model, 10))
    settings = LoopSettings(recipe.rate(), 1000, SCRATCH_PREPROCESSING, 0)
    generator = torch_generator(0, "sampling")

    def pixels(images: int) -> torch.Tensor:
        shape = (images, 3, recipe.crop_px, recipe.crop_px)
        drawn = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        return drawn.contiguous(memory_format=torch.channels_last)

    batch = Batch(pixels(recipe.batch_size), torch.zeros(recipe.batch_size, dtype=torch.int64))
    step = _median_seconds(lambda: train_step(state, batch, settings))
    model.eval()
    views = SCRATCH_PREPROCESSING(pixels(TRIAL_VIEWS).to(device))
    with torch.inference_mode():
        forward = _median_seconds(lambda: model(views).logits.sum().item())
    return Trial(step, TRIAL_VIEWS / forward, sum(parameter.numel() for parameter in model.parameters()))


def _median_seconds(work: Any) -> float:
    work()
    seconds: Sequence[float] = sorted(_seconds(work) for _ in range(TRIAL_STEPS))
    return seconds[len(seconds) // 2]


def _seconds(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
