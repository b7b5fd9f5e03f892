"""Training stage as the job calls it: a look at what is given before anything starts, then all replicas."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pipelines.job.console import say
from pipelines.run.dataset import Counts, Manifest
from pipelines.run.directory import RUN
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.run.weights import check_file
from pipelines.training.resources import Resources, check_batches, reserving_memory

# What needs PyTorch is imported where it is used: help and errors do not wait for it.
if TYPE_CHECKING:
    from pipelines.training.failure import ReplicaFailure


def check_before_start(run: Storage, recipe: Recipe, counts: Counts) -> None:
    """Refuse batches and initial weights with which training would fail; warn of what it will not do.

    ``counts`` are the listed images. The preparation may leave fewer, and has to ask :func:`check_batches` again.

    Raises:
        UserError: the recipe cannot be trained on so many images, or its weights do not fit.
    """
    check_batches(recipe, counts.train)
    if recipe.warmup_epochs >= recipe.epochs and not run.exists(RUN):  # a run that has begun keeps its recipe
        say(
            f"warning: --warmup-epochs {recipe.warmup_epochs:g} takes all of --epochs {recipe.epochs}: the learning "
            f"rate never falls, and no classifier is watched; use --warmup-epochs {recipe.epochs / 4:g}"
        )
    if not recipe.init_weights:
        return
    if not run.exists(RUN):  # a run has a copy
        check_file(recipe.init_weights)
    say(f"reading the initial weights {recipe.init_weights} ...")
    from pipelines.training.network import check_initial_weights

    for remark in check_initial_weights(run, recipe, counts.classes):
        say(f"initial weights: {remark}")


def train_run(
    run: Storage,
    recipe: Recipe,
    resources: Resources,
    manifest: Manifest,
    on_poll: Callable[[dict[int, str]], None],
    why_stop: Callable[[], str],
) -> "list[ReplicaFailure]":
    """Choose the arithmetic, and train the replicas that are not finished; return those that failed.

    Where no node could hold a worker when the job began, its memory was unknown, and is reserved if it is known now.
    Nothing is trained, or tried, if ``why_stop`` has a reason already.
    """
    if why_stop():
        return []
    from pipelines.training.arithmetic_choice import training_arithmetic, training_line
    from pipelines.training.scheduler import train_replicas

    images, classes = manifest.splits["train"].images, len(manifest.classes)
    arithmetic = training_arithmetic(run, recipe, resources, images, classes)
    say(training_line(run))
    if not resources.memory_bytes:
        resources = reserving_memory(recipe, resources, classes, images)
    return train_replicas(run, recipe, resources, arithmetic, on_poll, why_stop)
