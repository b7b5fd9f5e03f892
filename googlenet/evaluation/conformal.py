"""Prediction sets that hold the label with a chosen probability: split conformal prediction, adaptive to the image.

The score of a class is the probability of all classes that are likelier (Romano et al. 2020, without randomisation); a
penalty on ranks keeps sets of many classes short (Angelopoulos et al. 2021). A set holds the classes whose score is at
most the threshold, a quantile of the labels' scores on other images. If those images and the new one are exchangeable,
the set holds the label with at least the chosen probability, on average over images; not for each class, nor for images
of another kind.

The textbook's deterministic form counts a class's own probability as well. Where answers are sure, its threshold is
close to one: the surest images would have empty sets, and all others nearly every class.
"""

import math
from dataclasses import dataclass

import numpy as np

from googlenet.evaluation.metrics import label_rank
from googlenet.shapes import Bool, Float, Float64, Int64, Integer

Labels = Integer[np.ndarray, " n"]


@dataclass(frozen=True)
class SetRule:
    """Penalty on the ranks of classes.

    Attributes:
        penalty: added to the score of a class for each rank after ``free_ranks``; 0 for none.
        free_ranks: number of first classes without a penalty.
    """

    penalty: float = 0.0
    free_ranks: int = 1

    def __post_init__(self) -> None:
        if self.penalty < 0 or self.free_ranks < 1:
            raise ValueError(f"penalty must not be negative and free_ranks at least 1, got {self}")

    def of_ranks(self, ranks: Int64[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
        """Return the penalties of ranks that count from 0."""
        penalties: Float64[np.ndarray, "*n"] = self.penalty * np.maximum(0, ranks + 1 - self.free_ranks)
        return penalties


UNPENALISED = SetRule()


def label_mass(
    probabilities: Float[np.ndarray, "n c"], labels: Labels
) -> tuple[Float64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Return the probability of all classes likelier than the label, and the label's rank from 0."""
    ranks = label_rank(probabilities, labels)
    before = _before(-np.sort(-probabilities.astype(np.float64), axis=1))
    return before[np.arange(len(labels)), ranks], ranks


def label_scores(
    probabilities: Float[np.ndarray, "n c"], labels: Labels, rule: SetRule = UNPENALISED
) -> Float64[np.ndarray, " n"]:
    """Return the score of each image's label."""
    mass, ranks = label_mass(probabilities, labels)
    scores: Float64[np.ndarray, " n"] = mass + rule.of_ranks(ranks)
    return scores


def threshold(scores: Float64[np.ndarray, " n"], coverage: float) -> float:
    """Return the threshold for sets that hold the label with probability ``coverage``, from N labels' scores.

    Infinite, so that sets hold all classes, where N is too small for the coverage.

    Raises:
        ValueError: the coverage is not between 0 and 1.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage must be between 0 and 1, got {coverage}")
    place = _place(len(scores), coverage)
    return math.inf if place > len(scores) else float(np.sort(scores)[place - 1])


def fewest_scores(coverage: float) -> int:
    """Return from how many labels' scores on the threshold for ``coverage`` is finite."""
    # The quotient has an error that is large near 1, so the threshold's own rule decides whether one fewer is enough.
    fewer = max(0, math.ceil(coverage / (1 - coverage)) - 1)
    return fewer if _place(fewer, coverage) <= fewer else fewer + 1


def _place(scores: int, coverage: float) -> int:
    """Return the place, from 1, of the threshold among so many sorted scores; it may lie behind the last."""
    # Rounded against the last bit: 0.9 x 10 is 9, not 9.000000000000002.
    return math.ceil(round((scores + 1) * coverage, 9))


def highest_coverage(scores: int) -> float:
    """Return the highest coverage with a finite threshold, rounded down to four decimals."""
    return math.floor(10_000 * scores / (scores + 1)) / 10_000


def prediction_sets(
    probabilities: Float[np.ndarray, "n c"], limit: float, rule: SetRule = UNPENALISED
) -> Bool[np.ndarray, "n c"]:
    """Return which classes are in each image's set, (N, C); the likeliest class always is: its score is 0."""
    order = np.argsort(-probabilities, axis=1, kind="stable")
    scores = _before(np.take_along_axis(probabilities.astype(np.float64), order, axis=1))
    scores += rule.of_ranks(np.arange(probabilities.shape[1]))
    inside = np.zeros(probabilities.shape, bool)
    np.put_along_axis(inside, order, scores <= limit, axis=1)
    return inside


def _before(descending: Float64[np.ndarray, "n c"]) -> Float64[np.ndarray, "n c"]:
    """Return for each place the sum of the places before it."""
    sums: Float64[np.ndarray, "n c"] = np.cumsum(np.pad(descending[:, :-1], ((0, 0), (1, 0))), axis=1)
    return sums
