"""The order in which test views help most, chosen on some images and judged on others.

Probabilities are arrays (N, R, V, C): N images, R classifiers that answer on their own, V views, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from googlenet.evaluation.calibration import LEAST_KEPT
from googlenet.evaluation.crops import CROP_POLICIES, distinct_views
from googlenet.shapes import Float, Float64, Int64, Integer

# 32 MB of sums.
NUMBERS_AT_ONCE = 4_000_000

Labels = Integer[np.ndarray, " n"]


def errors_along(
    probabilities: Float[np.ndarray, "n r v c"], labels: Labels, order: Int64[np.ndarray, " o"]
) -> Float64[np.ndarray, "n o"]:
    """Return (N, O): share of classifiers wrong about each image with the first 1, 2, ... views of ``order``."""
    total = np.zeros((*probabilities.shape[:2], probabilities.shape[3]))
    errors = np.empty((len(labels), len(order)))
    for place, view in enumerate(order):
        total += probabilities[:, :, view]
        errors[:, place] = (total.argmax(axis=2) != labels[:, None]).mean(axis=1)
    return errors


def greedy_order(probabilities: Float[np.ndarray, "n r v c"], labels: Labels) -> Int64[np.ndarray, " v"]:
    """Return a greedy order: each next view is the one with which the average has the lowest error.

    Ties go to the view with the highest log-likelihood of the true classes.
    """
    lowest, highest = probabilities.min(axis=2), probabilities.max(axis=2)
    total = np.zeros(lowest.shape)
    order: list[int] = []
    left = list(range(probabilities.shape[2]))
    while left:
        rivals = _Rivals.of(total, lowest, highest, labels)
        at_once = max(1, NUMBERS_AT_ONCE // len(rivals.classes))
        parts = [left[first : first + at_once] for first in range(0, len(left), at_once)]
        scores = [rivals.errors_and_losses(probabilities, total, part) for part in parts]
        errors, losses = np.concatenate(scores, axis=1)
        best = left.pop(int(np.lexsort((losses, errors))[0]))
        total += probabilities[:, :, best]
        order.append(best)
    return np.array(order, np.int64)


@dataclass(frozen=True)
class _Rivals:
    """The true class of each of N x R answers, and the classes that one more view can make the answer: M in all.

    Of a thousand classes these are a few, and the others need no sums. None is missing that could win: adding numbers
    in floating point keeps their order.

    Attributes:
        images, classifiers, classes: (M,) of what each is, sorted by them.
        first: (N x R,) where those of an answer begin.
        own: (N x R,) where its true class is.
    """

    images: Int64[np.ndarray, " m"]
    classifiers: Int64[np.ndarray, " m"]
    classes: Int64[np.ndarray, " m"]
    first: Int64[np.ndarray, " nr"]
    own: Int64[np.ndarray, " nr"]

    @classmethod
    def of(
        cls,
        total: Float64[np.ndarray, "n r c"],
        lowest: Float[np.ndarray, "n r c"],
        highest: Float[np.ndarray, "n r c"],
        labels: Labels,
    ) -> "_Rivals":
        """Return the rivals if each view's probabilities lie between ``lowest`` and ``highest``."""
        is_rival = total + highest >= (total + lowest).max(axis=2, keepdims=True)
        np.put_along_axis(is_rival, labels[:, None, None], True, axis=2)
        images, classifiers, classes = np.nonzero(is_rival)
        numbers = is_rival.sum(axis=2).reshape(-1)
        return cls(
            images, classifiers, classes, np.cumsum(numbers) - numbers, np.flatnonzero(classes == labels[images])
        )

    def errors_and_losses(
        self, probabilities: Float[np.ndarray, "n r v c"], total: Float64[np.ndarray, "n r c"], views: list[int]
    ) -> Float64[np.ndarray, "2 s"]:
        """Return the share of wrong answers with each of these views, and the mean of -log of the labels' sums."""
        of_rivals = self.images[:, None], self.classifiers[:, None], np.array(views), self.classes[:, None]
        sums = total[self.images, self.classifiers, self.classes][:, None] + probabilities[of_rivals]
        own = sums[self.own]
        numbers = np.diff(self.first, append=len(sums))
        own_beside, own_class = np.repeat(own, numbers, axis=0), np.repeat(self.classes[self.own], numbers)
        # Of equal sums, the answer is the lower class.
        is_lower = (self.classes < own_class)[:, None]
        beats = (sums > own_beside) | (is_lower & (sums == own_beside))
        wrong = np.logical_or.reduceat(beats, self.first, axis=0)
        losses = -np.log(np.maximum(own, LEAST_KEPT))
        # Each view's losses lie side by side, so that their sum has the same bits whatever other views are beside it.
        return np.stack([wrong.mean(axis=0), np.ascontiguousarray(losses.T).mean(axis=1)])


@lru_cache(maxsize=1024)
def windows_along(width: int, height: int, crop_px: int, order: tuple[int, ...]) -> Int64[np.ndarray, " o"]:
    """Return how many windows are computed for the first 1, 2, ... views of an order of the 144, equal ones once."""
    positions = distinct_views(width, height, crop_px, CROP_POLICIES[-1:]).positions[list(order)]
    is_new = np.zeros(len(order), np.int64)
    is_new[np.unique(positions, return_index=True)[1]] = 1
    return np.cumsum(is_new)


def mean_windows_along(
    sizes_px: Sequence[tuple[int, int]], crop_px: int, order: tuple[int, ...]
) -> Float64[np.ndarray, " o"]:
    """Return the mean of :func:`windows_along` over images of these widths and heights; of none, the views."""
    if not sizes_px:
        return np.arange(1.0, len(order) + 1)
    means: Float64[np.ndarray, " o"] = np.mean([windows_along(*size, crop_px, order) for size in sizes_px], axis=0)
    return means
