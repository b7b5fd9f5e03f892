"""Trial of arithmetics on some images of an evaluation: how fast each is, and whether it answers like fp32."""

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np
import numpy.typing as npt

from googlenet.evaluation.crops import Policy, num_views, policy_scales_px
from googlenet.network.arithmetic import FP32, Arithmetic, first_line
from pipelines.evaluation.sharded_prediction import PredictionTask

# Least agreement of averaged predictions, in percent, on the first answer and on the set of the first five, and largest
# difference of a probability. A set changes where the fifth and sixth answers are nearly equally likely; the label is
# seldom one of these two, so that a top-5 error changes by a small share of the sets that do.
LEAST_AGREEMENT_PERCENT = 99.5
LEAST_TOP5_AGREEMENT_PERCENT = 95.0
LARGEST_DIFFERENCE = 0.05
# The comparison averages at most so many views, on a sample that costs a few percent of the complete evaluation.
SAMPLE_IMAGES = (16, 64)
SAMPLE_SHARE = 1 / 8
SAMPLE_VIEWS = 10
# An arithmetic is timed for at least so long, or on all images of the sample.
TIMED_SECONDS = 1.0


@dataclass(frozen=True)
class Agreement:
    """How the answers of an arithmetic differ from those of fp32.

    Attributes:
        top1_percent: percentage of equal first answers.
        top5_percent: percentage of equal sets of five answers.
        largest_difference: largest difference of a probability.
        compared: number of averaged predictions that were compared.
    """

    top1_percent: float
    top5_percent: float
    largest_difference: float
    compared: int

    @property
    def is_close(self) -> bool:
        """Whether the arithmetic may stand for fp32."""
        agrees = self.top1_percent >= LEAST_AGREEMENT_PERCENT and self.top5_percent >= LEAST_TOP5_AGREEMENT_PERCENT
        return agrees and self.largest_difference <= LARGEST_DIFFERENCE

    def __str__(self) -> str:
        return (
            f"{self.top1_percent:.1f} % of {self.compared} answers as in fp32, "
            f"{self.top5_percent:.1f} % of top-5 sets, probabilities within {self.largest_difference:.4f}"
        )


@dataclass(frozen=True)
class Timing:
    """Speed of one predictor in an arithmetic.

    Attributes:
        arithmetic: precision, and whether it is compiled.
        passes_per_second: forward passes per second of one, beside the others that are timed at once.
        set_up_seconds: time to set up one replica, with its compilation.
        failure: why it could not be compiled, in one line; then it has no speed.
    """

    arithmetic: Arithmetic
    passes_per_second: float
    set_up_seconds: float = 0.0
    failure: str = ""

    def seconds(self, passes: float, predictors: int) -> float:
        """Return how long ``predictors`` take together for ``passes``, set-up included."""
        return math.inf if self.failure else self.set_up_seconds + passes / (self.passes_per_second * predictors)

    def __str__(self) -> str:
        if self.failure:
            return f"{self.arithmetic} failed ({self.failure})"
        return f"{self.arithmetic} {speed(self.passes_per_second)}"


def speed(passes_per_second: float) -> str:
    """Return a speed for display."""
    return f"{passes_per_second:.{0 if passes_per_second >= 10 else 1}f} passes/s"


class ArithmeticTrial:
    """Predictions of a sample of an evaluation's images, on one device, in this process.

    ``at_once`` threads predict the same images while an arithmetic is timed, like as many predictors of a node: what
    runs on other cores of a processor slows each of them down.
    """

    def __init__(self, task: PredictionTask, replicas: Sequence[Any], device: str, at_once: int = 1) -> None:
        least, most = SAMPLE_IMAGES
        images = task.split.images
        sample = min(images, most, max(least, round(images * SAMPLE_SHARE)))
        self._indices = [round(index) for index in np.linspace(0, images - 1, sample)]
        self._records = task.open_records()
        self._policies, self._views = task.ensemble.policies, task.ensemble.views
        few = [policy for policy in self._policies if num_views(policy) <= SAMPLE_VIEWS]
        # Averages of few views differ more than those of many: 10 views are a conservative stand-in for 144.
        self._few_views = tuple(few[-1:]) or (SAMPLE_VIEWS,)
        self._replicas, self._crop_px, self._device = replicas, task.ensemble.crop_px, device
        self._at_once = at_once
        self._timings: dict[Arithmetic, Timing] = {}

    def timing(self, arithmetic: Arithmetic) -> Timing:
        """Return the speed of one replica on all views beside as many as are timed at once, measured once."""
        if arithmetic not in self._timings:
            self._timings[arithmetic] = self._measured(arithmetic)
        return self._timings[arithmetic]

    def agreement(self, arithmetic: Arithmetic) -> Agreement:
        """Compare the answers of all replicas to the sample with those in fp32."""
        from googlenet.evaluation.ensemble import TOP

        exact, other = (self._answers(each) for each in (FP32, arithmetic))
        top1, top5 = (agreement_percent(exact, other, answers) for answers in (1, TOP))
        return Agreement(top1, top5, float(np.abs(exact - other).max()), exact[..., 0].size)

    def _answers(self, arithmetic: Arithmetic) -> npt.NDArray[np.float32]:
        predictor = self._predictor(self._replicas, self._few_views, arithmetic)
        images = self._images(self._indices, set(policy_scales_px(self._few_views[0], self._crop_px)))
        return np.array([prediction.probabilities for prediction in predictor.predict_each(images)])

    def _measured(self, arithmetic: Arithmetic) -> Timing:
        """Time some images, the first of which warm up."""
        from googlenet.evaluation.predictor import images_at_once

        started = time.monotonic()
        predictor = self._predictor(self._replicas[:1], self._policies, arithmetic)
        try:
            predictor.warm_up()
        except Exception as error:  # a compiler and its tools may raise anything
            if not arithmetic.compiled:
                raise
            return Timing(arithmetic, 0.0, failure=first_line(error))
        set_up_seconds = time.monotonic() - started
        images = images_at_once(self._crop_px, len(self._views), self._device)
        timed_seconds, passes_per_second = self._timed(predictor, self._indices[:images])
        while timed_seconds < TIMED_SECONDS and images < len(self._indices):
            timed_seconds, passes_per_second = self._timed(predictor, self._indices[images : 2 * images])
            images *= 2
        return Timing(arithmetic, passes_per_second, set_up_seconds)

    def _timed(self, predictor: Any, indices: Sequence[int]) -> tuple[float, float]:
        """Return the seconds that some images take, and the passes per second of each predictor, on average."""
        images = self._images(indices, {view.scale_px for view in self._views})

        def predict(each: Any) -> float:
            started = time.monotonic()
            list(each.predict_each(images))
            return time.monotonic() - started

        before = predictor.forward_passes
        # They share the network, and each counts its own passes.
        predictors = [predictor, *(copy(predictor) for _ in range(self._at_once - 1))]
        with ThreadPoolExecutor(self._at_once) as threads:
            seconds = mean(threads.map(predict, predictors))
        return seconds, (predictor.forward_passes - before) / seconds

    def _predictor(self, replicas: Sequence[Any], policies: tuple[Policy, ...], arithmetic: Arithmetic) -> Any:
        from googlenet.evaluation.predictor import Predictor

        return Predictor(replicas, self._crop_px, policies, self._device, arithmetic)

    def _images(self, indices: Sequence[int], scales_px: set[int]) -> list[Any]:
        from googlenet.images.scaled_image import ScaledImage

        return [ScaledImage.decode(self._records[index].image, sorted(scales_px)) for index in indices]


def agreement_percent(exact: npt.NDArray[np.float32], other: npt.NDArray[np.float32], answers: int) -> float:
    """Return the percentage of predictions, (..., C), whose set of the most likely ``answers`` classes is the same.

    Of equally likely classes the lower ones come first, as in the report.
    """
    sets = [np.sort(np.argsort(-p, axis=-1, kind="stable")[..., :answers], axis=-1) for p in (exact, other)]
    return 100 * float((sets[0] == sets[1]).all(axis=-1).mean())
