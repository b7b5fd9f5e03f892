"""Prediction on each device against a CPU: all 144 views, averages, answers in bfloat16, compiled predictors."""

import numpy as np
import pytest
import torch

from googlenet.evaluation.crops import CROP_POLICIES, scales_px
from googlenet.evaluation.predictor import Predictor
from googlenet.images.scaled_image import ScaledImage, scale_image
from googlenet.network.arithmetic import FP32, Arithmetic, profits_from
from googlenet.network.preprocessing import CAFFE_PREPROCESSING, SCRATCH_PREPROCESSING
from googlenet.network.weights import Replica
from tests.gpu.small_training import network

CROP_PX = 63


def picture(width: int, height: int) -> ScaledImage:
    """Return a picture of large squares of random colours, scaled for all views."""
    squares = np.random.default_rng(width).integers(0, 256, (height // 20, width // 20, 3), dtype=np.uint8)
    pixels = squares.repeat(20, axis=0).repeat(20, axis=1)
    return ScaledImage(pixels.shape[1], pixels.shape[0], tuple(scale_image(pixels, scales_px(CROP_PX))))


def predictor(device: str, arithmetic: Arithmetic = FP32) -> Predictor:
    replicas = [
        Replica(network("paper", "cpu", 1).eval(), CAFFE_PREPROCESSING),
        Replica(network("bn", "cpu", 2).eval(), SCRATCH_PREPROCESSING),
    ]
    return Predictor(replicas, CROP_PX, CROP_POLICIES, device, arithmetic)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no second GPU here")
@pytest.mark.parametrize(("name", "current"), [("cuda:1", 0), ("cuda", 1), ("cuda:0", 1)])
def test_a_gpu_that_is_not_the_current_one_answers_like_a_cpu(name: str, current: int) -> None:
    images = [picture(160 + 20 * number, 120) for number in range(6)]
    with torch.cuda.device(current):
        ours = predictor(name)
        found = [prediction.probabilities for prediction in ours.predict_each(images)]
    for image, probabilities in zip(images, found, strict=True):
        np.testing.assert_allclose(probabilities, predictor("cpu").predict(image).probabilities, atol=1e-4)


@pytest.mark.parametrize("size", [(160, 120), (100, 180), (120, 120)])
def test_each_of_the_views_and_their_averages_are_those_of_a_cpu(size: tuple[int, int], device: str) -> None:
    if device == "cpu" and size != (120, 120):
        pytest.skip("a square picture, with the fewest distinct views, proves the check")
    image, ours, theirs = picture(*size), predictor(device), predictor("cpu")
    views = ours.predict_views(image)
    assert views.shape == (2, 144, 5)
    np.testing.assert_allclose(views, theirs.predict_views(image), atol=1e-3)
    found, expected = ours.predict(image), theirs.predict(image)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-4)
    np.testing.assert_array_equal(found.num_views, expected.num_views)


def test_averages_in_bfloat16_are_within_the_bounds_of_the_evaluation(device: str) -> None:
    """The bounds of pipelines/evaluation/preflight.py, on networks that were never trained."""
    if device != "cpu" and not profits_from("bf16", device):
        pytest.skip(f"this {device} has no bfloat16 in hardware")
    widths = (120,) if device == "cpu" else (160, 180)  # a square picture proves the check
    images = [picture(width, 120) for width in widths]
    exact, reduced = predictor(device), predictor(device, Arithmetic("bf16"))
    pairs = [(exact.predict(image).probabilities, reduced.predict(image).probabilities) for image in images]
    for expected, found in pairs:
        assert np.abs(expected - found).max() <= 0.05
        assert not np.array_equal(expected, found)  # it is another arithmetic


@pytest.mark.gpu
@pytest.mark.processes
def test_a_compiled_predictor_answers_like_another(device: str) -> None:
    if device == "cpu":
        pytest.skip("tests/googlenet/evaluation/test_predictor.py compiles one on a CPU")
    image = picture(160, 120)
    for precision in ("fp32", *(precision for precision in ("tf32", "bf16") if profits_from(precision, device))):
        eager, compiled = (predictor(device, Arithmetic(precision, is_compiled)) for is_compiled in (False, True))
        difference = np.abs(eager.predict(image).probabilities - compiled.predict(image).probabilities).max()
        assert difference <= (1e-3 if precision == "fp32" else 0.05)
