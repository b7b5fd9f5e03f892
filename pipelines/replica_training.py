"""Training of one replica inside a Ray Train worker: records in, weights and metrics out, a checkpoint each epoch."""

import json
import math
import os
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import ray.train.torch
import safetensors.torch
import torch
from torch import Tensor

from googlenet.crops import distinct_views
from googlenet.health import HeadMonitor, TrainingError
from googlenet.images import decode_rgb
from googlenet.initialisation import initialise
from googlenet.loop import LoopSettings, StepResult, TrainState, count_errors, train_epoch
from googlenet.model import GoogLeNet
from googlenet.optim import PolyakAverage, build_sgd
from googlenet.preprocessing import CAFFE_PREPROCESSING, SCRATCH_PREPROCESSING, Preprocessing
from googlenet.randomness import torch_generator
from googlenet.records import Batch, Records, TrainingSamples, epoch_order, training_batches
from googlenet.views import cut_views, scale_image
from googlenet.weights import to_safetensors
from pipelines.dataset import Manifest, open_records, read_manifest
from pipelines.initial_weights import apply_initial_weights
from pipelines.progress import ReplicaStatus, post
from pipelines.recipes import Recipe
from pipelines.run_directory import ReplicaFiles
from pipelines.storage import Storage

POST_SECONDS = 1.0
VALIDATION_BATCH_SIZE = 64
CHECKPOINT_TENSORS = "state.safetensors"
CHECKPOINT_PROGRESS = "progress.json"
PREPROCESSING: dict[str, Preprocessing] = {"caffe": CAFFE_PREPROCESSING, "scratch": SCRATCH_PREPROCESSING}


@dataclass(frozen=True)
class ReplicaTask:
    """Which replica to train, from what, into where. ``board`` is the handle of a ProgressBoard, or None."""

    run: Storage
    recipe: Recipe
    replica: int
    board: Any = None

    @property
    def sampling_seed(self) -> int:
        """Seed of everything that tells this replica from the others."""
        return self.recipe.sampling_seed + self.replica

    @property
    def files(self) -> ReplicaFiles:
        """Names of this replica's files."""
        return ReplicaFiles(self.replica)


def train_replica(task: ReplicaTask) -> None:
    """Train ``task.replica`` from its last checkpoint, or from the beginning, to its end.

    Runs in a Ray Train worker. Whatever interrupts it, the next call goes on after the last whole epoch, with the same
    result as if nothing had happened.
    """
    _use_own_cpus()
    recipe, manifest = task.recipe, read_manifest(task.run)
    train, val = (open_records(task.run, manifest.splits[split]) for split in ("train", "val"))
    settings = _settings(task, len(train))
    state, settings = _initial_state(task, manifest, settings)
    monitor = HeadMonitor(len(manifest.classes), math.ceil(recipe.dead_head_epochs * settings.steps_per_epoch))
    history = _restore(state, monitor)
    for epoch in range(len(history), recipe.epochs):
        reporter = _EpochReporter(task, epoch, settings.steps_per_epoch, history[-1] if history else None, monitor)
        samples = TrainingSamples(train, recipe.crop_px, recipe.sampling(task.replica), task.sampling_seed, epoch)
        order = epoch_order(len(train), task.sampling_seed, epoch)
        train_epoch(state, training_batches(samples, order, recipe.batch_size), settings, reporter.on_step)
        validation = validation_error(state.model, state.average.weights, val, recipe.crop_px, settings.preprocessing)
        history.append({**reporter.metrics(), "val_top1_error": validation})
        _save_checkpoint(state, history, monitor)
        _write_metrics(task, history)
    _write_metrics(task, history)  # once more, for a replica that died between its last checkpoint and its metrics
    extra = {"classes": list(manifest.classes), "replica": task.replica, "crop_px": recipe.crop_px}
    weights = to_safetensors(state.model, state.average.weights, settings.preprocessing, **extra)
    task.run.write(task.files.weights, weights)


def _write_metrics(task: ReplicaTask, history: list[dict[str, Any]]) -> None:
    task.run.write(task.files.metrics, "".join(json.dumps(line) + "\n" for line in history).encode())


def validation_error(
    model: GoogLeNet, weights: dict[str, Tensor], records: Records, crop_px: int, preprocessing: Preprocessing
) -> float:
    """Top-1 error of one centre crop in percent."""
    starts = range(0, len(records), VALIDATION_BATCH_SIZE)
    batches = (_centre_crops(records, start, crop_px) for start in starts)
    wrong, seen = count_errors(model, weights, batches, preprocessing)
    return 100 * wrong / seen


def _centre_crops(records: Records, start: int, crop_px: int) -> Batch:
    views, labels = [], []
    for index in range(start, min(start + VALIDATION_BATCH_SIZE, len(records))):
        record = records[index]
        pixels = decode_rgb(record.image)
        boxes = distinct_views(pixels.shape[1], pixels.shape[0], crop_px, policies=(1,)).boxes
        views.append(cut_views(scale_image(pixels, [boxes[0].scale_px]), boxes, crop_px))
        labels.append(record.label)
    return Batch(torch.cat(views), torch.tensor(labels))


def _use_own_cpus() -> None:
    """As many threads as CPUs were reserved, so that replicas on one node do not fight."""
    torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
    cv2.setNumThreads(0)


def _settings(task: ReplicaTask, num_images: int) -> LoopSettings:
    recipe = task.recipe
    return LoopSettings(
        learning_rate=recipe.rate(),
        steps_per_epoch=-(-num_images // recipe.batch_size),
        preprocessing=PREPROCESSING[recipe.preprocessing],
        seed=task.sampling_seed,
        label_smoothing=recipe.label_smoothing,
        max_gradient_norm=recipe.max_gradient_norm,
    )


def _initial_state(task: ReplicaTask, manifest: Manifest, settings: LoopSettings) -> tuple[TrainState, LoopSettings]:
    """The replica before its first step, and the settings with the preprocessing that its weights need."""
    recipe = task.recipe
    model = GoogLeNet(
        len(manifest.classes),
        recipe.variant,
        recipe.aux_heads,
        recipe.replica_width(task.replica),
        lrn=recipe.lrn,
        dropout=(recipe.dropout, recipe.aux_dropout),
    )
    generator = torch_generator(recipe.replica_weights_seed(task.replica), "initial_weights")
    initialise(model, recipe.initialisation, generator)
    if recipe.init_weights:
        settings = replace(settings, preprocessing=apply_initial_weights(task.run, recipe, model))
    model = model.to(ray.train.torch.get_device()).to(memory_format=torch.channels_last)
    optimizer = build_sgd(
        model, momentum=recipe.momentum, weight_decay=recipe.weight_decay, decay_biases=recipe.decay_biases
    )
    horizon_steps = max(1.0, recipe.polyak_epochs * settings.steps_per_epoch)
    return TrainState(model, optimizer, PolyakAverage(model, horizon_steps)), settings


def _restore(state: TrainState, monitor: HeadMonitor) -> list[dict[str, Any]]:
    """Load the last checkpoint, if any, into ``state`` and ``monitor``; the metrics of the epochs before it."""
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return []
    with checkpoint.as_directory() as folder:
        tensors = safetensors.torch.load_file(Path(folder) / CHECKPOINT_TENSORS)
        progress = json.loads((Path(folder) / CHECKPOINT_PROGRESS).read_text())
    state.load_tensors(tensors, progress["step"])
    monitor.load(progress["monitor"])
    history: list[dict[str, Any]] = progress["history"]
    return history


def _save_checkpoint(state: TrainState, history: list[dict[str, Any]], monitor: HeadMonitor) -> None:
    """Hand a checkpoint to Ray Train, which stores it in the run directory before it returns."""
    tensors = {name: tensor.contiguous() for name, tensor in state.tensors().items()}
    with tempfile.TemporaryDirectory() as folder:
        safetensors.torch.save_file(tensors, Path(folder) / CHECKPOINT_TENSORS)
        progress = {"step": state.step, "history": history, "monitor": monitor.state()}
        (Path(folder) / CHECKPOINT_PROGRESS).write_text(json.dumps(progress))
        ray.train.report({"epoch": len(history)}, checkpoint=ray.train.Checkpoint.from_directory(folder))


@dataclass
class _EpochReporter:
    """Adds up an epoch's steps, and tells the board about them once a second."""

    task: ReplicaTask
    epoch: int
    steps: int
    last_epoch: dict[str, Any] | None
    monitor: HeadMonitor
    started: float = field(default_factory=time.monotonic)
    posted: float = 0.0
    images: int = 0
    learning_rate: float = 0.0
    step: int = 0
    loss_sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def on_step(self, result: StepResult) -> None:
        self.monitor.observe(result)
        if self.monitor.alarms and self.task.recipe.on_dead_head == "stop":
            raise TrainingError("; ".join(self.monitor.alarms.values()))
        self.images += result.num_images
        self.step, self.learning_rate = result.step, result.learning_rate
        for name, loss in result.losses.items():
            self.loss_sums[name] += loss * result.num_images
        if time.monotonic() - self.posted > POST_SECONDS:
            self.posted = time.monotonic()
            post(self.task.board, self.task.replica, self._status())

    def metrics(self) -> dict[str, Any]:
        losses = {f"train_loss_{name}": total / self.images for name, total in self.loss_sums.items()}
        rate = self.images / (time.monotonic() - self.started)
        return {
            "epoch": self.epoch + 1,
            "step": self.step,
            **losses,
            **({"alarm": "; ".join(self.monitor.alarms.values())} if self.monitor.alarms else {}),
            "learning_rate": self.learning_rate,
            "images_per_second": rate,
        }

    def _status(self) -> ReplicaStatus:
        return ReplicaStatus(
            phase="training",
            epoch=self.step / self.steps,
            epochs=self.task.recipe.epochs,
            loss=self.loss_sums["logits"] / self.images,
            images_per_second=self.images / (time.monotonic() - self.started),
            error=self.last_epoch["val_top1_error"] if self.last_epoch else None,
            alarms=tuple(self.monitor.alarms.values()),
        )
