"""Scores of a measure of doubt that is to tell images of something else apart from those of the classes.

Images of something else should be the less sure ones. The area under the ROC curve is the chance that a random image
of something else is less sure than a random image of the classes. The false positive rate is the share of images of
something else that pass for one of the classes if 95 % of the images of the classes do.
"""

import math

import numpy as np

from googlenet.evaluation.metrics import RESAMPLES, percentile_bounds
from googlenet.randomness import numpy_generator
from googlenet.shapes import Bool, Float64

ACCEPTED = 0.95
STANDARD_ERRORS = 1.959964


def area_under_roc(
    inside: Float64[np.ndarray, " n"], outside: Float64[np.ndarray, " m"]
) -> tuple[float, tuple[float, float]]:
    """Return the area, and its 95 % interval by the variance of DeLong et al. (1988).

    Of a single image of a kind, the spread of others is unknown: the interval is 0 to 1.

    Args:
        inside: how unsure the ensemble is about N images of the classes.
        outside: the same for M images of something else.
    """
    of_outside, of_inside = _shares_below(outside, inside), 1 - _shares_below(inside, outside)
    area = float(of_outside.mean())
    if min(len(inside), len(outside)) == 1:
        return area, (0.0, 1.0)
    variance = sum(float(shares.var(ddof=1)) / len(shares) for shares in (of_outside, of_inside))
    margin = STANDARD_ERRORS * math.sqrt(variance)
    return area, (max(0.0, area - margin), min(1.0, area + margin))


def _shares_below(values: Float64[np.ndarray, " n"], others: Float64[np.ndarray, " m"]) -> Float64[np.ndarray, " n"]:
    """Return for each value the share of the others that are lower; equal ones count half."""
    ranked = np.sort(others)
    below, up_to = np.searchsorted(ranked, values, "left"), np.searchsorted(ranked, values, "right")
    shares: Float64[np.ndarray, " n"] = (below + up_to) / (2 * len(others))
    return shares


def false_positives(inside: Float64[np.ndarray, " n"], outside: Float64[np.ndarray, " m"]) -> Bool[np.ndarray, " m"]:
    """Return which of ``outside`` are as sure as the surest 95 % of ``inside`` are, at least."""
    last = _last_accepted(len(inside))
    passes: Bool[np.ndarray, " m"] = outside <= np.partition(inside, last)[last]
    return passes


def _last_accepted(number: int) -> int:
    """Return the position of the least sure of the images that are accepted, among ``number`` in ascending order."""
    return math.ceil(round(ACCEPTED * number, 9)) - 1


def false_positive_interval(
    inside: Float64[np.ndarray, " n"], outside: Float64[np.ndarray, " m"], seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the share of false positives, over the images of both kinds."""
    generator, last, passing = numpy_generator(seed, "bootstrap"), _last_accepted(len(inside)), []
    for _ in range(resamples):
        bound = np.partition(inside[generator.integers(0, len(inside), len(inside))], last)[last]
        passing.append(np.count_nonzero(outside[generator.integers(0, len(outside), len(outside))] <= bound))
    low, high = percentile_bounds(np.array(passing) / len(outside))
    return float(low), float(high)
