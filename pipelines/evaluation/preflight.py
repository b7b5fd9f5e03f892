"""Choice of an evaluation's precision and compilation.

The choice is made once for an ensemble and kept in the run directory: a resumed job continues in the same arithmetic.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np
import psutil

from googlenet.evaluation.crops import mean_distinct_views
from googlenet.images.decoding import read_size
from googlenet.network.arithmetic import FP32, Arithmetic, can_compile, compiler_name, profits_from_bf16
from pipelines.errors import DamagedFileError
from pipelines.evaluation.arithmetic_trial import (
    LARGEST_DIFFERENCE,
    LEAST_AGREEMENT_PERCENT,
    LEAST_TOP5_AGREEMENT_PERCENT,
    SAMPLE_IMAGES,
    Agreement,
    ArithmeticTrial,
)
from pipelines.evaluation.predictors import Predictors, device_of
from pipelines.evaluation.sharded_prediction import PredictionTask, load_replicas, missing_shards
from pipelines.job.console import say
from pipelines.job.node_limits import node_limits
from pipelines.job.unplaced import once_placed
from pipelines.job.worker_process import KEEP_FREED_MEMORY
from pipelines.run.directory import PREFLIGHT
from pipelines.run.predictions import EvaluatedEnsemble
from pipelines.run.recipe import PrecisionChoice
from pipelines.run.storage import MADE_AGAIN

T = TypeVar("T")

BF16 = Arithmetic("bf16")
# Earlier predictions in bf16 have classifiers in bf16, and must not be mixed with those of today.
FORMAT = 2

# Compiling and comparing cost one to two minutes. At half the time a pass, they pay for work that takes twice as long.
LITTLE_WORK_SECONDS = 240.0
# Predictors that are timed together; more tell little more.
MOST_AT_ONCE = 8
# Little work on a CPU: it is timed in this process first, which takes less time than a new one.
PERHAPS_LITTLE_FLOPS = 1e14
UNUSABLE_GPU = (
    "on a CPU, since PyTorch cannot use the reserved GPU (an old driver, or a build without CUDA?): add "
    "--gpus-per-predictor 0 to use all CPUs"
)


@dataclass(frozen=True)
class Preflight:
    """The chosen arithmetic, the reason, and the measured speed of one predictor.

    Attributes:
        arithmetic: precision, and whether it is compiled.
        reason: reason of the choice, for display.
        passes_per_second: forward passes per second of one predictor in this arithmetic, beside those of its node.
        agreement_percent: percentage of top-1 answers as in fp32; None if nothing was compared.
        largest_difference: largest difference of a probability from fp32; None if nothing was compared.
        compared: number of averaged predictions that were compared.
        top5_agreement_percent: percentage of sets of five answers as in fp32; None if nothing was compared.
        views_per_image: distinct views of an image, on average over some; None if that was not looked at.
    """

    arithmetic: Arithmetic
    reason: str
    passes_per_second: float
    agreement_percent: float | None = None
    largest_difference: float | None = None
    compared: int = 0
    top5_agreement_percent: float | None = None
    views_per_image: float | None = None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preflight":
        """Inverse of ``asdict``."""
        return cls(**{**values, "arithmetic": Arithmetic.from_dict(values["arithmetic"])})


@dataclass(frozen=True)
class Work:
    """What an arithmetic is chosen for.

    Attributes:
        task: the evaluation.
        asked: precision that is asked for, or ``auto``.
        passes: forward passes of the complete evaluation, each distinct view once.
        at_work: predictors that share them.
        per_node: predictors that a node holds.
        memory_bytes: memory that each reserves; 0 for none.
        stops_early: whether answers stop as soon as they are sure enough.
        num_gpus: GPUs that each predictor reserves.
    """

    task: PredictionTask
    asked: PrecisionChoice
    passes: int
    at_work: int
    per_node: int = 1
    memory_bytes: int = 0
    stops_early: bool = False
    num_gpus: float = 0.0

    @property
    def plain(self) -> Arithmetic:
        """The arithmetic of little work."""
        return FP32 if self.asked == "auto" else Arithmetic(self.asked)


def preflight(task: PredictionTask, asked: PrecisionChoice, predictors: Predictors) -> Preflight:
    """Return the choice kept for ``task``; if there is none, choose with a predictor's resources and keep it.

    The arithmetic of ``task.ensemble`` does not matter; ``asked`` is the precision, or ``auto``.
    """
    key = _key(task.ensemble, asked)
    if kept := kept_preflight(task, key):
        return kept
    say("timing a few predictions ...")
    views_per_image = _distinct_views_per_image(task)
    passes = round(task.split.images * views_per_image * len(task.weights))
    work = Work(
        task,
        asked,
        passes,
        predictors.at_work(task.split.images),
        predictors.per_node,
        predictors.memory_bytes,
        stops_early=task.early_stop is not None,
        num_gpus=predictors.num_gpus,
    )
    chosen = None if predictors.num_gpus else _little_work_here(work)
    chosen = replace(chosen or _decide_on_cluster(work, predictors), views_per_image=views_per_image)
    task.run.write_json(PREFLIGHT, {"key": key, "format": FORMAT, "preflight": asdict(chosen)})
    return chosen


def kept_preflight(task: PredictionTask, key: str) -> Preflight | None:
    """Return the choice kept under ``key``, unless its predictions cannot be continued; those are deleted then."""
    if not task.run.exists(PREFLIGHT) or (stored := task.run.read_json(PREFLIGHT)).get("key") != key:
        return None
    try:
        kept = Preflight.from_dict(stored["preflight"])
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(f"{task.run.below(PREFLIGHT)} is damaged ({error}); {MADE_AGAIN}") from error
    if kept.arithmetic.precision != "bf16" or stored.get("format") == FORMAT:
        return kept
    ensemble = replace(task.ensemble, arithmetic=kept.arithmetic)
    if not missing_shards(replace(task, ensemble=ensemble), task.split.images):
        return kept
    say("predictions in bf16 by an earlier version are computed again: its classifier was bf16, this one is fp32")
    task.predictions.delete_all(task.predictions.files(""))
    return None


def _little_work_here(work: Work) -> Preflight | None:
    """Return the choice if the work is little as timed in this process, None otherwise.

    A predictor, whose process keeps freed memory, is not slower.
    """
    replicas = load_replicas(work.task.trained, work.task.weights)
    if _flops(work, replicas) >= PERHAPS_LITTLE_FLOPS:
        return None
    return _with_one_thread(lambda: little_work(_trial(work, replicas, "cpu"), work))


def _decide_on_cluster(work: Work, predictors: Predictors) -> Preflight:
    import ray

    environment = {"env_vars": KEEP_FREED_MEMORY}
    decide_remotely = ray.remote(
        num_cpus=1,
        num_gpus=predictors.num_gpus,
        memory=predictors.memory_bytes or None,
        max_calls=1,
        runtime_env=environment,
    )(_decide_with_one_thread)
    chosen: Preflight = once_placed(decide_remotely.remote(work), "the preflight", predictors.needs)
    return chosen


def _decide_with_one_thread(work: Work) -> Preflight:
    return _with_one_thread(lambda: decide(work))


def _with_one_thread(work: Callable[[], T]) -> T:
    """Call ``work`` with one thread, as predictors have."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return work()
    finally:
        torch.set_num_threads(threads)


def _distinct_views_per_image(task: PredictionTask) -> float:
    """Return the mean number of views to compute of some images."""
    records, ensemble, images = task.open_records(), task.ensemble, task.split.images
    places = np.linspace(0, images - 1, min(images, SAMPLE_IMAGES[0])).round().astype(int).tolist()
    sizes = [read_size(records[place].image)[:2] for place in places]
    return mean_distinct_views(sizes, ensemble.crop_px, ensemble.policies)


def _key(ensemble: EvaluatedEnsemble, asked: PrecisionChoice) -> str:
    identity = json.dumps([replace(ensemble, arithmetic=FP32).to_dict(), asked])
    return hashlib.sha256(identity.encode()).hexdigest()


def decide(work: Work) -> Preflight:
    """Choose the arithmetic of an evaluation by trying it on some of its images, in this process."""
    device = device_of(work.num_gpus)
    trial = _trial(work, load_replicas(work.task.trained, work.task.weights), device)
    chosen = little_work(trial, work) or choose(trial, device, work)
    has_unusable_gpu = work.num_gpus > 0 and device == "cpu"
    return replace(chosen, reason=f"{chosen.reason}; {UNUSABLE_GPU}") if has_unusable_gpu else chosen


def _trial(work: Work, replicas: Sequence[Any], device: str) -> ArithmeticTrial:
    return ArithmeticTrial(work.task, replicas, device, timed_at_once(work, device))


def timed_at_once(work: Work, device: str) -> int:
    """Return how many predictors to time together here: as many as a node will hold, on a CPU.

    They reserve no more than one, since the rest of a shared cluster may be busy for days; so they take no more CPUs
    than this machine has, and no more memory than is free.
    """
    limits = node_limits()
    free_bytes = min(psutil.virtual_memory().available, limits.memory_bytes)
    with_memory = free_bytes // work.memory_bytes if work.memory_bytes else MOST_AT_ONCE
    most = min(work.at_work, work.per_node, limits.cpus, with_memory, MOST_AT_ONCE)
    return max(1, most) if device == "cpu" else 1


def little_work(trial: ArithmeticTrial, work: Work) -> Preflight | None:
    """Return the plain arithmetic if with it the evaluation takes too little time to gain any; otherwise None."""
    speed = trial.timing(work.plain).passes_per_second
    if not is_little(work.passes, speed * work.at_work):
        return None
    return Preflight(work.plain, "little work" if work.asked == "auto" else "as requested; little work", speed)


def choose(trial: ArithmeticTrial, device: str, work: Work) -> Preflight:
    """Return the arithmetic that takes least time, of those that are asked for or, by default, answer like fp32."""
    agreement, plain = None, [work.plain]
    if work.asked != "auto":
        reason = ["as requested"]
    elif not profits_from_bf16(device):
        reason = ["no bfloat16 in hardware"]
    else:
        agreement = trial.agreement(BF16)
        reason = [_judged(agreement)]
        plain += [BF16] if agreement.is_close else []
    timings = [trial.timing(arithmetic) for arithmetic in plain]
    if work.stops_early:
        reason.append("not compiled: compiled networks need full batches, and answers that stop early leave few views")
    elif can_compile(device):
        # Compilation takes long: only the faster precision is tried.
        faster = max(timings, key=lambda timing: timing.passes_per_second)
        timings.append(trial.timing(replace(faster.arithmetic, compiled=True)))
    else:
        reason.append(f"not compiled: no {compiler_name(device)}")
    if len(timings) > 1:
        reason.append(f"timed: {', '.join(map(str, timings))}")
    best = min(timings, key=lambda timing: timing.seconds(work.passes, work.at_work))
    chosen = Preflight(best.arithmetic, "; ".join(reason), best.passes_per_second)
    if agreement is None:
        return chosen
    return replace(
        chosen,
        agreement_percent=agreement.top1_percent,
        largest_difference=agreement.largest_difference,
        compared=agreement.compared,
        top5_agreement_percent=agreement.top5_percent,
    )


def _judged(agreement: Agreement) -> str:
    if agreement.is_close:
        return f"bf16: {agreement}"
    bounds = f"{LEAST_AGREEMENT_PERCENT} % and {LEAST_TOP5_AGREEMENT_PERCENT} %, {LARGEST_DIFFERENCE}"
    return f"bf16 refused: {agreement} (at least {bounds})"


def is_little(passes: int, passes_per_second: float) -> bool:
    """Return whether ``passes`` forward passes take too little time for another arithmetic to pay."""
    return passes / passes_per_second < LITTLE_WORK_SECONDS


def _flops(work: Work, replicas: Sequence[Any]) -> float:
    from googlenet.network.complexity import forward_flops

    flops = sum(forward_flops(replica.model, work.task.ensemble.crop_px) for replica in replicas)
    return flops / len(replicas) * work.passes
