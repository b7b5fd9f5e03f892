"""One pass over views and replicas against a loop written out here."""

import io

import numpy as np
import torch
from PIL import Image

from googlenet import GoogLeNet
from googlenet.crops import all_views, in_policy, scales_px
from googlenet.initialisation import initialise
from googlenet.predictor import Predictor, Replica, ScaledImage
from googlenet.preprocessing import CAFFE_PREPROCESSING, SCRATCH_PREPROCESSING
from googlenet.randomness import torch_generator
from googlenet.views import cut_views, scale_image

CROP = 35


def replica(seed: int, variant: str) -> Replica:
    model = GoogLeNet(5, variant, False, 0.125)  # type: ignore[arg-type]
    initialise(model, "he", torch_generator(seed, "initial_weights"))
    return Replica(model.eval(), CAFFE_PREPROCESSING if variant == "paper" else SCRATCH_PREPROCESSING)


def picture(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def reference(replicas: list[Replica], data: bytes) -> np.ndarray:
    """Every one of the 144 views on its own, then plain means."""
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    views = all_views(pixels.shape[1], pixels.shape[0], CROP)
    scaled = scale_image(pixels, scales_px(CROP))
    result = []
    for member in replicas:
        probabilities = []
        for view in views:
            image = member.preprocessing(cut_views(scaled, [view.box], CROP))
            with torch.no_grad():
                probabilities.append(member.model(image).logits.softmax(1)[0].double().numpy())
        by_policy = [[p for p, v in zip(probabilities, views, strict=True) if in_policy(v, n)] for n in (1, 10, 144)]
        result.append([np.mean(chosen, axis=0) for chosen in by_policy])
    return np.array(result)


def test_averages_are_those_of_all_144_views_one_by_one() -> None:
    replicas = [replica(0, "bn"), replica(1, "paper")]
    predictor = Predictor(replicas, CROP)
    for size in [(60, 45), (45, 60), (50, 50)]:  # the last has 48 distinct views
        data = picture(*size)
        prediction = predictor.predict(ScaledImage.decode(data, CROP))
        found = prediction.probabilities
        assert prediction.num_views.tolist() == [[1, 10, 144]] * 2
        assert found.shape == (2, 3, 5)
        assert np.abs(found - reference(replicas, data)).max() < 1e-6
        assert np.allclose(found.sum(axis=2), 1, atol=1e-6)


def test_an_image_is_predicted_alike_whatever_was_predicted_before() -> None:
    predictor = Predictor([replica(0, "paper")], CROP)
    first, second = (ScaledImage.decode(picture(*size), CROP) for size in [(60, 45), (50, 50)])
    alone = predictor.predict(first).probabilities
    predictor.predict(second)
    assert np.array_equal(predictor.predict(first).probabilities, alone)


def test_views_without_finite_outputs_are_not_counted() -> None:
    broken = replica(0, "bn")
    torch.nn.init.constant_(broken.model.classifier.bias, torch.nan)
    prediction = Predictor([replica(1, "bn"), broken], CROP).predict(ScaledImage.decode(picture(60, 45), CROP))
    assert prediction.num_views.tolist() == [[1, 10, 144], [0, 0, 0]]
