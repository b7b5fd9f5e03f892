"""Calibration of probabilities: likelihood, Brier score, calibration error, reliability diagram."""

from typing import TypedDict

import numpy as np

from googlenet.shapes import Float, Float64, Int64, Integer

BINS = 15
# Names of the scores, in the order of report.json.
SCORES = ("negative_log_likelihood", "brier_score", "expected_calibration_error")
# A probability of exactly zero for the true class would make the likelihood infinite.
LEAST_PROBABILITY = float(np.finfo(np.float32).tiny)
# The smallest number of float16, in which probabilities of single views are kept: smaller ones may be 0 there.
LEAST_KEPT = 2.0**-24


def brier_scores(probabilities: Float[np.ndarray, "*n c"], own: Float64[np.ndarray, "*n"]) -> Float64[np.ndarray, "*n"]:
    """Return the sum over classes of (p - y)^2, 0 to 2, without writing out y; ``own`` is that of the true class."""
    scores: Float64[np.ndarray, "*n"] = np.square(probabilities, dtype=np.float64).sum(axis=-1) - 2 * own + 1
    return scores


def bins_of(confidence: Float[np.ndarray, "*n"]) -> Int64[np.ndarray, "*n"]:
    """Return the bin of each confidence; bins include their upper bound, as in Guo et al. 2017."""
    # Always in float64: the float32 nearest to 0.4 is larger, but its product with 15 is rounded to 6.
    return np.clip(np.ceil(confidence.astype(np.float64) * BINS).astype(np.int64) - 1, 0, BINS - 1)


class ReliabilityBin(TypedDict):
    """A bin of a reliability diagram: its bounds and mean confidence, probabilities; images; share of right answers."""

    confidence_from: float
    confidence_to: float
    images: int
    mean_confidence: float
    accuracy: float


class CalibrationTally:
    """Calibration of one classifier's probabilities over C classes, updated incrementally."""

    def __init__(self) -> None:
        self._images, self._log_likelihood, self._brier = 0, 0.0, 0.0
        # Rows: images, sum of confidences, correct answers.
        self._bins = np.zeros((3, BINS))

    def update(self, probabilities: Float[np.ndarray, "n c"], labels: Integer[np.ndarray, " n"]) -> None:
        """Add N images: (N, C) and (N,)."""
        own = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0].astype(np.float64)
        self._images += len(labels)
        self._log_likelihood += float(np.log(np.maximum(own, LEAST_PROBABILITY)).sum())
        self._brier += float(brier_scores(probabilities, own).sum())
        confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
        position = bins_of(confidence)
        for row, weights in enumerate((np.ones(len(labels)), confidence, correct)):
            self._bins[row] += np.bincount(position, weights, BINS)

    def scores(self) -> dict[str, float]:
        """Return means over images: negative log-likelihood in nats, Brier score (0 to 2), calibration error (0 to 1).

        The calibration error is the area between the reliability diagram and its diagonal, weighted by images.
        """
        _, confidence, correct = self._bins
        sums = -self._log_likelihood, self._brier, float(np.abs(confidence - correct).sum())
        return {name: total / self._images for name, total in zip(SCORES, sums, strict=True)}

    def reliability(self) -> list[ReliabilityBin]:
        """Return the non-empty bins of the reliability diagram, by confidence."""
        return [
            {
                "confidence_from": position / BINS,
                "confidence_to": (position + 1) / BINS,
                "images": int(images),
                "mean_confidence": float(confidence / images),
                "accuracy": float(correct / images),
            }
            for position, (images, confidence, correct) in enumerate(self._bins.T)
            if images
        ]
