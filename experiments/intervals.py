"""Intervals of differences between ensembles: over images, over seeds, and over images and replicas."""

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from googlenet.evaluation.metrics import (
    CONFIDENCE_PERCENT,
    RESAMPLES,
    bootstrap_interval,
    image_draws,
    percentile_bounds,
)
from googlenet.evaluation.two_way import stretch
from googlenet.randomness import numpy_generator

Floats = npt.NDArray[np.float64]
Interval = Callable[[Sequence[Floats]], tuple[Floats, Floats]]


def student_interval(values: Floats) -> tuple[Floats, Floats]:
    """Return the bounds of the 95 % interval of the mean over the rows of (n, M), by Student's t."""
    tail = (1 + CONFIDENCE_PERCENT / 100) / 2
    half: Floats = stats.t.ppf(tail, len(values) - 1) * values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return values.mean(axis=0) - half, values.mean(axis=0) + half


def over_images(by_image: Sequence[Floats], digests: Sequence[str]) -> tuple[Floats, Floats]:
    """Return bounds for values (N, P) of each seed, by resampling images.

    Seeds whose data sets have the same digest answered the same images. Each of these counts once, with the mean of its
    values: counted once for each seed, they would make the interval too narrow.
    """
    by_data_set: dict[str, list[Floats]] = defaultdict(list)
    for digest, values in zip(digests, by_image, strict=True):
        by_data_set[digest].append(values)
    return bootstrap_interval(np.concatenate([np.mean(values, axis=0) for values in by_data_set.values()]))


def over_seeds(by_image: Sequence[Floats]) -> tuple[Floats, Floats]:
    """Return bounds for values (N, P) of each seed, from the spread of the seeds' means."""
    return student_interval(np.array([values.mean(axis=0) for values in by_image]))


def over_images_and_replicas(
    values: Floats, left_out: Floats, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[Floats, Floats]:
    """Return the bounds (P,) of the 95 % interval of the mean over images of ``values`` (N, P).

    ``left_out`` (K, N, P) holds the values without each of the K replicas, as means over ensembles of about half of
    them. The method is that of the report (:mod:`googlenet.evaluation.two_way`): images are drawn with replacement, and
    so are the replicas' jackknife pseudo-values, whose deviations are stretched for few replicas.
    """
    replicas, images, columns = left_out.shape
    by_image = np.concatenate([values[None], left_out]).transpose(1, 0, 2).reshape(images, -1)
    sums = np.concatenate([draws @ by_image for draws in image_draws(images, seed, resamples)])
    means = sums.reshape(resamples, 1 + replicas, columns) / images
    draws = numpy_generator(seed, "bootstrap", 1).multinomial(replicas, np.full(replicas, 1 / replicas), size=resamples)
    # The mean of the drawn pseudo-values K q - (K - 1) q_k, less that of all of them.
    moved = -(replicas - 1) / replicas * ((draws - 1)[:, :, None] * means[:, 1:]).sum(axis=1)
    low, high = percentile_bounds(means[:, 0] + stretch(replicas) * moved)
    return low, high
