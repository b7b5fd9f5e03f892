"""The order in which test views help most, chosen on some images and judged on others.

Probabilities are arrays (N, R, V, C): N images, R classifiers that answer on their own, V views, C classes.
"""

from collections.abc import Sequence
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
    images, classifiers, views, classes = probabilities.shape
    total = np.zeros((images, classifiers, classes))
    order: list[int] = []
    left = list(range(views))
    at_once = max(1, NUMBERS_AT_ONCE // total.size)
    while left:
        parts = [left[first : first + at_once] for first in range(0, len(left), at_once)]
        scores = [_errors_and_losses(total[:, :, None] + probabilities[:, :, part], labels) for part in parts]
        errors, losses = np.concatenate(scores, axis=1)
        best = left.pop(int(np.lexsort((losses, errors))[0]))
        total += probabilities[:, :, best]
        order.append(best)
    return np.array(order, np.int64)


def _errors_and_losses(sums: Float64[np.ndarray, "n r v c"], labels: Labels) -> Float64[np.ndarray, "2 v"]:
    """Return the share of wrong answers of each sum, and the mean negative logarithm of the labels' sums."""
    own = np.take_along_axis(sums, labels[:, None, None, None], axis=3)[..., 0]
    losses = -np.log(np.maximum(own, LEAST_KEPT)).mean(axis=(0, 1))
    errors = (sums.argmax(axis=3) != labels[:, None, None]).mean(axis=(0, 1))
    return np.stack([errors, losses])


def held_out_errors(
    probabilities: Float[np.ndarray, "n r v c"], labels: Labels, folds: Int64[np.ndarray, " n"]
) -> Float64[np.ndarray, "n v"]:
    """Return (N, V) as in :func:`errors_along`, each image in the order chosen on the images of the other folds."""
    errors = np.empty((len(labels), probabilities.shape[2]))
    for fold in np.unique(folds):
        inside = folds == fold
        order = greedy_order(probabilities[~inside], labels[~inside])
        errors[inside] = errors_along(probabilities[inside], labels[inside], order)
    return errors


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
