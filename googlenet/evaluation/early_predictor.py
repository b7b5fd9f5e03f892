"""Prediction that stops early: replicas and views are added until the answer is sure enough."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from googlenet.evaluation.averages import Prediction
from googlenet.evaluation.cascade import confidence
from googlenet.evaluation.crops import (
    CROP_POLICIES,
    Box,
    View,
    box_of,
    distinct_views,
    view_groups,
    views_of,
    views_of_all,
)
from googlenet.evaluation.kept_budget import EarlyStop
from googlenet.evaluation.predictor import Predictor
from googlenet.images.scaled_image import ScaledImage
from googlenet.shapes import Float32, Float64


@dataclass(frozen=True)
class EarlyPrediction:
    """Prediction of one image, as far as it went.

    Attributes:
        probabilities: (k, C) float32, of the first k replicas, averaged over ``views`` views.
        views: number of views of each of them, equal ones counted each time.
        passes: forward passes computed, summed over the replicas: equal views are computed once.
        temperature: temperature of the average.
    """

    probabilities: Float32[np.ndarray, "k c"]
    views: int
    passes: int
    temperature: float


class EarlyPredictor:
    """Predicts an image by the stages of a cascade; a later stage adds to the passes of the earlier ones.

    Attributes:
        all_passes: views that would have been computed without stopping, summed over the replicas.
    """

    def __init__(self, predictor: Predictor, stop: EarlyStop, order: Sequence[int] | None = None) -> None:
        """Use the networks of ``predictor``, whose images must have the scales of all 144 views.

        ``order`` has the positions of its replicas as the cascade counts them, if they are not in that order.
        """
        self._kept, self._stop = stop.kept, stop.stop
        self._order = range(self._kept.stages[-1][0]) if order is None else order
        self._predictor, self.all_passes = predictor, 0
        views = views_of(CROP_POLICIES[-1], predictor.crop_px)
        self._views = [views[position] for position in self._kept.view_order]

    @property
    def forward_passes(self) -> int:
        """Views computed so far, summed over the replicas."""
        return self._predictor.forward_passes

    def predict(self, image: ScaledImage, keep_views: bool = False) -> Prediction:
        """Predict one image in the form of all passes, with zeros for what was not computed.

        Raises:
            ValueError: single views are to be kept, which are not all computed.
        """
        if keep_views:
            raise ValueError("a prediction that stops early has no probabilities of all views")
        early, replicas = self.stopped(image), self._kept.stages[-1][0]
        models, classes = early.probabilities.shape
        probabilities = np.zeros((replicas, 1, classes), np.float32)
        probabilities[list(self._order[:models]), 0] = early.probabilities
        views = np.zeros((replicas, 1), np.int32)
        views[list(self._order[:models])] = early.views
        ensemble_views = views_of_all(self._predictor.policies, self._predictor.crop_px)
        nothing = np.zeros((replicas + 1, len(ensemble_views)), np.int32)
        no_groups = np.zeros((replicas + 1, len(view_groups(ensemble_views))), np.int32)
        return Prediction(probabilities, np.zeros((replicas, classes), np.float32), views, nothing, no_groups)

    def predict_each(
        self, images: Iterable[ScaledImage], keep_views: Iterable[bool] = repeat(False)
    ) -> Iterator[Prediction]:
        """Predict images in order, each as by :meth:`predict`."""
        return (self.predict(image, keep) for image, keep in zip(images, keep_views, strict=False))

    def stopped(self, image: ScaledImage) -> EarlyPrediction:
        """Predict one image as far as is needed to be sure enough."""
        distinct = distinct_views(image.width, image.height, self._predictor.crop_px, CROP_POLICIES[-1:])
        self.all_passes += self._kept.stages[-1][0] * len(distinct.boxes)
        passes = _Passes(self._predictor, image, self._views, self._order)
        last = self._stop.last + 1
        for (models, views), temperature in zip(self._kept.stages[:last], self._kept.temperatures[:last], strict=True):
            average = passes.average(models, views)
            if confidence(average.mean(axis=0, keepdims=True), temperature)[0] > self._stop.threshold:
                break
        return EarlyPrediction(average.astype(np.float32), views, passes.computed, temperature)


class _Passes:
    """Passes of one image: its pixels go to the device once, and each replica sees each window once."""

    def __init__(self, predictor: Predictor, image: ScaledImage, views: Sequence[View], order: Sequence[int]) -> None:
        self._predictor, self._pixels, self._order = predictor, predictor.on_device(image), order
        self._boxes = [box_of(view, image.width, image.height, predictor.crop_px) for view in views]
        # The outputs of the first replicas, equally many for each window.
        self._known: dict[Box, Float64[np.ndarray, "k c"]] = {}

    @property
    def computed(self) -> int:
        """Number of passes so far."""
        return sum(map(len, self._known.values()))

    def average(self, models: int, views: int) -> Float64[np.ndarray, "k c"]:
        """Return the outputs of the first replicas, averaged over the first views; neither number ever falls."""
        boxes = self._boxes[:views]
        asked = len(next(iter(self._known.values()), ()))
        if self._known and asked < models:
            more = self._computed(range(asked, models), list(self._known))
            self._known = {box: np.concatenate([first, more[box]]) for box, first in self._known.items()}
        if missing := [box for box in dict.fromkeys(boxes) if box not in self._known]:
            self._known |= self._computed(range(models), missing)
        mean: Float64[np.ndarray, "k c"] = np.mean([self._known[box] for box in boxes], axis=0)
        return mean

    def _computed(self, replicas: range, boxes: Sequence[Box]) -> dict[Box, Float64[np.ndarray, "k c"]]:
        outputs = self._predictor.predict_windows(self._pixels, [self._order[number] for number in replicas], boxes)
        return dict(zip(boxes, outputs.swapaxes(0, 1), strict=True))
