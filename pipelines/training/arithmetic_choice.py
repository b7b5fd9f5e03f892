"""Choice of a run's precision and compilation for training, made once and kept in the run directory."""

import math
from collections.abc import Mapping
from typing import Any, get_args

from googlenet.network.arithmetic import FP32, Arithmetic, Precision
from pipelines.errors import DamagedFileError, UserError
from pipelines.job.console import duration, say, size
from pipelines.run.directory import START_AGAIN, TRAINING
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training.resources import Resources, target_bytes
from pipelines.training.trial import advice_on_memory, run_trial

# Training of one replica below which a trial does not pay: about an hour of a CPU core, a minute of a GPU.
SMALL_TRAINING_FLOPS = {"cpu": 3e14, "cuda": 1e15}
# Cost of both passes, in forward passes.
BACKWARD_AND_FORWARD = 3
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def training_arithmetic(run: Storage, recipe: Recipe, resources: Resources, images: int, classes: int) -> Arithmetic:
    """Return the arithmetic chosen for ``run``; if there is none, choose it on the connected cluster and keep it.

    Raises:
        UserError: the run was begun with samples made elsewhere, on GPUs or on CPUs.
    """
    if run.exists(TRAINING):
        kept = run.read_json(TRAINING)
        if kept.get("gpu_augmentation", False) != resources.gpu_augmentation:
            begun, change = ("without", "leave it out") if resources.gpu_augmentation else ("with", "add it")
            raise UserError(f"{run} was begun {begun} --gpu-augmentation: {change}, or choose another --run-dir")
        return _kept_arithmetic(run, kept)
    arithmetic, reason = _decide(recipe, resources, images, classes)
    if resources.gpu_augmentation:
        reason = f"{reason}; samples made on the GPU, with the distribution of a CPU's but not their bits"
    kept = {"arithmetic": arithmetic.to_dict(), "reason": reason, "gpu_augmentation": resources.gpu_augmentation}
    run.write_json(TRAINING, kept)
    return arithmetic


def training_line(run: Storage) -> str:
    """Return the choice and its reason in one line."""
    kept = run.read_json(TRAINING)
    return f"training arithmetic: {_kept_arithmetic(run, kept)} ({kept.get('reason', 'unknown reason')})"


def _kept_arithmetic(run: Storage, kept: Mapping[str, Any]) -> Arithmetic:
    try:
        return Arithmetic.from_dict(kept["arithmetic"])
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(f"{run.below(TRAINING)} is damaged ({error}); restore it, or {START_AGAIN}") from error


def _decide(recipe: Recipe, resources: Resources, images: int, classes: int) -> tuple[Arithmetic, str]:
    """Return the arithmetic and the reason; warn if a worker needs more memory by the trial than it reserves."""
    asked = recipe.training_precision
    if is_little_work(recipe, resources, images, classes):
        return (FP32, "little work") if asked == "auto" else (Arithmetic(asked), "as requested; little work")
    trial = run_trial(recipe, resources, classes, PRECISIONS if asked == "auto" else (asked,))
    if advice := advice_on_memory(trial, resources, target_bytes(recipe, classes, images)):
        reserved, taken = size(resources.memory_bytes), size(trial.memory_bytes)
        say(f"warning: a worker reserves {reserved} of memory, and the trial took {taken}; {advice}")
    steps = recipe.epochs * math.ceil(images / recipe.batch_size)
    totals = [
        setup + steps * seconds for setup, seconds in zip(trial.setup_seconds, trial.seconds_per_step, strict=True)
    ]
    best = min(range(len(totals)), key=totals.__getitem__)
    tried = ", ".join(f"{a} {duration(total)}" for a, total in zip(trial.arithmetics, totals, strict=True))
    requested = "" if asked == "auto" else "as requested; "
    broken = f"; not compiled because the compiler failed: {trial.uncompiled}" if trial.uncompiled else ""
    reason = f"{requested}time of a replica's steps, from a trial: {tried}{broken}"
    return trial.arithmetics[best], reason


def is_little_work(recipe: Recipe, resources: Resources, images: int, classes: int) -> bool:
    """Return whether the training is too short for a trial of other arithmetics to pay."""
    device = "cuda" if resources.gpus_per_worker else "cpu"
    return _flops(recipe, images, classes) < SMALL_TRAINING_FLOPS[device]


def _flops(recipe: Recipe, images: int, classes: int) -> float:
    from googlenet.network.complexity import forward_flops
    from pipelines.training.network import network_without_weights

    flops = forward_flops(network_without_weights(recipe, classes), recipe.crop_px)
    return BACKWARD_AND_FORWARD * flops * images * recipe.epochs
