"""Training of one replica: records in, weights and metrics out.

After any interruption, training resumes from the newest checkpoint and ends with the same result.
"""

import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from googlenet.evaluation.crops import distinct_views
from googlenet.evaluation.views import cut_views
from googlenet.images.decoding import decode_rgb
from googlenet.images.records import Records
from googlenet.images.scaled_image import scale_image
from googlenet.network.model import GoogLeNet
from googlenet.network.preprocessing import CAFFE_PREPROCESSING, SCRATCH_PREPROCESSING, Preprocessing
from googlenet.network.weights import to_safetensors
from googlenet.training.batches import Batch, TrainingSamples, training_batches
from googlenet.training.data_parallel import synchronised_model
from googlenet.training.health import HeadMonitor, patience_steps
from googlenet.training.loop import LoopSettings, TrainState, count_errors, train_step
from googlenet.training.optim import PolyakAverage, build_sgd
from pipelines.job.progress import warn
from pipelines.job.worker_process import use_own_cpus
from pipelines.run.dataset import open_records, read_manifest
from pipelines.run.directory import check_run_directory
from pipelines.run.recipe import Recipe
from pipelines.training.advice import advice_for
from pipelines.training.checkpoints import CHECKPOINTS_KEPT, Checkpoint, Checkpoints
from pipelines.training.compilation import TrainedNetwork
from pipelines.training.epoch_report import EpochReport
from pipelines.training.network import apply_initial_weights, network_of
from pipelines.training.shard_cache import open_shards_of
from pipelines.training.task import ReplicaTask

VALIDATION_BATCH_SIZE = 64
NO_CHECKPOINT = -1
PREPROCESSING: dict[str, Preprocessing] = {"caffe": CAFFE_PREPROCESSING, "scratch": SCRATCH_PREPROCESSING}


def train_replica(task: ReplicaTask) -> None:
    """Train ``task.replica`` from its newest checkpoint, or from the beginning, to its end.

    Runs in a Ray Train worker, or in any other process.

    Raises:
        TrainingError: a loss or the gradient is not finite, or a head learns nothing and the recipe says to stop then.
    """
    use_own_cpus()
    recipe, manifest = task.recipe, read_manifest(task.run)
    shards = open_shards_of(task.run, manifest, task.shard_cache_bytes)
    train, val = (open_records(task.run, manifest.splits[split], shards) for split in ("train", "val"))
    model, preprocessing = _initial_network(task, len(manifest.classes))
    settings = _settings(task, len(train), preprocessing)
    state = _initial_state(task, model, settings)
    monitor = _monitor(recipe, len(manifest.classes), settings.steps_per_epoch)
    folder = task.run.below(task.files.checkpoints)
    with Checkpoints(folder, CHECKPOINTS_KEPT, writes=task.leads) as checkpoints:
        history, begun = _restore(checkpoints, state, monitor, task)
        network = TrainedNetwork(state, task)
        state.network_for = network.for_batch
        for epoch in range(len(history), recipe.epochs):
            report = EpochReport(
                task, epoch, settings.steps_per_epoch, history[-1] if history else None, monitor, begun
            )
            _train_epoch(task, network, train, settings, report, checkpoints, history)
            history.append({**report.metrics(), **validation_errors(state, val, recipe.crop_px, settings)})
            begun = None
            check_run_directory(task.run)
            _write_metrics(task, history)
        checkpoints.wait()
    if not task.leads:
        return
    extra = {"classes": list(manifest.classes), "replica": task.replica, "crop_px": recipe.crop_px}
    weights = to_safetensors(state.model, state.average.weights, settings.preprocessing, **extra)
    task.run.write(task.files.weights, weights)


def _train_epoch(
    task: ReplicaTask,
    network: TrainedNetwork,
    records: Records,
    settings: LoopSettings,
    report: EpochReport,
    checkpoints: Checkpoints,
    history: list[dict[str, Any]],
) -> None:
    """Train the rest of an epoch, with checkpoints at intervals and one at its end, before the validation."""
    epoch, recipe, state = report.epoch, task.recipe, network.state
    samples = TrainingSamples(records, recipe.crop_px, recipe.sampling(task.replica), task.sampling_seed, epoch)
    batches = training_batches(
        samples,
        recipe.batch_size,
        first_step=state.step - epoch * settings.steps_per_epoch,
        loader_processes=task.loader_processes,
        share=task.share,
        pin_memory=next(state.model.parameters()).is_cuda,
    )
    saved = time.monotonic()
    for batch in batches:
        report.on_step(network.step(batch.num_images, partial(train_step, state, batch, settings)))
        is_last = state.step % settings.steps_per_epoch == 0
        if is_last or time.monotonic() - saved >= task.checkpoint_seconds:
            saved = time.monotonic()
            check_run_directory(task.run)
            checkpoints.save(_checkpoint(state, history, report))
    report.flush()


def _write_metrics(task: ReplicaTask, history: list[dict[str, Any]]) -> None:
    if task.leads:
        task.run.write_json_lines(task.files.metrics, history)


def validation_errors(state: TrainState, records: Records, crop_px: int, settings: LoopSettings) -> dict[str, float]:
    """Return the top-1 errors of one centre crop in percent, with the averaged weights and the raw ones.

    Each worker counts its share of the images.
    """
    own = settings.share.of(range(len(records)))
    groups = (own[start : start + VALIDATION_BATCH_SIZE] for start in range(0, len(own), VALIDATION_BATCH_SIZE))
    batches = (_centre_crops(records, group, crop_px) for group in groups)
    candidates: dict[str, dict[str, torch.Tensor]] = {
        "val_top1_error": state.average.weights,
        "val_top1_error_raw_weights": {},
    }
    wrong, seen = count_errors(state.model, list(candidates.values()), batches, settings.preprocessing)
    counts = torch.tensor([*wrong, seen], device=next(state.model.parameters()).device)
    *wrong, seen = settings.share.all_reduce_sum(counts).tolist()
    return {name: 100 * count / seen for name, count in zip(candidates, wrong, strict=True)}


def _centre_crops(records: Records, indices: Sequence[int], crop_px: int) -> Batch:
    views, labels = [], []
    for index in indices:
        record = records[index]
        pixels = decode_rgb(record.image)
        boxes = distinct_views(pixels.shape[1], pixels.shape[0], crop_px, policies=(1,)).boxes
        views.append(cut_views(scale_image(pixels, [boxes[0].scale_px]), boxes, crop_px))
        labels.append(record.label)
    return Batch.whole(torch.cat(views), torch.tensor(labels))


def _settings(task: ReplicaTask, num_images: int, preprocessing: Preprocessing) -> LoopSettings:
    recipe = task.recipe
    return LoopSettings(
        learning_rate=recipe.rate(),
        steps_per_epoch=-(-num_images // recipe.batch_size),
        preprocessing=preprocessing,
        seed=task.sampling_seed,
        label_smoothing=recipe.label_smoothing,
        max_gradient_norm=recipe.max_gradient_norm,
        precision=task.arithmetic.precision,
        share=task.share,
    )


def _monitor(recipe: Recipe, num_classes: int, steps_per_epoch: int) -> HeadMonitor:
    patience = patience_steps(recipe.dead_head_epochs, steps_per_epoch)
    return HeadMonitor(num_classes, patience, math.ceil(recipe.warmup_epochs * steps_per_epoch), advice_for(recipe))


def _initial_network(task: ReplicaTask, classes: int) -> tuple[GoogLeNet, Preprocessing]:
    """Return the network before its first step, and the preprocessing that its weights need."""
    recipe = task.recipe
    model = network_of(recipe, classes, task.replica)
    preprocessing = PREPROCESSING[recipe.preprocessing]
    if recipe.init_weights:
        preprocessing = apply_initial_weights(task.run, recipe, model)
    model = model.to(task.device).to(memory_format=torch.channels_last)
    return synchronised_model(model, task.share), preprocessing


def _initial_state(task: ReplicaTask, model: GoogLeNet, settings: LoopSettings) -> TrainState:
    recipe = task.recipe
    optimizer = build_sgd(
        model, momentum=recipe.momentum, weight_decay=recipe.weight_decay, decay_biases=recipe.decay_biases
    )
    horizon_steps = max(1.0, recipe.polyak_epochs * settings.steps_per_epoch)
    return TrainState(model, optimizer, PolyakAverage(model, horizon_steps))


def _restore(
    checkpoints: Checkpoints, state: TrainState, monitor: HeadMonitor, task: ReplicaTask
) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """Load the newest checkpoint, if any; return the metrics of validated epochs and the state of the next epoch."""

    def on_passed_over(problem: str) -> None:
        warn(task.board, task.replica, f"{problem}; resuming from what was saved earlier")

    # The first worker decides where all resume: others may see an older listing of the folder.
    checkpoint = checkpoints.newest(on_passed_over) if task.leads else None
    step = task.share.broadcast(checkpoint.step if checkpoint else NO_CHECKPOINT)
    if step == NO_CHECKPOINT:
        return [], None
    checkpoint = checkpoint or checkpoints.at(step)
    state.load_tensors(checkpoint.tensors, checkpoint.step)
    monitor.load(checkpoint.progress["monitor"])
    return checkpoint.progress["history"], checkpoint.progress["epoch"]


def _checkpoint(state: TrainState, history: list[dict[str, Any]], report: EpochReport) -> Checkpoint:
    progress = {"history": list(history), "monitor": report.monitor.state(), "epoch": report.state()}
    return Checkpoint(state.step, state.tensors(), progress)
