"""Training of one replica: records in, weights and metrics out.

After any interruption, training resumes from the newest checkpoint and ends with the same result.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial

import torch
from torch import Tensor

from googlenet.images.records import Records
from googlenet.network.model import GoogLeNet
from googlenet.network.preprocessing import Preprocessing
from googlenet.network.weights import to_safetensors
from googlenet.training.augment_tensors import DecoderError, EncodedBatch, EncodedSamples, check_decoder, decoder_of
from googlenet.training.batches import SAMPLES, TrainingSamples, requests_of_epoch
from googlenet.training.data_parallel import synchronised_model
from googlenet.training.distillation import Distillation
from googlenet.training.epoch_order import EpochOrder
from googlenet.training.health import HeadMonitor, patience_steps
from googlenet.training.loader import Batch, Request, load_batches
from googlenet.training.loop import LoopSettings, TrainState, train_step
from googlenet.training.micro_batch import micro_batch_images
from googlenet.training.optim import PolyakAverage, build_sgd
from pipelines.errors import UserError
from pipelines.job.progress import warn
from pipelines.job.worker_process import use_own_cpus
from pipelines.run.dataset import open_records, read_manifest
from pipelines.run.directory import check_run_directory
from pipelines.run.json_lines import Line
from pipelines.run.recipe import Recipe
from pipelines.run.teacher import read_targets
from pipelines.training.advice import advice_for
from pipelines.training.checkpoints import CHECKPOINTS_KEPT, Checkpoints, EpochState
from pipelines.training.compilation import TrainedNetwork, step_graph
from pipelines.training.epoch_report import EpochReport
from pipelines.training.network import PREPROCESSING, apply_initial_weights, network_of
from pipelines.training.notice import notice_to
from pipelines.training.saving import Saving
from pipelines.training.scaled_weights import apply_scaled_weights, are_scaled
from pipelines.training.shard_cache import open_shards_of
from pipelines.training.sheet_writer import SheetWriter
from pipelines.training.task import ReplicaTask
from pipelines.training.validation import CROPS, CentreCrops, Validation

NO_CHECKPOINT = -1
OnEpoch = Callable[[Line], None]


def train_replica(task: ReplicaTask, on_epoch: OnEpoch | None = None) -> None:
    """Train ``task.replica`` from its newest checkpoint, or from the beginning, to its end.

    ``on_epoch`` gets the metrics of each epoch, in each of the replica's workers.

    Runs in a Ray Train worker, or in any other process.

    Raises:
        TrainingError: a loss or the gradient is not finite, or a head learns nothing and the recipe says to stop then.
        EndedByNoticeError: the replica had to end early, and has written a checkpoint.
    """
    use_own_cpus()
    with task.arithmetic.in_force(task.device):
        _train(task, on_epoch)


def _train(task: ReplicaTask, on_epoch: OnEpoch | None) -> None:
    check_run_directory(task.run)  # this node may see another folder under its path
    recipe, manifest = task.recipe, read_manifest(task.run)
    shards = open_shards_of(task.run, manifest, task.shard_cache_bytes)
    train, val = (open_records(task.run, manifest.splits[split], shards) for split in ("train", "val"))
    model, preprocessing = _initial_network(task, len(manifest.classes))
    settings = _settings(task, len(train), model, preprocessing)
    validation = Validation(task.validation, len(val), recipe.epochs, task.share)
    state = _initial_state(task, model, settings)
    monitor = _monitor(recipe, len(manifest.classes), settings.steps_per_epoch)
    folder = task.run.below(task.files.checkpoints)
    for own in (task.files.folder, task.files.step_log) if task.leads else ():  # left by a worker that was killed
        task.run.remove_partial_files(own)
    with Checkpoints(folder, CHECKPOINTS_KEPT, writes=task.leads) as checkpoints, notice_to(task) as notice:
        history, begun = _restore(checkpoints, state, monitor, task)
        network = TrainedNetwork(state, task)
        state.network_for, state.graph = network.for_batch, step_graph(state, task)
        targets = torch.from_numpy(read_targets(task.run, manifest)) if recipe.teacher else None
        sheet = SheetWriter(task, manifest.splits["val"], val, len(history))
        batches = _batches(task, state.step, len(history), (train, val), validation, targets)
        saving = Saving(task, checkpoints, history, notice)
        for epoch in range(len(history), recipe.epochs):
            report = EpochReport(task, epoch, settings.steps_per_epoch, _last_error(history), monitor, begun)
            _train_epoch(network, batches, settings, report, saving)
            history.append({**report.metrics(), **validation.errors(epoch, state, batches, settings)})
            begun = None
            check_run_directory(task.run)
            _write_metrics(task, history)
            sheet.write(epoch + 1, state, settings)
            if on_epoch:
                on_epoch(history[-1])
        checkpoints.wait()
    if not task.leads:
        return
    extra = {"classes": list(manifest.classes), "replica": task.replica, "crop_px": recipe.crop_px}
    weights = to_safetensors(state.model, state.average.weights, preprocessing, **extra)
    task.run.write(task.files.weights, weights)


def _train_epoch(
    network: TrainedNetwork, batches: Iterator[Batch], settings: LoopSettings, report: EpochReport, saving: Saving
) -> None:
    """Train the rest of an epoch, with checkpoints at intervals and one at its end, before the validation."""
    state, end = network.state, (report.epoch + 1) * settings.steps_per_epoch
    while state.step < end:
        started = time.monotonic()
        try:
            batch = next(batches)
        except Exception:  # a loader process is gone, and with it what it had sent
            saving.end_if_noticed(state, report)
            raise
        waited_seconds = time.monotonic() - started
        crop_px = batch.images.shape[-1]
        taken = network.step(batch.num_images, crop_px, partial(train_step, state, batch, settings))
        report.on_step(taken, waited_seconds)
        saving.after_step(state, report, ends_epoch=state.step == end)
    report.flush()


def _batches(
    task: ReplicaTask,
    step: int,
    first_epoch: int,
    records: tuple[Records, Records],
    validation: Validation,
    targets: Tensor | None,
) -> Iterator[Batch]:
    """Return all that is to be loaded after ``step`` steps, in order: the batches and the validation of each epoch.

    ``targets`` are the teacher's probabilities by the number of the training image.
    """
    recipe, (train, val) = task.recipe, records
    if task.gpu_augmentation:
        _check_decoder(task)
    kind = EncodedSamples if task.gpu_augmentation else TrainingSamples
    samples = kind(train, recipe.training_crops_px(), recipe.sampling(task.replica), task.sampling_seed)
    steps_per_epoch = -(-len(train) // recipe.batch_size)

    def requests() -> Iterator[Request]:
        for epoch in range(first_epoch, recipe.epochs):
            first_step = max(0, step - epoch * steps_per_epoch)
            order = EpochOrder(len(train), task.sampling_seed, epoch)
            yield from requests_of_epoch(order, recipe.batch_size, epoch, first_step, task.share)
            yield from validation.requests(epoch)

    loaded = load_batches(
        {SAMPLES: samples, CROPS: CentreCrops(val, recipe.crop_px)},
        requests(),
        loader_processes=task.loader_processes,
        pin_memory=task.device.startswith("cuda"),
    )
    device, tell = torch.device(task.device), cache(partial(warn, task.board, task.replica))
    batches = (batch.on(device, tell) if isinstance(batch, EncodedBatch) else batch for batch in loaded)
    return batches if targets is None else _with_targets(batches, requests(), targets)


def _check_decoder(task: ReplicaTask) -> None:
    try:
        check_decoder(decoder_of(torch.device(task.device)))
    except DecoderError as error:
        raise UserError(str(error)) from error


def _with_targets(batches: Iterator[Batch], requests: Iterator[Request], targets: Tensor) -> Iterator[Batch]:
    """Add the targets to the training batches here, so that no loader process needs a copy of them."""
    for batch, request in zip(batches, requests, strict=True):
        is_training = request.source == SAMPLES
        indices = [index for _, index in request.keys] if is_training else []
        yield replace(batch, targets=targets[indices]) if is_training else batch


def _last_error(history: list[Line]) -> float | None:
    """Return the error of the last validation."""
    return next((line["val_top1_error"] for line in reversed(history) if "val_top1_error" in line), None)


def _write_metrics(task: ReplicaTask, history: list[Line]) -> None:
    if task.leads:
        task.run.write_json_lines(task.files.metrics, history)


def _settings(task: ReplicaTask, num_images: int, model: GoogLeNet, preprocessing: Preprocessing) -> LoopSettings:
    recipe = task.recipe
    return LoopSettings(
        learning_rate=recipe.rate(),
        steps_per_epoch=-(-num_images // recipe.batch_size),
        preprocessing=preprocessing.on(torch.device(task.device)),
        seed=task.sampling_seed,
        label_smoothing=recipe.label_smoothing,
        max_gradient_norm=recipe.max_gradient_norm,
        precision=task.arithmetic.precision,
        share=task.share,
        distillation=Distillation(recipe.teacher_temperature, recipe.label_weight) if recipe.teacher else None,
        micro_batch=micro_batch_images(
            model, recipe.crop_px, task.share.workers, on_gpu=task.device.startswith("cuda")
        ),
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
    elif are_scaled(recipe):
        apply_scaled_weights(task.run, recipe, model, task.replica)
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
) -> tuple[list[Line], EpochState | None]:
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
