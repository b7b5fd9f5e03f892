"""Errors as sums and counts that add, over every ensemble that the replicas can form.

Probabilities are arrays (N, K, C): N images, K replicas, C classes.
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import numpy.typing as npt

from googlenet.randomness import numpy_generator

TOP_K = (1, 5)
CONFIDENCE_PERCENT = 95.0
RESAMPLES = 2000
RESAMPLES_AT_ONCE = 50

Floats = npt.NDArray[np.float64]


def subsets(num_replicas: int) -> dict[int, list[tuple[int, ...]]]:
    """All ensembles by their size: 1 to ``num_replicas`` replicas, 2^K - 1 in all."""
    return {size: list(combinations(range(num_replicas), size)) for size in range(1, num_replicas + 1)}


def label_rank(probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """How many classes come before the label, (N, C) and (N,) to (N,); of equal probabilities the lower class first.

    Raises:
        ValueError: a probability that is not a number would make every label look right.
    """
    if not np.isfinite(probabilities).all():
        raise ValueError("probabilities must be finite")
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)
    before = np.arange(probabilities.shape[1]) < labels[:, None]
    rank: npt.NDArray[np.int64] = ((probabilities > own) | ((probabilities == own) & before)).sum(axis=1)
    return rank


def top_k_errors(probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Whether each image is wrong among the first 1 and the first 5 answers, (N, 2)."""
    rank = label_rank(probabilities, labels)
    return np.stack([rank >= k for k in TOP_K], axis=1)


def ensemble_errors(
    probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]
) -> Iterator[tuple[tuple[int, ...], npt.NDArray[np.bool_]]]:
    """For each ensemble of replicas whether each image is wrong, (N, 2), from averaged softmax outputs (section 7)."""
    for members in (m for group in subsets(probabilities.shape[1]).values() for m in group):
        # Summed in float64 in the order of the replicas: the same for every split of the images.
        mean = probabilities[:, list(members)].astype(np.float64).mean(axis=1)
        yield members, top_k_errors(mean, labels)


def bootstrap_interval(
    values: Floats, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Percentile bootstrap over images: (N, M) to the bounds (M,) and (M,) of the means' 95 % interval.

    All columns are resampled together, so that their differences are paired.
    """
    generator = numpy_generator(seed, "bootstrap")
    images = len(values)
    means = []
    for first in range(0, resamples, RESAMPLES_AT_ONCE):
        drawn = min(RESAMPLES_AT_ONCE, resamples - first)
        counts = generator.multinomial(images, np.full(images, 1 / images), size=drawn)
        means.append(counts @ values / images)
    tail = (100 - CONFIDENCE_PERCENT) / 2
    low, high = np.percentile(np.concatenate(means), [tail, 100 - tail], axis=0)
    return low, high
