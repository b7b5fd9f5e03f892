"""Threshold at which a cascade stops, chosen on some images so that it loses hardly any answer on others.

An answer is lost if all passes together are right and the cascade is wrong. The share of lost answers bounds by how
much the error rises. It is controlled as in conformal risk control (Angelopoulos et al. 2024): of N images, at most
``share x (N + 1) - 1`` may be lost with the threshold, or with any higher one. A new image like them is then lost with
a probability of at most ``share``, on average over the choice of the images. Answers that the cascade gains do not
count: on few images, gains and losses that cancel out are luck.

With fewer than ``1 / share - 1`` images no threshold can promise so little. Then none of them may be lost, and what is
promised is ``1 / (N + 1)``.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from googlenet.evaluation.cascade import THRESHOLDS, JudgedCascade, Stop, ViewedImages, fit, joined, judge
from googlenet.shapes import Bool, Int64

Folds = Int64[np.ndarray, " n"]


def promised_points(within_points: float, images: int) -> float:
    """Return the share of answers that N images can promise to lose at most, in percentage points."""
    return max(within_points, 100 / (images + 1))


def allowed_losses(within_points: float, images: int) -> int:
    """Return how many of the N images on which a threshold is chosen may lose their answer."""
    # Rounded against the last bit: 1 % of 400 is 4, not 3.9999999999999996.
    return int(round(promised_points(within_points, images) * (images + 1) / 100, 9)) - 1


def lost_answers(judged: JudgedCascade) -> Bool[np.ndarray, "n t"]:
    """Return for each of the thresholds, (N, T), whether it or a higher one loses the answer of each image."""
    lost = [judged.spent(stop)[1] & ~judged.all_wrong for stop in _stops(judged)]
    return np.maximum.accumulate(np.stack(lost, axis=1)[:, ::-1], axis=1)[:, ::-1]


def cheapest_stop(judged: JudgedCascade, within_points: float) -> Stop:
    """Return the lowest threshold that loses no more of the answers than may be lost."""
    losses = lost_answers(judged).sum(axis=0)
    return _stops(judged)[int(np.argmax(losses <= allowed_losses(within_points, len(judged.wrong))))]


def _stops(judged: JudgedCascade) -> list[Stop]:
    """Return the stops by rising threshold; the last one makes all passes, and so loses nothing."""
    return [Stop(threshold, len(judged.stages) - 1) for threshold in THRESHOLDS]


def stops_by_folds(images: ViewedImages, folds: Folds, within_points: Sequence[float]) -> dict[int, list[Stop]]:
    """Return for each fold the stops that the images of the other folds choose, one for each of ``within_points``.

    No image of the fold has a say in them: for each other fold, order and temperatures are fitted on the rest.
    """
    parts: dict[int, list[JudgedCascade]] = {int(fold): [] for fold in np.unique(folds)}
    for pair in combinations(parts, 2):
        fitted = fit(images.where(~np.isin(folds, pair)))
        for fold, other in (pair, pair[::-1]):
            parts[fold].append(judge(images.where(folds == other), fitted))
    return {
        fold: [cheapest_stop(joined(of_others), points) for points in within_points]
        for fold, of_others in parts.items()
    }


def spent_by_folds(
    judged: JudgedCascade, folds: Folds, stops: dict[int, Stop]
) -> tuple[Int64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Return each image's passes and whether its answer is wrong, with the stop of its fold."""
    passes, wrong = np.zeros(len(folds), np.int64), np.zeros(len(folds), bool)
    for fold, stop in stops.items():
        inside = folds == fold
        of_all = judged.spent(stop)
        passes[inside], wrong[inside] = of_all[0][inside], of_all[1][inside]
    return passes, wrong
