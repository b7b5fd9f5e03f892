"""Intervals that cover other images and other replicas: a two-way bootstrap of the ensembles' errors.

Images and replicas are crossed random effects: both are drawn with replacement, each on its own (the pigeonhole
bootstrap: McCullagh 2000, Owen 2007). The error of one model is a mean over replicas, which can be drawn as they are.
The mean error over the ensembles of k of K replicas is a U-statistic: a replica drawn twice cannot be twice in an
ensemble. What is drawn there are the replicas' jackknife pseudo-values (Arvesen 1969), the effect on the row of
leaving a replica out; for k = 1 they are the replicas' own errors. No ensemble of all K lacks a replica, and few of
nearly all do: for more than about K / 2 models, a replica's effect on ensembles of that size stands in.

A bootstrap over few units is too narrow: it divides by K instead of K - 1, and knows no Student's t. Deviations
between replicas are therefore stretched (the expanded percentile interval: Hesterberg 2015).
"""

from math import comb, sqrt
from statistics import NormalDist

import numpy as np

from googlenet.evaluation.metrics import (
    CONFIDENCE_PERCENT,
    RESAMPLES,
    EnsembleTally,
    image_draws,
    percentile_bounds,
)
from googlenet.randomness import numpy_generator
from googlenet.shapes import Float64

# With two replicas, Student's t has one degree of freedom: the interval would say nothing.
FEWEST_REPLICAS = 3
# float32 adds up whole numbers below this without rounding.
EXACT_IN_FLOAT32 = 2**24


def stretch(replicas: int) -> float:
    """Return the factor that widens deviations between K replicas: Student's t over the normal, and K over K - 1."""
    normal = NormalDist().inv_cdf(0.5 + CONFIDENCE_PERCENT / 200)
    # Rounded, so that the last bit does not depend on the C library.
    return round(_students_t(normal, replicas - 1) / normal * sqrt(replicas / (replicas - 1)), 6)


def _students_t(z: float, degrees: int) -> float:
    """Return the quantile of Student's t where the normal one is ``z`` (Abramowitz and Stegun 26.7.5)."""
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(z + sum(term / degrees**power for power, term in enumerate(terms, 1)))


def two_way_intervals(
    tally: EnsembleTally, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[Float64[np.ndarray, "2 s p 2"], Float64[np.ndarray, "2 s p 2"]]:
    """Return the 95 % intervals of mean errors, and of their differences to one model with the first policy.

    Each has the bounds, low and high, first, then (S, P, 2) for S sizes, P policies, top-1 and top-5; errors from 0 to
    1, differences from -1 to 1. The same images are drawn as by
    :func:`googlenet.evaluation.metrics.bootstrap_interval`.

    Raises:
        ValueError: there are fewer than three replicas.
    """
    errors = resampled_errors(tally, seed, resamples)
    bounds, differences = percentile_bounds(errors), percentile_bounds(errors - errors[:, :1, :1])
    return np.clip(bounds, 0, 1), np.clip(differences, -1, 1)


def resampled_errors(tally: EnsembleTally, seed: int, resamples: int) -> Float64[np.ndarray, "r s p 2"]:
    """Return the mean errors by size and policy in each of R resamples of images and replicas."""
    counts, without = tally.counts(), tally.counts_without()
    images, replicas = without.shape[:2]
    if replicas < FEWEST_REPLICAS:
        raise ValueError(f"the spread of {replicas} replicas is unknown; {FEWEST_REPLICAS} are needed")
    columns = np.concatenate([counts.reshape(images, -1), without.reshape(images, -1)], axis=1)
    exact = np.float32 if images * int(columns.max(initial=0)) < EXACT_IN_FLOAT32 else np.float64
    columns = columns.astype(exact)
    sums = np.concatenate([draws.astype(exact) @ columns for draws in image_draws(images, seed, resamples)])
    split = counts[0].size
    of_size = sums[:, :split].astype(np.float64).reshape(resamples, *counts.shape[1:])
    left_out = sums[:, split:].astype(np.float64).reshape(resamples, *without.shape[1:])
    generator = numpy_generator(seed, "bootstrap", 1)
    draws_of_replicas = generator.multinomial(replicas, np.full(replicas, 1 / replicas), size=resamples)
    # Sums of whole numbers, and then one rounded operation after the other: the same bits everywhere.
    moved = ((draws_of_replicas - 1)[:, :, None, None, None] * left_out).sum(axis=1)
    largest = without.shape[2]
    moved /= _per_image(images, [comb(replicas - 1, size) for size in range(1, largest + 1)])
    moved = np.concatenate([moved, *[moved[:, -1:]] * (replicas - largest)], axis=1)
    errors = of_size / _per_image(images, [comb(replicas, size) for size in range(1, replicas + 1)])
    resampled: Float64[np.ndarray, "r s p 2"] = errors - stretch(replicas) * (replicas - 1) / replicas * moved
    return resampled


def _per_image(images: int, ensembles: list[int]) -> Float64[np.ndarray, "s 1 1"]:
    return images * np.array(ensembles, np.float64)[:, None, None]
