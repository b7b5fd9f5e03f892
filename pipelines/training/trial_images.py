"""Times of images in a trial: to load one for training or validation, and to predict it in an evaluation."""

from collections.abc import Sequence
from itertools import cycle
from typing import TYPE_CHECKING

from googlenet.evaluation.crops import mean_distinct_views, policy_scales_px
from pipelines.run.predictions import sorted_policies
from pipelines.run.recipe import Recipe
from pipelines.training.timing import times

if TYPE_CHECKING:
    from googlenet.network.model import GoogLeNet

SEED = 0


def loading_times(recipe: Recipe, encoded: Sequence[bytes]) -> tuple[float, float]:
    """Return the mean seconds of a training sample and of a validation crop, from bytes in memory."""
    from googlenet.randomness import numpy_generator
    from googlenet.training.augment import draw_sample_from
    from pipelines.training.validation import centre_crop

    sampling, crop_px = recipe.sampling(0), recipe.crop_px

    def draw_samples() -> None:
        for index, data in enumerate(encoded):
            draw_sample_from(data, crop_px, sampling, numpy_generator(SEED, "sampling", 0, index))

    def cut_crops() -> None:
        for data in encoded:
            centre_crop(data, crop_px)

    (_, samples), (_, crops) = times(draw_samples), times(cut_crops)
    return samples / len(encoded), crops / len(encoded)


def prediction_times(
    recipe: Recipe, model: "GoogLeNet", device: str, encoded: Sequence[bytes], least_seconds: float
) -> tuple[float, float]:
    """Return the views a second that one network predicts, and the seconds to scale an image for all its views."""
    from googlenet.evaluation.predictor import Predictor
    from googlenet.images.scaled_image import ScaledImage
    from googlenet.network.preprocessing import SCRATCH_PREPROCESSING
    from googlenet.network.weights import Replica

    policies = sorted_policies(recipe.policies)
    scales = sorted({scale for policy in policies for scale in policy_scales_px(policy, recipe.crop_px)})

    def scaled() -> list[ScaledImage]:
        return [ScaledImage.decode(data, scales) for data in encoded]

    images = scaled()
    predictor = Predictor([Replica(model, SCRATCH_PREPROCESSING)], recipe.crop_px, policies, device)
    turn = cycle(images)
    _, seconds = times(lambda: predictor.predict(next(turn)), least_seconds)
    sizes = [(image.width, image.height) for image in images]
    return mean_distinct_views(sizes, recipe.crop_px, policies) / seconds, times(scaled)[1] / len(encoded)
