"""Trial of a few timed steps on random pixels, in Ray actors of its own, each with the resources of one worker."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Any

import psutil

from googlenet.images.records import DEFAULT_CACHE_BYTES
from googlenet.network.arithmetic import (
    FP32,
    Arithmetic,
    Precision,
    can_compile,
    compile_network,
    first_line,
    profits_from,
)
from pipelines.job.console import say, size
from pipelines.job.nodes import held
from pipelines.job.unplaced import once_placed
from pipelines.job.worker_process import use_own_cpus
from pipelines.run.recipe import Recipe
from pipelines.training.resources import Resources
from pipelines.training.timing import ESTIMATE_SECONDS, times
from pipelines.training.trial_images import SEED, loading_times, prediction_times
from pipelines.training.trial_workers import trial_workers

# In a job, Ray's and the job's own processes take this part of each core that computes; a trial has fewer of them
# beside it (docs/results/operator.md#estimates-against-jobs).
TAKEN_OF_A_CORE = 0.1
# New nodes take minutes; half an hour without one is a quota, or a kind of node that the cluster does not add.
LONGEST_WAIT_SECONDS = 1800.0
# Workers that are timed at once on a node; more tell little more.
MOST_AT_ONCE = 8
# A second worker of a trial whose process has not started by then runs beside other jobs later, and is left out.
START_SECONDS = 30.0
# Settings of a trial that do not affect the time of a step.
STEPS_PER_EPOCH, POLYAK_HORIZON_STEPS = 1000, 10


@dataclass(frozen=True)
class Trial:
    """Measurements of a trial.

    Attributes:
        arithmetics: arithmetics that were tried.
        seconds_per_step: time of a training step in each, without reading images.
        setup_seconds: additional time of the first step in each, for compilation.
        passes_per_second: forward passes of a predictor in fp32, not compiled; 0 if no images were given.
        parameters: number of parameters of one network.
        uncompiled: why compilation failed although there is a compiler; otherwise empty.
        seconds_per_sample: time of one process to make a training sample of an encoded image; 0 if none was timed.
        seconds_per_crop: time of one process to make the crop of a validation image; 0 if none was timed.
        memory_bytes: memory of the trial's process after the steps in the first arithmetic, which is not compiled.
        start_seconds: time from the start of the trial's process until it has imported what it needs.
        seconds_per_scaled_image: time of one process to decode and scale an image for all its views; 0 without images.
    """

    arithmetics: tuple[Arithmetic, ...]
    seconds_per_step: tuple[float, ...]
    setup_seconds: tuple[float, ...]
    passes_per_second: float
    parameters: int
    uncompiled: str = ""
    seconds_per_sample: float = 0.0
    seconds_per_crop: float = 0.0
    memory_bytes: int = 0
    start_seconds: float = 0.0
    seconds_per_scaled_image: float = 0.0


def run_trial(
    recipe: Recipe,
    resources: Resources,
    classes: int,
    precisions: Sequence[Precision] | None,
    encoded: Sequence[bytes] = (),
    at_once: int = 1,
    steps: int = 0,
) -> Trial:
    """Time training and evaluation on the connected cluster, with the resources of one worker.

    ``encoded`` are images whose loading and prediction are timed as well; without them, neither is timed. On CPUs,
    ``at_once`` workers are timed together, since work on other cores of a processor slows them down; so are workers
    that share a GPU. The times are their means.
    With ``precisions`` None, only uncompiled fp32 is tried, to estimate a job: the more ``steps`` each place for a
    replica has to take, the longer it is timed, and the times allow for a job's other processes. Otherwise those of
    ``precisions`` that are fast on the worker's hardware, or the only one, are tried uncompiled and, if the worker has
    a compiler, compiled.

    Raises:
        NodesMissingError: no node that can hold the worker has joined in time, or it was lost.
        UserError: a step does not fit in memory.
    """
    import ray

    say("timing a few steps of training ...")
    worker = ray.remote(
        num_cpus=resources.cpus_per_worker,
        num_gpus=resources.gpus_per_worker,
        memory=resources.memory_bytes or None,
        resources=dict(resources.custom),
        runtime_env={"env_vars": resources.environment},
    )(_TrialWorker)
    device = "cuda" if resources.gpus_per_worker else "cpu"
    number = timed_together(resources, at_once)
    workers = [worker.remote() for _ in range(number)]
    started = [each.start.remote() for each in workers]
    with trial_workers(workers):
        needs = resources.per_worker
        once_placed(started[0], "the trial", needs, longest_wait_seconds=LONGEST_WAIT_SECONDS, is_start=True)
        in_time = ray.wait(started, num_returns=number, timeout=START_SECONDS)[0]
        chosen = [each for each, ref in zip(workers, started, strict=True) if ref in in_time]
        start_seconds = mean(ray.get(in_time))
        least_seconds = ESTIMATE_SECONDS if precisions is None else 0.0
        what = recipe, classes, precisions, device, encoded, steps, least_seconds
        trials = ray.get([each.run.remote(*what) for each in chosen])
        taken = TAKEN_OF_A_CORE / max(1.0, resources.cpus_per_worker) if precisions is None and device == "cpu" else 0.0
        return replace(_means(trials, 1 + taken), start_seconds=start_seconds)


def advice_on_memory(trial: Trial, resources: Resources, targets_bytes: int) -> str:
    """Return what to do if a worker reserves less than it needs by the trial; empty otherwise.

    A trial keeps no images of shards, and no targets of a student, which take ``targets_bytes``. Beside a GPU, its
    memory says little: there, other processes load the images.
    """
    needed = trial.memory_bytes + 2 * DEFAULT_CACHE_BYTES + targets_bytes
    is_known = trial.memory_bytes and resources.memory_bytes and not resources.gpus_per_worker
    if not is_known or needed <= resources.memory_bytes:
        return ""
    return f"including its images, a worker needs about {size(needed)}: train fewer at once with --parallel-replicas"


def timed_together(resources: Resources, at_once: int) -> int:
    """Return how many of ``at_once`` workers of a node to time together: those that slow each other down."""
    if 0 < resources.gpus_per_worker < 1:
        on_one_gpu = held("GPU", 1.0, resources.gpus_per_worker)
        return min(at_once, on_one_gpu, MOST_AT_ONCE)
    return 1 if resources.gpus_per_worker else min(at_once, MOST_AT_ONCE)


class _TrialWorker:
    """Actor with the resources of a worker; those of one trial run at the same time once all have started."""

    def start(self) -> float:
        """Import what a trial needs; return the seconds since the start of the process."""
        from googlenet.training import loop  # noqa: F401

        started_at: float = psutil.Process().create_time()
        return max(0.0, time.time() - started_at)

    def run(self, *of_trial: Any) -> Trial:
        """Return the measurements of this process."""
        return _try(*of_trial)


def _means(trials: Sequence[Trial], slower: float = 1.0) -> Trial:
    """Return one trial with the mean times of several of the same arithmetics, ``slower`` times as long."""

    def mean_of(times: Callable[[Trial], Sequence[float]]) -> tuple[float, ...]:
        return tuple(slower * mean(column) for column in zip(*map(times, trials), strict=True))

    return replace(
        trials[0],
        seconds_per_step=mean_of(lambda trial: trial.seconds_per_step),
        setup_seconds=mean_of(lambda trial: trial.setup_seconds),
        passes_per_second=mean(trial.passes_per_second for trial in trials) / slower,
        seconds_per_sample=slower * mean(trial.seconds_per_sample for trial in trials),
        seconds_per_crop=slower * mean(trial.seconds_per_crop for trial in trials),
        seconds_per_scaled_image=slower * mean(trial.seconds_per_scaled_image for trial in trials),
        memory_bytes=max(trial.memory_bytes for trial in trials),
    )


def candidates(precisions: Sequence[Precision], device: str) -> list[Arithmetic]:
    """Return the arithmetics to try on this machine, uncompiled ones first."""
    fast = [p for p in precisions if p == "fp32" or len(precisions) == 1 or profits_from(p, device)]
    compiled = (False, True) if can_compile(device) else (False,)
    return [Arithmetic(precision, is_compiled) for is_compiled in compiled for precision in fast]


def _try(
    recipe: Recipe,
    classes: int,
    precisions: Sequence[Precision] | None,
    device: str,
    encoded: Sequence[bytes] = (),
    steps: int = 0,
    least_seconds: float = 0.0,
) -> Trial:
    use_own_cpus()
    arithmetics = [FP32] if precisions is None else candidates(precisions, device)
    measured, uncompiled, memory_bytes = _times_of_those_that_work(
        recipe, classes, device, arithmetics, least_seconds, steps
    )
    model = _model(recipe, classes, device).eval()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    setup, typical = (tuple(column) for column in zip(*measured.values(), strict=True))
    passes_per_second, scaling = 0.0, 0.0
    if encoded:
        passes_per_second, scaling = prediction_times(recipe, model, device, encoded, least_seconds)
    loading = loading_times(recipe, encoded) if encoded else (0.0, 0.0)
    figures = tuple(measured), typical, setup, passes_per_second, parameters, uncompiled
    return Trial(*figures, *loading, memory_bytes, seconds_per_scaled_image=scaling)


def _times_of_those_that_work(
    recipe: Recipe, classes: int, device: str, arithmetics: Sequence[Arithmetic], least_seconds: float, steps: int
) -> tuple[dict[Arithmetic, tuple[float, float]], str, int]:
    """Return setup and step times by arithmetic, the compiler's first error if it fails for all of them, and memory.

    The memory is that of the process after the first arithmetic: it keeps what it frees, and a worker has only one.
    The compiler may fail for one precision alone: some versions of PyTorch cannot compile what is computed in TF32.
    """
    measured: dict[Arithmetic, tuple[float, float]] = {}
    failure, memory_bytes = "", 0
    for arithmetic in arithmetics:
        try:
            measured[arithmetic] = times(_step(recipe, classes, device, arithmetic), least_seconds, steps)
        except Exception as error:  # a compiler and its tools may raise anything
            if not arithmetic.compiled:
                raise
            failure = failure or first_line(error)
        memory_bytes = memory_bytes or psutil.Process().memory_info().rss
    return measured, "" if any(arithmetic.compiled for arithmetic in measured) else failure, memory_bytes


def _step(recipe: Recipe, classes: int, device: str, arithmetic: Arithmetic) -> Callable[[], object]:
    """Return a function that takes a training step of one worker."""
    import torch

    from googlenet.network.preprocessing import SCRATCH_PREPROCESSING
    from googlenet.training.loader import Batch
    from googlenet.training.loop import LoopSettings, TrainState, train_step
    from googlenet.training.micro_batch import micro_batch_images
    from googlenet.training.optim import PolyakAverage, build_sgd

    model = _model(recipe, classes, device)
    optimizer = build_sgd(
        model, momentum=recipe.momentum, weight_decay=recipe.weight_decay, decay_biases=recipe.decay_biases
    )
    network = compile_network(model) if arithmetic.compiled else model
    state = TrainState(model, optimizer, PolyakAverage(model, POLYAK_HORIZON_STEPS), network_for=lambda _: network)
    preprocessing = SCRATCH_PREPROCESSING.on(torch.device(device))
    settings = LoopSettings(
        recipe.rate(),
        STEPS_PER_EPOCH,
        preprocessing,
        SEED,
        precision=arithmetic.precision,
        micro_batch=micro_batch_images(model, recipe.crop_px, recipe.workers_per_replica, on_gpu=device == "cuda"),
    )
    # Batch normalisation in one process needs two images; the workers of a replica normalise over all of theirs.
    images = max(2, -(-recipe.batch_size // recipe.workers_per_replica))
    batch = Batch.whole(_pixels(images, recipe.crop_px), torch.zeros(images, dtype=torch.int64))

    def step() -> object:
        with arithmetic.in_force(device):
            return train_step(state, batch, settings).result()

    return step


def _model(recipe: Recipe, classes: int, device: str) -> Any:
    import torch

    from pipelines.training.network import network_of

    return network_of(recipe, classes).to(device).to(memory_format=torch.channels_last)


def _pixels(images: int, crop_px: int) -> Any:
    import torch

    from googlenet.randomness import torch_generator

    drawn = torch.randint(
        0, 256, (images, 3, crop_px, crop_px), dtype=torch.uint8, generator=torch_generator(SEED, "sampling")
    )
    return drawn.contiguous(memory_format=torch.channels_last)
