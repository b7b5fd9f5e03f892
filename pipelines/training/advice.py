"""Advice for a replica that does not learn or diverges: options that its recipe does not use yet."""

from googlenet.training.health import Advice
from pipelines.run.recipe import Recipe

# Gradients of a network that does not learn yet had norms of 20, and of 3 once it did
# (docs/results/photographs.md#at-the-boards-size).
CLIPPED_NORM = 5


def advice_for(recipe: Recipe) -> Advice:
    """Return what to try, in the order of what helps most often."""
    rate = f"--learning-rate (now {recipe.learning_rate:g})"
    gentler = _gentler_start(recipe)
    clip = [] if recipe.max_gradient_norm else [f"--max-gradient-norm {CLIPPED_NORM}"]
    network = _other_network(recipe)
    fp32 = [] if recipe.training_precision == "fp32" else ["--training-precision fp32"]
    return Advice(
        dead=_try([f"a lower or a higher {rate}", *gentler, *clip, *network]),
        not_finite=_try([f"a lower {rate}", *gentler, *clip, *fp32, *network]),
    )


def _gentler_start(recipe: Recipe) -> list[str]:
    return [] if recipe.warmup_epochs else ["--warmup-epochs 1"]


def _other_network(recipe: Recipe) -> list[str]:
    """Return changes of the network; given weights determine it, and batch normalisation needs no such help."""
    if recipe.init_weights or recipe.variant == "bn":
        return []
    he = [] if recipe.initialisation == "he" else ["--initialisation he"]
    # Batch normalisation refuses this initialisation, and several workers without GPUs.
    other_start = " --initialisation he" if recipe.initialisation == "lsuv" else ""
    return he if recipe.workers_per_replica > 1 else [*he, f"--variant bn{other_start}"]


def _try(options: list[str]) -> str:
    *others, last = options
    return f"try {', '.join(others)} or {last}" if others else f"try {last}"
