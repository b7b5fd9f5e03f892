"""Training stage as the job calls it: a look at cluster and images before anything starts, then all replicas."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from googlenet.evaluation.crops import policy_scales_px
from pipelines.job.console import say
from pipelines.job.limits import Limits
from pipelines.job.meter import Meter
from pipelines.job.nodes import alive_nodes, usable_gpus
from pipelines.job.ray_session import connected, is_shared, native_stderr_to_log
from pipelines.run.dataset import Counts, Manifest
from pipelines.run.directory import RUN, finished_replicas
from pipelines.run.recipe import Recipe
from pipelines.run.soups import check_soup
from pipelines.run.storage import Storage
from pipelines.run.teacher import check_that_a_teacher_is_given
from pipelines.run.weights import check_file, check_that_weights_are_given
from pipelines.training.resources import (
    Resources,
    check_batches,
    check_that_one_fits,
    cpus_beside_gpus,
    needed_replicas,
    reserving_memory,
)

# What needs PyTorch is imported where it is used: help and errors do not wait for it.
if TYPE_CHECKING:
    from pipelines.training.failure import ReplicaFailure
    from pipelines.training.time_estimate import Estimate


def check_recipe(run: Storage, recipe: Recipe, least_replicas: int | None, *, soup: bool, from_scratch: bool) -> None:
    """Refuse a recipe that lacks what it needs, or cannot be evaluated as asked, before anything is looked for.

    Raises:
        UserError: the recipe lacks something, or cannot be evaluated as asked.
    """
    needed_replicas(recipe, least_replicas)
    check_soup(recipe, soup=soup)
    check_that_a_teacher_is_given(run, recipe)
    if not from_scratch:
        check_that_weights_are_given(run, recipe)


@contextmanager
def placed_if_shared(run: Storage, recipe: Recipe, resources: Resources) -> Iterator[None]:
    """Connect to the cluster in RAY_ADDRESS for the block; without one, do nothing.

    Raises:
        UserError: the cluster is not usable, or can never hold one of the replicas that are left to train.
        TryAgainError: it may be, or hold one, at another try.
    """
    if not is_shared():
        yield
        return
    # What Ray's core writes when it connects, and ends, stays off the terminal; the run may yet be refused.
    with native_stderr_to_log(None), connected():
        if len(finished_replicas(run, recipe.replicas)) < recipe.replicas:
            check_that_one_fits(recipe, _with_cpus(resources))
        yield


def on_cluster(recipe: Recipe, resources: Resources, counts: Counts) -> Resources:
    """Return resources for the connected cluster: with the memory of a worker, and its CPUs if none are given.

    A line says so where their share of a node beside a GPU is not known yet.
    """
    if (
        not resources.cpus_are_given
        and resources.gpus_per_worker
        and is_shared()
        and not any(map(usable_gpus, alive_nodes()))
    ):
        say(
            "no node with a GPU has joined yet: unless one joins before training starts, each worker reserves 1 CPU, "
            "so that a single process loads the images for its GPU; set --cpus-per-worker to reserve more"
        )
    return reserving_memory(recipe, _with_cpus(resources), counts.classes, counts.train)


def _with_cpus(resources: Resources) -> Resources:
    if resources.cpus_are_given:
        return resources
    return replace(resources, cpus_per_worker=cpus_beside_gpus(resources.gpus_per_worker))


def check_before_start(run: Storage, recipe: Recipe, counts: Counts) -> None:
    """Refuse batches and initial weights with which training would fail; warn of what it will not do.

    A line also says if images are stored smaller than they are needed.

    ``counts`` are the listed images. The preparation may leave fewer, and has to ask :func:`check_batches` again.

    Raises:
        UserError: the recipe cannot be trained on so many images, or its weights do not fit.
    """
    check_batches(recipe, counts.train)
    is_new = not run.exists(RUN)  # a run that has begun keeps its recipe
    if is_new:
        _warn_of_small_images(recipe)
    if recipe.warmup_epochs >= recipe.epochs and is_new:
        say(
            f"warning: --warmup-epochs {recipe.warmup_epochs:g} lasts for all --epochs {recipe.epochs}: the learning "
            "rate never falls, and classifiers that do not learn raise no alarm; use --warmup-epochs "
            f"{recipe.epochs / 4:g}"
        )
    if is_new and recipe.warmup_epochs and recipe.epochs == 1 and counts.train <= recipe.batch_size:
        say(
            "warning: the only step of this training begins the warm-up, at a learning rate of zero: use "
            "--warmup-epochs 0, a smaller --batch-size or more --epochs"
        )
    if not recipe.init_weights:
        return
    if is_new:  # a run has a copy
        check_file(recipe.init_weights)
    say(f"reading the initial weights {recipe.init_weights} ...")
    from pipelines.training.network import check_initial_weights

    for remark in check_initial_weights(run, recipe, counts.classes):
        say(f"initial weights: {remark}")


def tell_plan(run: Storage, recipe: Recipe, resources: Resources, expected: "Estimate", limits: Limits) -> None:
    """Print the plan of a job, and what the rest of it costs."""
    from pipelines.training.plan import plan_lines

    say("\n".join(plan_lines(run, recipe, resources, expected)))
    say(limits.line(limits.usage(expected.seconds, expected.nodes)))


def tell_cost(meter: Meter, expected: "Estimate") -> None:
    """Tell ``meter`` what the rest of the job will take; print what that costs."""
    say(meter.expect(expected.seconds, expected.evaluation_seconds, expected.nodes))
    if expected.untried:
        say(f"no time is set aside for the evaluation, since predictors run {expected.untried}")


def _warn_of_small_images(recipe: Recipe) -> None:
    largest_px = max(side for policy in recipe.policies for side in policy_scales_px(policy, recipe.crop_px))
    if recipe.stored_short_side_px is not None and recipe.stored_short_side_px < largest_px:
        say(
            f"data: shorter sides are stored with at most {recipe.stored_short_side_px} px, and the evaluation scales "
            f"them to up to {largest_px} px, which costs accuracy: use --stored-short-side-px {largest_px}, or leave "
            "it out"
        )


def keep_weights_to_start_from(run: Storage, recipe: Recipe, manifest: Manifest) -> None:
    """Copy the initial weights into the run, or scale random ones on its images, if the recipe asks for either."""
    from pipelines.training.network import keep_initial_weights
    from pipelines.training.scaled_weights import keep_scaled_weights

    keep_initial_weights(run, recipe, len(manifest.classes))
    keep_scaled_weights(run, recipe, manifest)


def train_run(
    run: Storage,
    recipe: Recipe,
    resources: Resources,
    manifest: Manifest,
    on_poll: Callable[[dict[int, str]], None],
    why_stop: Callable[[], str],
) -> "list[ReplicaFailure]":
    """Choose the arithmetic, and train the replicas that are not finished; return those that failed.

    Where no node could hold a worker when the job began, its memory was unknown, and its CPUs if none are given: both
    are reserved if they are known now. Nothing is trained, or tried, if ``why_stop`` has a reason already.
    """
    if why_stop():
        return []
    from pipelines.training.arithmetic_choice import training_arithmetic, training_line
    from pipelines.training.scheduler import train_replicas

    images, classes = manifest.splits["train"].images, len(manifest.classes)
    arithmetic = training_arithmetic(run, recipe, resources, images, classes)
    say(training_line(run))
    planned = resources
    if not planned.memory_bytes:
        resources = reserving_memory(recipe, _with_cpus(resources), classes, images)
    if resources != planned:
        say(f"each worker reserves {resources}, now that more is known than when the job began")
    return train_replicas(run, recipe, resources, arithmetic, on_poll, why_stop)
