"""Intervals of errors where all images are right, or all wrong: a bootstrap would have nothing to draw from."""

import numpy as np
import numpy.typing as npt

from googlenet.evaluation.metrics import CONFIDENCE_PERCENT

Floats = npt.NDArray[np.float64]


def with_exact_bounds(errors: Floats, low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Return bootstrap bounds (M,) of the means of (N, M) errors in percent, exact where all N are 0, or all 100.

    These are the bounds of Clopper and Pearson: with no error among N images, the highest rate that has none with a
    probability of 2.5 %. All other bounds stay as they are.
    """
    tail = (100 - CONFIDENCE_PERCENT) / 200
    margin = 100 * (1 - tail ** (1 / max(1, len(errors))))
    is_right, is_wrong = (errors == 0).all(axis=0), (errors == 100).all(axis=0)
    return np.where(is_wrong, 100 - margin, low), np.where(is_right, margin, high)
