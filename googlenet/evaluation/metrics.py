"""Errors of every ensemble that the replicas can form, as sums and counts that can be added; intervals over images.

Probabilities are arrays (N, K, C): N images, K replicas, C classes.
"""

from collections.abc import Iterator
from functools import lru_cache
from itertools import combinations

import numpy as np

from googlenet.randomness import numpy_generator
from googlenet.shapes import Bool, Float, Float64, Int64, Integer

TOP_K = (1, 5)
CONFIDENCE_PERCENT = 95.0
RESAMPLES = 2000
RESAMPLES_AT_ONCE = 50
# Probabilities of one replica that are judged together: a call for each ensemble takes as long as hundreds of them.
JUDGED_AT_ONCE = 5_000
KEPT_DRAWS = 20_000_000  # 40 MB: 10,000 images, resampled 2,000 times

Labels = Integer[np.ndarray, " n"]


def subsets(num_replicas: int) -> dict[int, list[tuple[int, ...]]]:
    """Return all ensembles by size: 1 to ``num_replicas`` replicas, 2^K - 1 in all."""
    return {size: list(combinations(range(num_replicas), size)) for size in range(1, num_replicas + 1)}


def largest_without_one(num_replicas: int) -> int:
    """Return H, the largest size of ensembles that are also counted without each of their K replicas: about K / 2.

    Of larger ones too few lack a given replica to show its effect.
    """
    return min(num_replicas // 2 + 1, num_replicas - 1)


def label_rank(probabilities: Float[np.ndarray, "n c"], labels: Labels) -> Int64[np.ndarray, " n"]:
    """Return how many classes rank before the label, (N, C) and (N,) to (N,); ties go to the lower class.

    Raises:
        ValueError: a probability is not finite; NaN would make every label look right.
    """
    if not np.isfinite(probabilities).all():
        raise ValueError("probabilities must be finite")
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)
    before = np.arange(probabilities.shape[1]) < labels[:, None]
    rank: Int64[np.ndarray, " n"] = ((probabilities > own) | ((probabilities == own) & before)).sum(axis=1)
    return rank


def top_k_errors(probabilities: Float[np.ndarray, "n c"], labels: Labels) -> Bool[np.ndarray, "n 2"]:
    """Return whether the label is not among the first 1 and the first 5 answers of each image, (N, 2)."""
    rank = label_rank(probabilities, labels)
    return np.stack([rank >= k for k in TOP_K], axis=1)


def ensemble_sums(
    probabilities: Float[np.ndarray, "n k c"],
) -> Iterator[tuple[tuple[int, ...], Float64[np.ndarray, "n c"]]]:
    """Yield for each ensemble the sum (N, C) of its members' probabilities, by size; it ranks like the mean.

    Each sum is that of a smaller ensemble plus one replica, in the order of the replicas: the same for every split of
    the images, and one addition per ensemble.
    """
    members_of_size = subsets(probabilities.shape[1])
    smaller: dict[tuple[int, ...], Float64[np.ndarray, "n c"]] = {(): np.zeros(probabilities[:, 0].shape)}
    for group in members_of_size.values():
        sums = {members: smaller[members[:-1]] + probabilities[:, members[-1]] for members in group}
        yield from sums.items()
        smaller = sums


def ensemble_errors(
    probabilities: Float[np.ndarray, "n k c"], labels: Labels
) -> Iterator[tuple[tuple[int, ...], Bool[np.ndarray, "n 2"]]]:
    """Yield for each ensemble whether each image is wrong, (N, 2), from averaged softmax outputs (section 7)."""
    for members, total in ensemble_sums(probabilities):
        yield members, top_k_errors(total, labels)


class EnsembleTally:
    """Errors of all ensembles of K replicas under P policies, updated incrementally; memory grows by bytes per image.

    A few images are judged together, so probabilities of some are kept until then.

    Attributes:
        ensembles: the members of each of the E ensembles.
    """

    def __init__(self, num_replicas: int, num_policies: int) -> None:
        by_size = subsets(num_replicas)
        self.ensembles = [members for group in by_size.values() for members in group]
        self._wrong = np.zeros((len(self.ensembles), num_policies, len(TOP_K)), np.int64)
        self._sizes = [len(group) for group in by_size.values()]
        self._num_replicas = num_replicas
        # A row for each size; then one for each replica and each size up to H, the ensembles without that replica.
        has_size = np.array([[len(members) == size for members in self.ensembles] for size in by_size])
        lacks = np.array([[replica not in members for members in self.ensembles] for replica in range(num_replicas)])
        without = (lacks[:, None] & has_size[None, : largest_without_one(num_replicas)]).reshape(
            -1, len(self.ensembles)
        )
        self._groups = np.concatenate([has_size, without]).astype(np.float32)
        self._counts_type = np.min_scalar_type(int(self._groups.sum(axis=1).max()))
        self._by_image: list[np.ndarray] = []
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []

    def update(self, probabilities: Float[np.ndarray, "n k p c"], labels: Labels) -> None:
        """Add N images: (N, K, P, C) and (N,).

        Raises:
            ValueError: a probability is not finite.
        """
        if not np.isfinite(probabilities).all():
            raise ValueError("probabilities must be finite")
        self._waiting.append((probabilities, labels))
        if sum(len(waiting) for _, waiting in self._waiting) * probabilities.shape[-1] >= JUDGED_AT_ONCE:
            self._judge()

    def _judge(self) -> None:
        if not self._waiting:
            return
        probabilities, labels = (np.concatenate(of_files) for of_files in zip(*self._waiting, strict=True))
        self._waiting.clear()
        images, _, policies, _ = probabilities.shape
        counts = np.zeros((images, len(self._groups), policies, len(TOP_K)), self._counts_type)
        for policy in range(policies):
            errors = ensemble_errors(probabilities[:, :, policy], labels)
            wrong = np.stack([wrong for _, wrong in errors], axis=1)
            self._wrong[:, policy] += wrong.sum(axis=0)
            # Whole numbers below 2^24, which float32 adds up without rounding.
            counts[:, :, policy] = self._groups @ wrong.astype(np.float32)
        self._by_image.append(counts)

    @property
    def wrong(self) -> Int64[np.ndarray, "e p 2"]:
        """(E, P, 2) images that each ensemble answers wrongly, by top-1 and top-5."""
        self._judge()
        return self._wrong

    def _counted(self) -> Integer[np.ndarray, "n g p 2"]:
        self._judge()
        return np.concatenate(self._by_image)

    def counts(self) -> Integer[np.ndarray, "n s p 2"]:
        """Return (N, S, P, 2): the number of ensembles of each size that are wrong about each image."""
        return self._counted()[:, : len(self._sizes)]

    def counts_without(self) -> Integer[np.ndarray, "n k h p 2"]:
        """Return (N, K, H, P, 2): of the ensembles without replica k, by size up to H, the number that are wrong."""
        without = self._counted()[:, len(self._sizes) :]
        images, _, policies, tops = without.shape
        largest = largest_without_one(self._num_replicas)
        return without.reshape(images, self._num_replicas, largest, policies, tops)

    def by_image(self) -> Float64[np.ndarray, "n s p 2"]:
        """Return (N, S, P, 2): the share of the ensembles of each size that is wrong about each image."""
        shares: Float64[np.ndarray, "n s p 2"] = self.counts() / np.array(self._sizes)[:, None, None]
        return shares

    def number_of(self, *members: int) -> int:
        """Return the position of an ensemble in ``ensembles``."""
        return self.ensembles.index(members)


def image_draws(images: int, seed: int, resamples: int) -> Iterator[Int64[np.ndarray, "r n"]]:
    """Yield, some resamples at a time, how often each of N images is drawn in a bootstrap over images."""
    if images * resamples > KEPT_DRAWS:
        yield from _new_draws(images, seed, resamples)
    else:
        for drawn in _kept_draws(images, seed, resamples):
            yield drawn.astype(np.int64)


@lru_cache(maxsize=1)
def _kept_draws(images: int, seed: int, resamples: int) -> list[Integer[np.ndarray, "r n"]]:
    """Return all draws, for the other scores of the same images: a report asks for the same ones a dozen times."""
    return [drawn.astype(np.min_scalar_type(images)) for drawn in _new_draws(images, seed, resamples)]


def _new_draws(images: int, seed: int, resamples: int) -> Iterator[Int64[np.ndarray, "r n"]]:
    generator = numpy_generator(seed, "bootstrap")
    for first in range(0, resamples, RESAMPLES_AT_ONCE):
        drawn = min(RESAMPLES_AT_ONCE, resamples - first)
        yield generator.multinomial(images, np.full(images, 1 / images), size=drawn)


def percentile_bounds(means: Float64[np.ndarray, "r ..."]) -> Float64[np.ndarray, "2 ..."]:
    """Return the bounds, low and high, that hold 95 % of the resampled means."""
    tail = (100 - CONFIDENCE_PERCENT) / 2
    bounds: Float64[np.ndarray, "2 ..."] = np.percentile(means, [tail, 100 - tail], axis=0)
    return bounds


def bootstrap_interval(
    values: Float64[np.ndarray, "n m"], seed: int = 0, resamples: int = RESAMPLES
) -> tuple[Float64[np.ndarray, " m"], Float64[np.ndarray, " m"]]:
    """Return the 95 % interval of the means of (N, M) by percentile bootstrap over images, as two bounds (M,).

    All columns are resampled together, so that a column of differences gives a paired interval.
    """
    low, high = percentile_bounds(np.concatenate(list(resampled_means(values, seed, resamples))))
    return low, high


def resampled_means(
    values: Float64[np.ndarray, "n ..."], seed: int = 0, resamples: int = RESAMPLES
) -> Iterator[Float64[np.ndarray, "r ..."]]:
    """Yield, some resamples at a time, the means of N rows in a bootstrap over images."""
    images = len(values)
    # Integers, which add up without rounding: a matrix product adds in an order that depends on the processor, the
    # threads and the memory layout, and the report must be bit-identical.
    unit = 2.0 ** np.floor(52 - np.log2(max(1.0, images * np.abs(values).max(initial=0.0))))
    whole = np.rint(values * unit).reshape(images, -1)
    for counts in image_draws(images, seed, resamples):
        yield (counts @ whole / (images * unit)).reshape(-1, *values.shape[1:])
