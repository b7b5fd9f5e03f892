"""Before the training: in which arithmetic. Decided once for all replicas and kept, for those that are resumed.

A short run is trained in fp32 as it comes. For a long one the candidates are tried for a few steps each: bfloat16 where
the hardware has it, compiled where there is a compiler; the one that would be done first is taken.
"""

import math

from googlenet.arithmetic import FP32, Arithmetic
from pipelines.console import duration
from pipelines.recipe import Recipe
from pipelines.resources import Resources
from pipelines.run_directory import TRAINING
from pipelines.storage import Storage
from pipelines.training_trial import run_trial

# Forward and backward passes of one replica that are done before a trial of the candidates would pay: about an hour
# of a processor core, a minute of a GPU.
SMALL_TRAINING_FLOPS = {"cpu": 3e14, "cuda": 1e15}
BACKWARD_AND_FORWARD = 3


def training_arithmetic(run: Storage, recipe: Recipe, resources: Resources, images: int, classes: int) -> Arithmetic:
    """What was decided for ``run`` before, or is now, on the connected cluster."""
    if run.exists(TRAINING):
        return Arithmetic.from_dict(run.read_json(TRAINING)["arithmetic"])
    arithmetic, reason = _decide(recipe, resources, images, classes)
    run.write_json(TRAINING, {"arithmetic": arithmetic.to_dict(), "reason": reason})
    return arithmetic


def training_line(run: Storage) -> str:
    """The decision, for people."""
    kept = run.read_json(TRAINING)
    return f"training arithmetic: {Arithmetic.from_dict(kept['arithmetic'])} ({kept['reason']})"


def _decide(recipe: Recipe, resources: Resources, images: int, classes: int) -> tuple[Arithmetic, str]:
    asked = recipe.training_precision
    if is_little_work(recipe, resources, images, classes):
        return (FP32, "little work") if asked == "auto" else (Arithmetic(asked), "as asked; little work")
    trial = run_trial(recipe, resources, classes, ("fp32", "bf16") if asked == "auto" else (asked,))
    steps = recipe.epochs * math.ceil(images / recipe.batch_size)
    totals = [
        setup + steps * seconds for setup, seconds in zip(trial.setup_seconds, trial.seconds_per_step, strict=True)
    ]
    best = min(range(len(totals)), key=totals.__getitem__)
    tried = ", ".join(f"{a} {duration(total)}" for a, total in zip(trial.arithmetics, totals, strict=True))
    asked_for = "" if asked == "auto" else "as asked; "
    broken = f"; not compiled, since the compiler failed: {trial.uncompiled}" if trial.uncompiled else ""
    return trial.arithmetics[best], f"{asked_for}a replica's steps, from a trial: {tried}{broken}"


def is_little_work(recipe: Recipe, resources: Resources, images: int, classes: int) -> bool:
    """Whether a trial of other arithmetic would not pay for itself."""
    device = "cuda" if resources.gpus_per_worker else "cpu"
    return _flops(recipe, images, classes) < SMALL_TRAINING_FLOPS[device]


def _flops(recipe: Recipe, images: int, classes: int) -> float:
    from googlenet.complexity import forward_flops
    from pipelines.recipe_network import network_of

    return BACKWARD_AND_FORWARD * forward_flops(network_of(recipe, classes), recipe.crop_px) * images * recipe.epochs
