"""A cascade: add replicas, then views, until the running average is sure enough.

The stages are rectangles of replicas and views: 1, 2, 4, ... replicas with the first chosen view, then all replicas
with 2, 4, ... views. Averages of many views are more cautious than those of few, so each stage has a temperature of its
own, and one threshold on the calibrated probability of the answer serves all of them.

Probabilities are arrays (N, K, V, C): N images, K replicas, V views, C classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from googlenet.evaluation.calibration import LEAST_KEPT
from googlenet.evaluation.temperature import fit_temperature, with_temperature
from googlenet.evaluation.view_order import NUMBERS_AT_ONCE, errors_along, greedy_order
from googlenet.shapes import Bool, Float, Float32, Float64, Int64, Integer

# Share of images, in percentage points, on which all passes are right and a budget may be wrong; "best" is all passes.
WITHIN_POINTS = {"fast": 1.0, "balanced": 0.2}
BUDGETS = (*WITHIN_POINTS, "best")
# More images hardly change a greedy choice among 144 views.
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


@dataclass(frozen=True, eq=False)
class ViewedImages:
    """N of M images, whose probabilities by view are in memory once for all fits and judgements.

    Kept probabilities are float16, whose sums are exact in float64 in any order.

    Attributes:
        probabilities: of all M.
        sums: their sums over the replicas; of one replica, its own.
        all_labels: of all M.
        rows: which of the M these are.
    """

    probabilities: Float[np.ndarray, "m k v c"]
    sums: Float[np.ndarray, "m v c"]
    all_labels: Integer[np.ndarray, " m"]
    rows: Int64[np.ndarray, " n"]

    @classmethod
    def of(cls, probabilities: Float[np.ndarray, "n k v c"], labels: Labels) -> "ViewedImages":
        """Return all images of these arrays."""
        everything = np.arange(len(labels))
        if probabilities.shape[1] == 1:
            return cls(probabilities, probabilities[:, 0], labels, everything)
        sums = np.zeros((len(labels), *probabilities.shape[2:]))
        for replica in range(probabilities.shape[1]):
            sums += probabilities[:, replica]
        return cls(probabilities, sums, labels, everything)

    def where(self, chosen: Bool[np.ndarray, " n"] | Int64[np.ndarray, " s"]) -> "ViewedImages":
        """Return some of the images."""
        return replace(self, rows=self.rows[chosen])

    @property
    def labels(self) -> Labels:
        """True classes, (N,)."""
        labels: Labels = self.all_labels[self.rows]
        return labels

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of all replicas and views."""
        return stages_of(*self.probabilities.shape[1:3])

    def by_view(self) -> Float[np.ndarray, "n 1 v c"]:
        """Return the sum of all replicas by view: one classifier."""
        of_all: Float[np.ndarray, "n 1 v c"] = self.sums[self.rows][:, None]
        return of_all

    def errors_along(self, order: Int64[np.ndarray, " v"]) -> Float64[np.ndarray, "n v"]:
        """Return whether all replicas with the first 1, 2, ... views are wrong, a few images at a time."""
        at_once = max(1, NUMBERS_AT_ONCE // self.sums[0].size)
        firsts = range(0, len(self.rows), at_once)
        blocks = [replace(self, rows=self.rows[first : first + at_once]) for first in firsts]
        return np.concatenate([errors_along(block.by_view(), block.labels, order) for block in blocks])

    def running_averages(self, order: Int64[np.ndarray, " v"]) -> Float32[np.ndarray, "n s c"]:
        """Return the average over the replicas and views of each stage."""
        averages = np.empty((len(self.rows), len(self.stages), self.sums.shape[2]), np.float32)
        total = np.zeros((len(self.rows), self.sums.shape[2]))
        replicas, views = 0, 1
        for place, (more_replicas, more_views) in enumerate(self.stages):
            for replica in range(replicas, more_replicas):
                total += self.probabilities[self.rows, replica, order[0]]
            for view in order[views:more_views]:
                total += self.sums[self.rows, view]
            replicas, views = more_replicas, more_views
            averages[:, place] = total / (replicas * views)
        return averages


def confidence(averages: Float[np.ndarray, "n c"], temperature: float) -> Float64[np.ndarray, " n"]:
    """Return the calibrated probability of the answer, by which an image stops.

    Temperatures and thresholds are fitted on kept views, which are float16. Probabilities that are too small for it
    count as ``LEAST_KEPT`` here, too: at full precision, the confidence would not be the one that was fitted.
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
class JudgedCascade:
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


def fit(images: ViewedImages) -> Fitted:
    """Return the order of the views for the average of all replicas, and the temperatures of the stages."""
    # Spread evenly: of images in an order by class, some of each.
    number = len(images.rows)
    some = images.where(np.linspace(0, number - 1, min(number, IMAGES_TO_ORDER)).astype(np.int64))
    order = greedy_order(some.by_view(), some.labels)
    by_stage = images.running_averages(order).swapaxes(0, 1)
    return Fitted(order, [fit_temperature(of_stage[None], images.labels, LEAST_KEPT) for of_stage in by_stage])


def fit_for_use(images: ViewedImages) -> Fitted:
    """Return as :func:`fit`, with the temperatures of all numbers of chosen views."""
    fitted = fit(images)
    total = np.zeros((len(images.rows), images.sums.shape[2]))
    temperatures = []
    for number, view in enumerate(fitted.order, 1):
        total += images.sums[images.rows, view]
        average = total / (number * images.probabilities.shape[1])
        temperatures.append(fit_temperature(average[None], images.labels, LEAST_KEPT))
    return replace(fitted, chosen_temperatures=temperatures)


def judge(images: ViewedImages, fitted: Fitted) -> JudgedCascade:
    """Return the answers of images with what was fitted on others."""
    averages = images.running_averages(fitted.order)
    sure = [confidence(averages[:, stage], temperature) for stage, temperature in enumerate(fitted.temperatures)]
    wrong = averages.argmax(axis=2) != images.labels[:, None]
    return JudgedCascade(images.stages, np.stack(sure, axis=1), wrong, images.errors_along(fitted.order))


def judge_by_folds(images: ViewedImages, folds: Int64[np.ndarray, " n"]) -> JudgedCascade:
    """Return the answers of each fold's images with what was fitted on the images of the other folds."""
    parts, rows = [], []
    for fold in np.unique(folds):
        inside = folds == fold
        parts.append(judge(images.where(inside), fit(images.where(~inside))))
        rows.append(np.flatnonzero(inside))
    return joined(parts, np.argsort(np.concatenate(rows)))


def joined(parts: Sequence[JudgedCascade], rows: Int64[np.ndarray, " n"] | None = None) -> JudgedCascade:
    """Return answers judged in parts as one, part after part or by the numbers of their ``rows`` in these."""
    names = ("confidence", "wrong", "chosen_wrong")
    columns = [np.concatenate([getattr(part, name) for part in parts]) for name in names]
    return JudgedCascade(parts[0].stages, *(columns if rows is None else [column[rows] for column in columns]))
