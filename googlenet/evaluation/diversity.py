"""Disagreement between the replicas of an ensemble, and the gain from averaging them."""

from itertools import combinations
from typing import TypedDict

import numpy as np

from googlenet.shapes import Float, Float64


class DisagreementTally:
    """Share of images on which each pair of K replicas gives different answers, updated incrementally."""

    def __init__(self, num_replicas: int) -> None:
        self._images = 0
        self._different = np.zeros((num_replicas, num_replicas), np.int64)

    def update(self, probabilities: Float[np.ndarray, "n k c"]) -> None:
        """Add N images: (N, K, C)."""
        answers = probabilities.argmax(axis=2)
        self._images += len(answers)
        self._different += (answers[:, :, None] != answers[:, None, :]).sum(axis=0)

    def percent(self) -> Float64[np.ndarray, "k k"]:
        """Return (K, K) images with different top-1 answers, in percent."""
        share: Float64[np.ndarray, "k k"] = 100 * self._different / self._images
        return share


class PairGain(TypedDict):
    """Two replicas by position, and their disagreement and gain: how much lower their error is than their mean's."""

    replicas: list[int]
    disagreement: float
    gain: float


def gains(disagreement: Float64[np.ndarray, "k k"], errors: dict[tuple[int, ...], float]) -> list[PairGain]:
    """Return the gain of each pair of replicas, and its disagreement, both in percentage points.

    ``errors`` are in percent, by the members of an ensemble.
    """
    return [
        {
            "replicas": [first, second],
            "disagreement": float(disagreement[first, second]),
            "gain": (errors[first,] + errors[second,]) / 2 - errors[first, second],
        }
        for first, second in combinations(range(len(disagreement)), 2)
    ]
