"""Intervals of errors: by bootstrap, and exact where all images have the same error and resampling shows no spread."""

import numpy as np
import numpy.typing as npt

from googlenet.evaluation.metrics import CONFIDENCE_PERCENT, bootstrap_interval

Floats = npt.NDArray[np.float64]


def error_interval(columns: Floats, errors: int | None = None) -> tuple[Floats, Floats]:
    """Return the 95 % bounds (M,) of the means of (N, M), errors in percent, by bootstrap over images or exact.

    If ``errors`` is given, only so many columns are errors. The others are differences, which are resampled together
    with them, and have no exact bounds.
    """
    errors = columns.shape[1] if errors is None else errors
    low, high = bootstrap_interval(columns)
    exact_low, exact_high = with_exact_bounds(columns[:, :errors], low[:errors], high[:errors])
    return np.concatenate([exact_low, low[errors:]]), np.concatenate([exact_high, high[errors:]])


def with_exact_bounds(errors: Floats, low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Return bootstrap bounds (M,) of the means of (N, M) errors in percent, exact where all N are equal.

    Where they are 0 or 100, these are the bounds of Clopper and Pearson: with no error among N images, the highest rate
    that has none with a probability of 2.5 %. Where they lie between, such as 33 % if one of three replicas is wrong on
    each image, no larger share of all images differs from them, and the error of those may be 0 or 100. These bounds
    make an interval wider, never narrower. All others stay as they are.
    """
    tail = (100 - CONFIDENCE_PERCENT) / 200
    margin = 100 * (1 - tail ** (1 / len(errors)))
    own, is_same = errors[0], (errors == errors[0]).all(axis=0)
    return (
        np.where(is_same, np.minimum(low, own - margin * (own / 100)), low),
        np.where(is_same, np.maximum(high, own + margin * (1 - own / 100)), high),
    )
