"""A cascade: add replicas, then views, until the running average is sure enough.

The stages are rectangles of replicas and views: 1, 2, 4, ... replicas with the first chosen view, then all replicas
with 2, 4, ... views. Averages of many views are more cautious than those of few, so each stage has a temperature of its
own, and one threshold on the calibrated probability of the answer serves all of them.

Probabilities are arrays (N, K, V, C): N images, K replicas, V views, C classes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from googlenet.evaluation.calibration import LEAST_KEPT
from googlenet.evaluation.temperature import fit_temperature, with_temperature
from googlenet.evaluation.view_order import NUMBERS_AT_ONCE, errors_along, greedy_order
from googlenet.shapes import Bool, Float, Float64, Int64, Integer

# Share of images, in percentage points, on which all passes are right and a budget may be wrong; "best" is all passes.
WITHIN_POINTS = {"fast": 1.0, "balanced": 0.2}
BUDGETS = (*WITHIN_POINTS, "best")
# A greedy choice among 144 views takes seconds for so many images, and more of them hardly change it.
IMAGES_TO_ORDER = 1_000
# Nothing is surer than 1: all passes are made.
NEVER = 1.0
THRESHOLDS = (*(1 - 2 ** (-step / 2) for step in range(31)), NEVER)

Labels = Integer[np.ndarray, " n"]
# Numbers of replicas and of views.
Stage = tuple[int, int]


def stages_of(replicas: int, views: int) -> tuple[Stage, ...]:
    """Return the stages, from one pass to all passes."""
    models = [*_doubling(replicas)]
    return (*((number, 1) for number in models), *((replicas, number) for number in _doubling(views) if number > 1))


def _doubling(last: int) -> Iterator[int]:
    number = 1
    while number < last:
        yield number
        number *= 2
    yield last


def passes_of(stages: Sequence[Stage]) -> Int64[np.ndarray, " s"]:
    """Return the forward passes of an image that stops at each stage."""
    return np.array([models * views for models, views in stages], np.int64)


def running_averages(
    probabilities: Float[np.ndarray, "n k v c"], order: Int64[np.ndarray, " v"], stages: Sequence[Stage]
) -> Float[np.ndarray, "n s c"]:
    """Return the average over the replicas and views of each stage, (N, S, C) float32."""
    averages = np.empty((len(probabilities), len(stages), probabilities.shape[3]), np.float32)
    # By numbers, not by images: of thousands of classes, a few images fill the memory that a block may take.
    at_once = max(1, NUMBERS_AT_ONCE // math.prod(probabilities.shape[1:]))
    for first in range(0, len(probabilities), at_once):
        block = probabilities[first : first + at_once].astype(np.float64)
        for place, (models, views) in enumerate(stages):
            averages[first : first + at_once, place] = block[:, :models, order[:views]].mean(axis=(1, 2))
    return averages


def confidence(averages: Float[np.ndarray, "n c"], temperature: float) -> Float64[np.ndarray, " n"]:
    """Return the calibrated probability of the answer, by which an image stops.

    Temperatures and thresholds are fitted on kept views, which are float16. What those cannot hold has no say in use
    either: where probabilities have all their digits, the confidence would be another one.
    """
    sure: Float64[np.ndarray, " n"] = with_temperature(averages, temperature, LEAST_KEPT).max(axis=1)
    return sure


@dataclass(frozen=True)
class Stop:
    """When a cascade ends.

    Attributes:
        threshold: calibrated probability above which an answer is sure enough.
        last: number of the stage at which all images end, from 0.
    """

    threshold: float
    last: int


def stopped_at(confidence: Float64[np.ndarray, "n s"], stop: Stop) -> Int64[np.ndarray, " n"]:
    """Return the stage at which each image ends, (N,)."""
    is_sure = confidence > stop.threshold
    is_sure[:, stop.last] = True
    stages: Int64[np.ndarray, " n"] = is_sure.argmax(axis=1)
    return stages


@dataclass(frozen=True)
class Judged:
    """Answers of N images, judged with an order and temperatures that they were not fitted on, at S stages.

    Attributes:
        stages: the stages.
        confidence: (N, S) calibrated probability of the answer.
        wrong: (N, S) whether it is wrong.
        chosen_wrong: (N, V) whether all replicas with the first 1, 2, ... chosen views are wrong.
    """

    stages: tuple[Stage, ...]
    confidence: Float64[np.ndarray, "n s"]
    wrong: Bool[np.ndarray, "n s"]
    chosen_wrong: Float64[np.ndarray, "n v"]

    @property
    def all_wrong(self) -> Bool[np.ndarray, " n"]:
        """Whether all passes together are wrong."""
        return self.wrong[:, -1]

    def spent(self, stop: Stop) -> tuple[Int64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
        """Return each image's passes, and whether its answer is wrong then."""
        stage = stopped_at(self.confidence, stop)
        return passes_of(self.stages)[stage], self.wrong[np.arange(len(stage)), stage]


@dataclass(frozen=True)
class Fitted:
    """What is fitted on images.

    Attributes:
        order: the views, the most helpful first.
        temperatures: one for each stage.
        chosen_temperatures: those of all replicas with the first 1, 2, ... views, if they were asked for.
    """

    order: Int64[np.ndarray, " v"]
    temperatures: Sequence[float]
    chosen_temperatures: Sequence[float] = ()


def fit(probabilities: Float[np.ndarray, "n k v c"], labels: Labels) -> Fitted:
    """Return the order of the views for the average of all replicas, and the temperatures of the stages."""
    # Spread evenly: of images in an order by class, some of each.
    some = np.linspace(0, len(labels) - 1, min(len(labels), IMAGES_TO_ORDER)).astype(np.int64)
    order = greedy_order(_everyone(probabilities[some]), labels[some])
    averages = running_averages(probabilities, order, stages_of(*probabilities.shape[1:3]))
    by_stage = averages.swapaxes(0, 1)
    return Fitted(order, [fit_temperature(of_stage[None], labels, LEAST_KEPT) for of_stage in by_stage])


def fit_for_use(probabilities: Float[np.ndarray, "n k v c"], labels: Labels) -> Fitted:
    """Return as :func:`fit`, with the temperatures of all numbers of chosen views."""
    fitted = fit(probabilities, labels)
    sums = np.zeros((len(labels), probabilities.shape[3]))
    temperatures = []
    for number, view in enumerate(fitted.order, 1):
        sums += probabilities[:, :, view].mean(axis=1, dtype=np.float64)
        temperatures.append(fit_temperature(sums[None] / number, labels, LEAST_KEPT))
    return replace(fitted, chosen_temperatures=temperatures)


def judge(probabilities: Float[np.ndarray, "n k v c"], labels: Labels, fitted: Fitted) -> Judged:
    """Return the answers of images with what was fitted on others."""
    stages = stages_of(*probabilities.shape[1:3])
    averages = running_averages(probabilities, fitted.order, stages)
    sure = [confidence(averages[:, stage], temperature) for stage, temperature in enumerate(fitted.temperatures)]
    wrong = averages.argmax(axis=2) != labels[:, None]
    return Judged(stages, np.stack(sure, axis=1), wrong, errors_along(_everyone(probabilities), labels, fitted.order))


def judge_by_folds(
    probabilities: Float[np.ndarray, "n k v c"], labels: Labels, folds: Int64[np.ndarray, " n"]
) -> Judged:
    """Return the answers of each fold's images with what was fitted on the images of the other folds."""
    parts, rows = [], []
    for fold in np.unique(folds):
        inside = folds == fold
        parts.append(judge(probabilities[inside], labels[inside], fit(probabilities[~inside], labels[~inside])))
        rows.append(np.flatnonzero(inside))
    return joined(parts, np.argsort(np.concatenate(rows)))


def joined(parts: Sequence[Judged], rows: Int64[np.ndarray, " n"] | None = None) -> Judged:
    """Return answers judged in parts as one, part after part or by the numbers of their ``rows`` in these."""
    names = ("confidence", "wrong", "chosen_wrong")
    columns = [np.concatenate([getattr(part, name) for part in parts]) for name in names]
    return Judged(parts[0].stages, *(columns if rows is None else [column[rows] for column in columns]))


def _everyone(probabilities: Float[np.ndarray, "n k v c"]) -> Float[np.ndarray, "n 1 v c"]:
    """Return the average of all replicas by view, float32, without a copy of all probabilities in float32."""
    everyone: Float[np.ndarray, "n 1 v c"] = probabilities.mean(axis=1, dtype=np.float32)[:, None]
    return everyone
