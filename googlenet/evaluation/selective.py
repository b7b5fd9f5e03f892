"""Answers that are left to people: which error remains if the least sure images are not answered.

Three measures of how unsure an ensemble is: one minus the largest mean probability; the entropy of the mean; and the
mutual information of answer and replica, the entropy of the mean minus the mean of the entropies, which is the part
that comes from the replicas' disagreement.
"""

import numpy as np

from googlenet.evaluation.metrics import RESAMPLES, RESAMPLES_AT_ONCE, percentile_bounds
from googlenet.randomness import numpy_generator
from googlenet.shapes import Bool, Float, Float64

MEASURES = ("maximum_probability", "entropy", "mutual_information")


def uncertainties(probabilities: Float[np.ndarray, "n k c"]) -> dict[str, Float64[np.ndarray, " n"]]:
    """Return how unsure K replicas are together about each of N images, by the name of the measure.

    One replica cannot disagree: its mutual information would be 0 for all images, and is left out.
    """
    mean = probabilities.mean(axis=1, dtype=np.float64)
    entropy = _entropy(mean)
    unsure = [1 - mean.max(axis=1), entropy]
    if probabilities.shape[1] > 1:
        unsure.append(entropy - _entropy(probabilities.astype(np.float64)).mean(axis=1))
    return dict(zip(MEASURES, unsure, strict=False))


def _entropy(probabilities: Float64[np.ndarray, "*n c"]) -> Float64[np.ndarray, "*n"]:
    """Return the entropy in nats; a probability of zero adds nothing."""
    logarithms = np.log(np.where(probabilities > 0, probabilities, 1.0))
    entropy: Float64[np.ndarray, "*n"] = -(probabilities * logarithms).sum(axis=-1)
    return entropy


def remaining_errors(
    uncertainty: Float64[np.ndarray, " n"], wrong: Bool[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """Return the share of wrong answers among the surest 1, 2, ..., N images.

    Equally sure images share their wrong answers evenly, so that the order of the images does not matter.
    """
    _, group, images = np.unique(uncertainty, return_inverse=True, return_counts=True)
    errors_of_group = np.bincount(group, wrong) / images
    return np.cumsum(np.repeat(errors_of_group, images)) / np.arange(1, len(wrong) + 1)


def area_under_risk(uncertainty: Float64[np.ndarray, " n"], wrong: Bool[np.ndarray, " n"]) -> float:
    """Return the mean of :func:`remaining_errors` over all shares of answered images (AURC); lower is better."""
    return float(remaining_errors(uncertainty, wrong).mean())


def area_interval(
    uncertainty: Float64[np.ndarray, " n"], wrong: Bool[np.ndarray, " n"], seed: int = 0, resamples: int = RESAMPLES
) -> list[float]:
    """Return the 95 % bootstrap interval over images of the area."""
    generator, images = numpy_generator(seed, "bootstrap"), len(wrong)
    distinct, group = np.unique(uncertainty, return_inverse=True)
    areas = []
    for first in range(0, resamples, RESAMPLES_AT_ONCE):
        rows = min(RESAMPLES_AT_ONCE, resamples - first)
        drawn = generator.integers(0, images, (rows, images))
        # Each resample has its own cells, one for each distinct uncertainty.
        cells = (group[drawn] + len(distinct) * np.arange(rows)[:, None]).ravel()
        images_of = np.bincount(cells, minlength=rows * len(distinct))
        errors_of = np.bincount(cells, wrong[drawn].ravel(), len(images_of)) / np.maximum(1, images_of)
        surest_first = np.repeat(errors_of, images_of).reshape(rows, images)
        areas.append((np.cumsum(surest_first, axis=1) / np.arange(1, images + 1)).mean(axis=1))
    bounds: list[float] = percentile_bounds(np.concatenate(areas)).tolist()
    return bounds
