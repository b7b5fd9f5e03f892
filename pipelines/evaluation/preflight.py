"""Choice of an evaluation's precision and compilation.

The choice is made once for an ensemble and kept in the run directory: a resumed job continues in the same arithmetic.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import mean
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from googlenet.evaluation.crops import distinct_views, num_views, policy_scales_px
from googlenet.images.decoding import read_size
from googlenet.network.arithmetic import FP32, Arithmetic, can_compile, compiler_name, profits_from_bf16
from pipelines.evaluation.predictors import Predictors
from pipelines.evaluation.sharded_prediction import PredictionTask, load_replicas, missing_shards
from pipelines.job.console import say
from pipelines.job.unplaced import once_placed
from pipelines.job.worker_process import KEEP_FREED_MEMORY
from pipelines.run.directory import PREFLIGHT
from pipelines.run.predictions import EvaluatedEnsemble

T = TypeVar("T")

# Earlier predictions in bf16 have classifiers in bf16, and must not be mixed with those of today.
FORMAT = 2

PrecisionChoice = Literal["auto", "fp32", "tf32", "bf16"]
# Compiling and comparing cost one to two minutes. At half the time a pass, they pay for work that takes twice as long.
LITTLE_WORK_SECONDS = 240.0
# Work that may be little on a CPU: it is timed in this process first, which is sooner done than in a new one.
PERHAPS_LITTLE_FLOPS = 1e14
# Least agreement of averaged predictions, in percent, on the first answer and on the set of the first five, and largest
# difference of a probability. A set changes where the fifth and sixth answers are nearly equally likely; the label is
# seldom one of these two, so that a top-5 error changes by a small share of the sets that do.
LEAST_AGREEMENT_PERCENT = 99.5
LEAST_TOP5_AGREEMENT_PERCENT = 95.0
LARGEST_DIFFERENCE = 0.05
# The comparison averages at most so many views, on a sample that costs a few percent of the complete evaluation.
SAMPLE_IMAGES = (16, 64)
SAMPLE_SHARE = 1 / 8
SAMPLE_VIEWS = 10


@dataclass(frozen=True)
class Preflight:
    """The chosen arithmetic, the reason, and the measured speed of one predictor.

    Attributes:
        arithmetic: precision, and whether it is compiled.
        reason: reason of the choice, for display.
        passes_per_second: forward passes per second of one predictor, not compiled.
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


def preflight(task: PredictionTask, asked: PrecisionChoice, predictors: Predictors) -> Preflight:
    """Return the choice kept for ``task``; if there is none, choose with a predictor's resources and keep it.

    The arithmetic of ``task.ensemble`` does not matter; ``asked`` is the precision, or ``auto``.
    """
    key = _key(task.ensemble, asked)
    if kept := kept_preflight(task, key):
        return kept
    at_work = predictors.at_work(task.split.images)
    chosen = None if predictors.num_gpus else _little_work_here(task, asked, at_work)
    chosen = chosen or _decide_on_cluster(task, asked, predictors, at_work)
    chosen = replace(chosen, views_per_image=_distinct_views_per_image(task))
    task.run.write_json(PREFLIGHT, {"key": key, "format": FORMAT, "preflight": asdict(chosen)})
    return chosen


def kept_preflight(task: PredictionTask, key: str) -> Preflight | None:
    """Return the choice kept under ``key``, unless its predictions cannot be continued; those are deleted then."""
    if not task.run.exists(PREFLIGHT) or (stored := task.run.read_json(PREFLIGHT))["key"] != key:
        return None
    kept = Preflight.from_dict(stored["preflight"])
    if kept.arithmetic.precision != "bf16" or stored.get("format") == FORMAT:
        return kept
    ensemble = replace(task.ensemble, arithmetic=kept.arithmetic)
    if not missing_shards(replace(task, ensemble=ensemble), task.split.images):
        return kept
    say("predictions in bf16 by an earlier version are computed again: its classifier was bf16, this one is fp32")
    for name in task.predictions.files(""):
        task.predictions.delete(name)
    return None


def _little_work_here(task: PredictionTask, asked: PrecisionChoice, at_work: int) -> Preflight | None:
    """Return the choice if the work is little as timed in this process, None otherwise.

    A predictor, whose process keeps freed memory, is not slower.
    """
    replicas = load_replicas(task.trained, task.weights)
    if _flops(task, replicas) >= PERHAPS_LITTLE_FLOPS:
        return None
    return _with_one_thread(lambda: little_work(_Comparison(task, replicas, "cpu"), task, asked, at_work))


def _decide_on_cluster(task: PredictionTask, asked: PrecisionChoice, predictors: Predictors, at_work: int) -> Preflight:
    import ray

    environment = {"env_vars": KEEP_FREED_MEMORY}
    decide_remotely = ray.remote(
        num_cpus=1,
        num_gpus=predictors.num_gpus,
        memory=predictors.memory_bytes or None,
        max_calls=1,
        runtime_env=environment,
    )(_decide_with_one_thread)
    ref = decide_remotely.remote(task, asked, at_work)
    chosen: Preflight = once_placed(ref, "the preflight", predictors.needs)
    return chosen


def _decide_with_one_thread(task: PredictionTask, asked: PrecisionChoice, at_work: int) -> Preflight:
    return _with_one_thread(lambda: decide(task, asked, at_work))


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
    """Return the mean number of views to compute of some images; the squares of a square image coincide."""
    records, ensemble, images = task.open_records(), task.ensemble, task.split.images
    places = np.linspace(0, images - 1, min(images, SAMPLE_IMAGES[0])).round().astype(int).tolist()
    sizes = [read_size(records[place].image)[:2] for place in places]
    return mean(len(distinct_views(*size, ensemble.crop_px, ensemble.policies).boxes) for size in sizes)


def _key(ensemble: EvaluatedEnsemble, asked: PrecisionChoice) -> str:
    identity = json.dumps([replace(ensemble, arithmetic=FP32).to_dict(), asked])
    return hashlib.sha256(identity.encode()).hexdigest()


def decide(task: PredictionTask, asked: PrecisionChoice, at_work: int) -> Preflight:
    """Choose the arithmetic of an evaluation by trying it on some of its images, in this process.

    ``at_work`` predictors will share the work.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    comparison = _Comparison(task, load_replicas(task.trained, task.weights), device)
    if chosen := little_work(comparison, task, asked, at_work):
        return chosen
    wanted, reason = _wanted(asked, device)
    if asked != "auto" or wanted.precision == "fp32":
        return Preflight(wanted, reason, comparison.passes_per_second(wanted))
    return comparison.compare(wanted, reason)


def little_work(
    comparison: "_Comparison", task: PredictionTask, asked: PrecisionChoice, at_work: int
) -> Preflight | None:
    """Return the plain arithmetic if with it the evaluation takes too little time to gain any; otherwise None."""
    plain = FP32 if asked == "auto" else Arithmetic(asked)
    rate = comparison.passes_per_second(plain)
    if not is_little(task.split.images * len(task.ensemble.views) * len(task.weights), rate * at_work):
        return None
    return Preflight(plain, "little work" if asked == "auto" else "as requested; little work", rate)


def is_little(passes: int, passes_per_second: float) -> bool:
    """Return whether ``passes`` forward passes take too little time for another arithmetic to pay."""
    return passes / passes_per_second < LITTLE_WORK_SECONDS


def _flops(task: PredictionTask, replicas: Sequence[Any]) -> float:
    from googlenet.network.complexity import forward_flops

    flops = sum(forward_flops(replica.model, task.ensemble.crop_px) for replica in replicas)
    return flops * len(task.ensemble.views) * task.split.images


def _wanted(asked: PrecisionChoice, device: str) -> tuple[Arithmetic, str]:
    """Return the arithmetic to try for long work, and the reason."""
    compiled = can_compile(device)
    uncompiled = "" if compiled else f"; not compiled: no {compiler_name(device)}"
    if asked != "auto":
        return Arithmetic(asked, compiled), f"as requested{uncompiled}"
    if not profits_from_bf16(device):
        return Arithmetic("fp32", compiled), f"no bfloat16 in hardware{uncompiled}"
    return Arithmetic("bf16", compiled), f"bfloat16 in hardware{uncompiled}"


class _Comparison:
    """Comparison of predictions of a sample of the images in two arithmetics."""

    def __init__(self, task: PredictionTask, replicas: Sequence[Any], device: str) -> None:
        least, most = SAMPLE_IMAGES
        images = task.split.images
        sample = min(images, most, max(least, round(images * SAMPLE_SHARE)))
        self._indices = [round(index) for index in np.linspace(0, images - 1, sample)]
        self._records = task.open_records()
        few = [policy for policy in task.ensemble.policies if num_views(policy) <= SAMPLE_VIEWS]
        # Averages of few views differ more than those of many: 10 views are a conservative stand-in for 144.
        self._policies = tuple(few[-1:]) or (SAMPLE_VIEWS,)
        self._replicas, self._crop_px, self._device = replicas, task.ensemble.crop_px, device

    def passes_per_second(self, arithmetic: Arithmetic, images: int = 3) -> float:
        """Return the forward passes per second over a few images, after one to warm up."""
        return self._predict(arithmetic, self._indices[:images])[1]

    def compare(self, wanted: Arithmetic, reason: str) -> Preflight:
        """Choose ``wanted`` if its answers on the sample are close to those of fp32, otherwise fp32."""
        from googlenet.evaluation.ensemble import TOP

        exact, exact_rate = self._predict(FP32, self._indices)
        reduced, rate = self._predict(wanted, self._indices)
        top1, top5 = (agreement_percent(exact, reduced, answers) for answers in (1, TOP))
        difference = float(np.abs(exact - reduced).max())
        compared = exact[..., 0].size
        measured = (
            f"{top1:.1f} % of {compared} answers as in fp32, {top5:.1f} % of top-5 sets, "
            f"probabilities within {difference:.4f}"
        )
        agrees = top1 >= LEAST_AGREEMENT_PERCENT and top5 >= LEAST_TOP5_AGREEMENT_PERCENT
        if agrees and difference <= LARGEST_DIFFERENCE:
            return Preflight(wanted, f"{reason}; {measured}", rate, top1, difference, compared, top5)
        refused = (
            f"{wanted.precision} refused: {measured} "
            f"(at least {LEAST_AGREEMENT_PERCENT} % and {LEAST_TOP5_AGREEMENT_PERCENT} %, {LARGEST_DIFFERENCE})"
        )
        return Preflight(replace(wanted, precision="fp32"), refused, exact_rate, top1, difference, compared, top5)

    def _predict(self, arithmetic: Arithmetic, indices: Sequence[int]) -> tuple[Any, float]:
        from googlenet.evaluation.predictor import Predictor
        from googlenet.images.scaled_image import ScaledImage

        # Not compiled: that would take longer than the complete comparison, and does not change the answers.
        eager = replace(arithmetic, compiled=False)
        predictor = Predictor(self._replicas, self._crop_px, self._policies, self._device, eager)
        scales = policy_scales_px(self._policies[0], self._crop_px)
        images = [ScaledImage.decode(self._records[index].image, scales) for index in indices]
        predictor.predict(images[0])
        warmed_up, started = predictor.forward_passes, time.monotonic()
        probabilities = np.array([prediction.probabilities for prediction in predictor.predict_each(images)])
        return probabilities, (predictor.forward_passes - warmed_up) / (time.monotonic() - started)


def agreement_percent(exact: npt.NDArray[np.float32], other: npt.NDArray[np.float32], answers: int) -> float:
    """Return the percentage of predictions, (..., C), whose set of the most likely ``answers`` classes is the same.

    Of equally likely classes the lower ones come first, as in the report.
    """
    sets = [np.sort(np.argsort(-p, axis=-1, kind="stable")[..., :answers], axis=-1) for p in (exact, other)]
    return 100 * float((sets[0] == sets[1]).all(axis=-1).mean())
