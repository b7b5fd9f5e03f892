"""Prediction that stops early: replicas and views are added until the answer is sure enough."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from googlenet.evaluation.averages import Prediction
from googlenet.evaluation.crops import CROP_POLICIES, distinct_views, view_groups, views_of, views_of_all
from googlenet.evaluation.kept_budget import EarlyStop
from googlenet.evaluation.predictor import Predictor
from googlenet.evaluation.temperature import with_temperature
from googlenet.images.scaled_image import ScaledImage
from googlenet.shapes import Float32, Float64


@dataclass(frozen=True)
class EarlyPrediction:
    """Prediction of one image, as far as it went.

    Attributes:
        probabilities: (k, C) float32, of the first k replicas, averaged over ``views`` views.
        views: number of views of each of them.
        temperature: temperature of the average.
    """

    probabilities: Float32[np.ndarray, "k c"]
    views: int
    temperature: float


class EarlyPredictor:
    """Predicts an image by the stages of a cascade; each pass of an earlier stage is used by the later ones.

    Attributes:
        all_passes: views that would have been computed without stopping, summed over the replicas.
    """

    def __init__(self, predictor: Predictor, stop: EarlyStop) -> None:
        """Use the networks of ``predictor``, whose images must have the scales of all 144 views."""
        self._kept, self._stop = stop.kept, stop.stop
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
        found, replicas = self.stopped(image), self._kept.stages[-1][0]
        models, classes = found.probabilities.shape
        probabilities = np.zeros((replicas, 1, classes), np.float32)
        probabilities[:models, 0] = found.probabilities
        views = np.zeros((replicas, 1), np.int32)
        views[:models] = found.views
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
        sums = np.zeros((0, 0))
        models, views = 0, 0
        last = self._stop.last + 1
        stages = zip(self._kept.stages[:last], self._kept.temperatures[:last], strict=True)
        for (wanted_models, wanted_views), temperature in stages:
            if wanted_models > models:  # with one view each, so far
                added = self._sum(image, range(models, wanted_models), 0, wanted_views)
                sums = np.concatenate([sums, added]) if models else added
            else:
                sums = sums + self._sum(image, range(models), views, wanted_views)
            models, views = wanted_models, wanted_views
            if self._is_sure(sums / views, temperature):
                break
        return EarlyPrediction((sums / views).astype(np.float32), views, temperature)

    def _sum(self, image: ScaledImage, replicas: range, first: int, last: int) -> Float64[np.ndarray, "k c"]:
        summed: Float64[np.ndarray, "k c"] = self._predictor.predict_part(image, replicas, self._views[first:last]).sum(
            axis=1
        )
        return summed

    def _is_sure(self, by_replica: Float64[np.ndarray, "k c"], temperature: float) -> bool:
        return bool(with_temperature(by_replica.mean(axis=0), temperature).max() > self._stop.threshold)
