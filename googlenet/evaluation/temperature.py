"""Temperature: one number that makes averaged probabilities mean what they say.

Averages over many views and replicas are too cautious: each view that is unsure lowers the confidence of all. The
probabilities are averaged first and calibrated after (Rahaman and Thiery 2021): p becomes p^(1/T), scaled to add up to
one, with the T that makes the labels likeliest (Guo et al. 2017). The order of the classes, and so every top-k error,
stays as it is.

What is fitted on images is judged on others: the images are split into folds by a hash of their ids, and each fold is
judged with the temperature of the rest.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from googlenet.evaluation.calibration import (
    BINS,
    LEAST_PROBABILITY,
    SCORES,
    CalibrationTally,
    ReliabilityBin,
    bins_of,
    brier_scores,
)
from googlenet.evaluation.metrics import bootstrap_interval, percentile_bounds, resampled_means
from googlenet.shapes import Float, Float64, Int64, Integer

FOLDS = 5
# With fewer, the temperature says more about the images than about the network.
FEWEST_IMAGES = 40
# Where every answer is right, no temperature is low enough.
LOWEST, HIGHEST = 0.05, 20.0
# Steps of Newton's method, which needs about ten; a temperature is fitted to this part of its inverse.
STEPS, PRECISION = 100, 1e-9

Labels = Integer[np.ndarray, " n"]


def with_temperature(
    probabilities: Float[np.ndarray, "*n c"], temperature: float, least: float = LEAST_PROBABILITY
) -> Float64[np.ndarray, "*n c"]:
    """Return p^(1/T), scaled to add up to one over the last axis; with T = 1 nothing but rounding changes.

    Probabilities below ``least`` count as that: give the one with which the temperature was fitted.
    """
    return _softmax(_logarithms(probabilities, least) / temperature)


def fit_temperature(
    probabilities: Float[np.ndarray, "k n c"], labels: Labels, least: float = LEAST_PROBABILITY
) -> float:
    """Return the temperature that makes the labels of N images likeliest, shared by K classifiers.

    Probabilities below ``least`` count as that.
    The negative log-likelihood is convex in 1/T: Newton's method, kept between two bounds of the minimum. A step past
    the lowest or the highest temperature tries that one itself: the minimum may lie beyond it.
    """
    logarithms = _logarithms(probabilities, least)
    own = np.take_along_axis(logarithms, np.broadcast_to(labels[:, None], (*logarithms.shape[:2], 1)), axis=2)
    wanted = float(own.mean())
    low, high, inverse = 1 / HIGHEST, 1 / LOWEST, 1.0
    untried = {low, high}
    for _ in range(STEPS):
        shares = _softmax(inverse * logarithms)
        means = (shares * logarithms).sum(axis=2)
        slope = float(means.mean()) - wanted
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        if low == high:  # at a bound, and the minimum lies beyond it
            break
        curvature = float((shares * np.square(logarithms)).sum(axis=2).mean() - np.square(means).mean())
        step = inverse - slope / curvature if curvature > 0 else np.inf
        bound = low if step <= low else high
        outside = bound if bound in untried else (low * high) ** 0.5
        following = float(step) if low < step < high else outside
        untried.discard(following)
        if abs(following - inverse) <= PRECISION * inverse:
            break
        inverse = following
    return 1 / inverse


def folds_of(image_ids: Iterable[str]) -> Int64[np.ndarray, " n"]:
    """Return the fold of each image, 0 to ``FOLDS`` - 1: the same in every run that shows it."""
    return np.array([int.from_bytes(digest[:8], "big") % FOLDS for digest in _digests(image_ids)], np.int64)


def hash_shares(image_ids: Iterable[str]) -> Float64[np.ndarray, " n"]:
    """Return a number from 0 to 1 for each image, evenly spread and independent of its fold, to choose a share by."""
    return np.array([int.from_bytes(digest[8:16], "big") / 2**64 for digest in _digests(image_ids)], np.float64)


def _digests(image_ids: Iterable[str]) -> Iterator[bytes]:
    return (hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest() for name in image_ids)


def cross_fitted(
    probabilities: Float[np.ndarray, "k n c"], labels: Labels, folds: Int64[np.ndarray, " n"]
) -> Float64[np.ndarray, "k n c"]:
    """Return the probabilities with a temperature, that of each fold's images fitted on the images of the others."""
    calibrated = np.empty(probabilities.shape)
    for fold in np.unique(folds):
        inside = folds == fold
        temperature = fit_temperature(probabilities[:, ~inside], labels[~inside])
        calibrated[:, inside] = with_temperature(probabilities[:, inside], temperature)
    return calibrated


class JudgedTemperature:
    """Scores of K classifiers' probabilities, (K, N, C), before and after a change, with intervals over images."""

    def __init__(
        self, before: Float[np.ndarray, "k n c"], after: Float[np.ndarray, "k n c"], labels: Labels, seed: int = 0
    ) -> None:
        self._labels, self._seed = labels, seed
        self._stages = (before, after)

    def scores(self) -> dict[str, dict[str, Any]]:
        """Return for each score its ``before``, ``after`` and ``difference``, each with ``ci95``.

        Means over the classifiers of: negative log-likelihood in nats, Brier score (0 to 2) and expected calibration
        error (0 to 1).
        """
        likelihoods, briers = zip(*(_by_image(stage, self._labels) for stage in self._stages), strict=True)
        columns = np.stack([c for pair in (likelihoods, briers) for c in (*pair, pair[1] - pair[0])], axis=1)
        bounds = np.stack(bootstrap_interval(columns, self._seed), axis=1)
        numbers = [(float(mean), pair.tolist()) for mean, pair in zip(columns.mean(axis=0), bounds, strict=True)]
        numbers += self._calibration_errors()
        return {name: _score(*numbers[3 * place : 3 * place + 3]) for place, name in enumerate(SCORES)}

    def by_image(self) -> list[dict[str, Float64[np.ndarray, " n"]]]:
        """Return each image's negative log-likelihood and Brier score, means over the classifiers, before and after."""
        return [dict(zip(SCORES[:2], _by_image(stage, self._labels), strict=True)) for stage in self._stages]

    def _calibration_errors(self) -> list[tuple[float, list[float]]]:
        """Return the calibration error before, after, and their difference, each with its interval."""
        gaps = [_gaps(stage, self._labels) for stage in self._stages]
        resampled = [np.concatenate([_error(means) for means in resampled_means(one, self._seed)]) for one in gaps]
        errors = [float(_error(of_stage.mean(axis=0))) for of_stage in gaps]
        values = [*errors, errors[1] - errors[0]]
        errors_drawn = np.stack([*resampled, resampled[1] - resampled[0]], axis=1)
        # Drawing adds noise to every bin, so that drawn errors are too large on average: their bounds are moved by it.
        bounds = (percentile_bounds(errors_drawn) + values - errors_drawn.mean(axis=0)).T
        bounds[:2] = np.maximum(bounds[:2], 0)
        return [(value, pair.tolist()) for value, pair in zip(values, bounds, strict=True)]

    def reliability(self) -> tuple[list[ReliabilityBin], list[ReliabilityBin]]:
        """Return the reliability diagrams of all classifiers' answers, before and after."""
        diagrams = []
        for stage in self._stages:
            tally = CalibrationTally()
            for of_one in stage:
                tally.update(of_one, self._labels)
            diagrams.append(tally.reliability())
        return diagrams[0], diagrams[1]


def _score(
    before: tuple[float, list[float]], after: tuple[float, list[float]], change: tuple[float, list[float]]
) -> dict[str, Any]:
    stages = {"before": before, "after": after, "difference": change}
    return {
        key: value for name, (mean, bounds) in stages.items() for key, value in ((name, mean), (f"{name}_ci95", bounds))
    }


def _by_image(
    probabilities: Float[np.ndarray, "k n c"], labels: Labels
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Return each image's negative log-likelihood and Brier score, means over the classifiers."""
    own = np.take_along_axis(probabilities, np.broadcast_to(labels[:, None], (*probabilities.shape[:2], 1)), axis=2)
    own = own[..., 0].astype(np.float64)
    return -np.log(np.maximum(own, LEAST_PROBABILITY)).mean(axis=0), brier_scores(probabilities, own).mean(axis=0)


def _gaps(probabilities: Float[np.ndarray, "k n c"], labels: Labels) -> Float64[np.ndarray, "n k b"]:
    """Return confidence minus correctness of each answer, in the column of its bin."""
    confidence = probabilities.max(axis=2).astype(np.float64)
    correct = probabilities.argmax(axis=2) == labels
    gaps = np.zeros((*confidence.shape, BINS))
    np.put_along_axis(gaps, bins_of(confidence)[..., None], (confidence - correct)[..., None], axis=2)
    return gaps.swapaxes(0, 1)


def _error(gaps: Float64[np.ndarray, "*r k b"]) -> Any:
    """Return the calibration error, mean over the classifiers, from the mean gaps by bin: of shape (*r)."""
    return np.abs(gaps).sum(axis=-1).mean(axis=-1)


def _logarithms(probabilities: Float[np.ndarray, "*n c"], least: float) -> Float64[np.ndarray, "*n c"]:
    return np.log(np.maximum(probabilities.astype(np.float64), least))


def _softmax(logits: Float64[np.ndarray, "*n c"]) -> Float64[np.ndarray, "*n c"]:
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: Float64[np.ndarray, "*n c"] = weights / weights.sum(axis=-1, keepdims=True)
    return shares
