"""Samples made by tensor operations, against those of the usual path for the same key."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from googlenet.randomness import numpy_generator
from googlenet.training.augment import INTERPOLATIONS, Sampling, draw, draw_sample_from
from googlenet.training.augment_tensors import EncodedBatch, render

CROP = 64


def photograph(seed: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((320, 240), Image.Resampling.BICUBIC))


def encode(pixels: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, compress_level=0)  # a PNG's compression takes most of a test's time
    return buffer.getvalue()


def pairs(sampling: Sampling, number: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return samples by tensors, and those of the usual path, of the same keys."""
    found = []
    for index in range(number):
        pixels = photograph(index)
        ours, usual = (numpy_generator(1, "sampling", 2, index) for _ in range(2))
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
        sample = render(image, CROP, draw(320, 240, sampling, ours))
        expected = draw_sample_from(encode(pixels, "PNG"), CROP, sampling, usual)
        found.append((sample.permute(1, 2, 0).numpy().astype(float), expected.astype(float)))
    return found


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_a_sample_shows_what_the_usual_one_shows_but_for_rounding(interpolation: str) -> None:
    plain = Sampling(interpolations=(interpolation,), photometric=None, lighting_sigma=0.0)
    differences = np.array([np.abs(ours - usual).mean() for ours, usual in pairs(plain, 30)])
    assert differences.mean() < (2.0 if interpolation == "area" else 0.6)  # of 255; area takes whole pixels
    assert differences.max() < 6


def test_distortions_and_lighting_are_the_usual_ones() -> None:
    loud = Sampling((1.0, 1.0), (4 / 3, 4 / 3), ("nearest",), photometric=(0.5, 1.5), lighting_sigma=0.1)
    assert max(np.abs(ours - usual).mean() for ours, usual in pairs(loud, 30)) < 1


def test_the_distribution_is_the_same() -> None:
    both = np.array([[[side.mean(), side.std()] for side in pair] for pair in pairs(Sampling(), 100)])
    for statistic in (0, 1):
        ours, usual = both[:, 0, statistic], both[:, 1, statistic]
        assert abs(ours.mean() / usual.mean() - 1) < 0.01
        assert np.corrcoef(ours, usual)[0, 1] > 0.995


def test_a_batch_is_decoded_and_rendered_on_its_device_in_the_order_of_its_images() -> None:
    images = [encode(photograph(0), "JPEG"), photograph(1), encode(photograph(2), "JPEG")]
    still = Sampling((1.0, 1.0), (4 / 3, 4 / 3), ("bilinear",), mirror=False, photometric=None, lighting_sigma=0.0)
    draws = [draw(320, 240, still, numpy_generator(0, "sampling", 0, index)) for index in range(3)]
    batch = EncodedBatch(images, draws, torch.tensor([4, 5, 6]), 7, CROP).on(torch.device("cpu"))
    assert (batch.num_images, batch.labels.tolist()) == (7, [4, 5, 6])
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    for row in range(3):
        expected = torch.from_numpy(photograph(row).copy()).permute(2, 0, 1)
        difference = batch.images[row].float() - render(expected, CROP, draws[row]).float()
        assert difference.abs().mean() < 3, row  # of 255; compression
