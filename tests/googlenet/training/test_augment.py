"""Training samples: pure functions, drawn from the distributions of section 6."""

import colorsys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from googlenet.randomness import numpy_generator
from googlenet.training import augment
from googlenet.training.augment import INTERPOLATIONS, Sampling, draw_patch, draw_sample

PLAIN = Sampling(photometric=None, lighting_sigma=0.0)


def photograph() -> np.ndarray:
    small = np.random.default_rng(3).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((160, 120), Image.Resampling.BICUBIC))


def generators(count: int) -> list[np.random.Generator]:
    return [numpy_generator(0, "sampling", 0, index) for index in range(count)]


def test_a_sample_is_a_function_of_its_key_alone() -> None:
    image, key = photograph(), (5, "sampling", 2, 7)
    first, again = (draw_sample(image, 84, Sampling(), numpy_generator(*key)) for _ in range(2))  # type: ignore[arg-type]
    assert first.shape == (84, 84, 3)
    assert np.array_equal(first, again)
    for other in [(6, 2, 7), (5, 3, 7), (5, 2, 8)]:
        seed, *rest = other
        assert not np.array_equal(first, draw_sample(image, 84, Sampling(), numpy_generator(seed, "sampling", *rest)))


def test_area_is_uniform_from_8_to_100_percent_and_aspect_from_3_4_to_4_3() -> None:
    size = 2000  # large, so that rounding to pixels does not matter
    patches = [draw_patch(size, size, PLAIN, generator) for generator in generators(4000)]
    area = np.array([p.width * p.height for p in patches]) / size**2
    aspect = np.array([p.width / p.height for p in patches])
    assert area.min() >= 0.0795
    assert area.max() <= 1.0
    assert aspect.min() > 0.749
    assert aspect.max() < 1.335
    # Patches over 3/4 of the area do not fit at every aspect, so only smaller ones are checked.
    below = area[area < 0.75]
    quantiles = np.quantile(below, [0.25, 0.5, 0.75])
    assert np.allclose(quantiles, 0.08 + 0.67 * np.array([0.25, 0.5, 0.75]), atol=0.03)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 500), (500, 1), (3, 2), (640, 480)])
def test_patches_lie_inside_images_of_any_shape(width: int, height: int) -> None:
    for generator in generators(200):
        patch = draw_patch(width, height, PLAIN, generator)
        assert patch.width >= 1
        assert patch.height >= 1
        assert 0 <= patch.left <= width - patch.width
        assert 0 <= patch.top <= height - patch.height


def test_interpolations_and_mirror_are_drawn_equally_often(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    resize, flip, flips = augment.cv2.resize, augment.cv2.flip, []
    monkeypatch.setattr(augment.cv2, "resize", lambda *a, interpolation: (calls.append(interpolation), resize(*a))[1])
    monkeypatch.setattr(augment.cv2, "flip", lambda *a: (flips.append(1), flip(*a))[1])
    image = photograph()
    for generator in generators(2000):
        draw_sample(image, 21, PLAIN, generator)
    shares = [calls.count(code) / len(calls) for code in INTERPOLATIONS.values()]
    assert np.allclose(shares, 0.25, atol=0.04)
    assert abs(len(flips) / len(calls) - 0.5) < 0.04


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.0, 1.5])
def test_contrast_brightness_and_colour_are_pillows(factor: float) -> None:
    image = photograph()
    pairs = [
        (augment._contrast, ImageEnhance.Contrast),
        (augment._brightness, ImageEnhance.Brightness),
        (augment._colour, ImageEnhance.Color),
    ]
    for ours, pillows in pairs:
        expected = np.asarray(pillows(Image.fromarray(image)).enhance(factor)).astype(int)
        assert np.abs(ours(image, factor).astype(int) - expected).max() <= 2, pillows.__name__


def test_lighting_noise_moves_every_pixel_by_one_shift_along_the_principal_components() -> None:
    grey = np.full((4, 4, 3), 128, np.uint8)
    still = Sampling((1.0, 1.0), (1.0, 1.0), ("nearest",), mirror=False, photometric=None, lighting_sigma=0.1)
    shifts = []
    for generator in generators(3000):
        shifted = draw_sample(grey, 4, still, generator)
        assert (shifted == shifted[0, 0]).all()
        shifts.append(shifted[0, 0].astype(float) - 128)
    # Covariance of the shift: 255^2 sigma^2 V diag(lambda^2) V^T, plus the 1/12 of rounding.
    vectors, values = augment.LIGHTING_EIGENVECTORS, augment.LIGHTING_EIGENVALUES
    expected = (255 * 0.1) ** 2 * vectors @ np.diag(values**2) @ vectors.T + np.eye(3) / 12
    assert np.allclose(np.cov(np.array(shifts).T), expected, rtol=0.12, atol=0.12)


def test_every_part_can_be_turned_off() -> None:
    still = Sampling((1.0, 1.0), (1.0, 1.0), ("nearest",), mirror=False, photometric=None, lighting_sigma=0.0)
    square = photograph()[:84, :84]
    for generator in generators(5):
        assert np.array_equal(draw_sample(square, 84, still, generator), square)


def test_colour_factor_zero_is_grey() -> None:
    grey = augment._colour(photograph(), 0.0)
    hues = {colorsys.rgb_to_hsv(*pixel)[1] for pixel in (grey[::20, ::20] / 255).reshape(-1, 3)}
    assert hues == {0.0}


@pytest.mark.parametrize(
    "arguments",
    [{"area": (0.0, 1.0)}, {"interpolations": ("lanczos",)}, {"aspect": (2.0, 1.0)}, {"lighting_sigma": -1}],
)
def test_impossible_sampling_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Sampling(**arguments)  # type: ignore[arg-type]


SIDES = st.integers(1, 400)


@given(
    SIDES, SIDES, st.floats(0.01, 1), st.floats(0.01, 1), st.floats(0.3, 3), st.floats(0.3, 3), st.integers(0, 2**31)
)
def test_a_patch_lies_inside_its_image_whatever_may_be_drawn(
    width: int, height: int, area_a: float, area_b: float, aspect_a: float, aspect_b: float, seed: int
) -> None:
    sampling = Sampling(area=tuple(sorted((area_a, area_b))), aspect=tuple(sorted((aspect_a, aspect_b))))
    patch = draw_patch(width, height, sampling, numpy_generator(seed, "sampling", 0, 0))
    assert patch.width >= 1
    assert patch.height >= 1
    assert 0 <= patch.left <= width - patch.width
    assert 0 <= patch.top <= height - patch.height


@given(st.integers(200, 2000), st.floats(0.05, 0.6), st.floats(0.05, 0.6), st.integers(0, 2**31))
def test_a_patch_keeps_to_the_area_and_aspect_asked_for(side: int, area_a: float, area_b: float, seed: int) -> None:
    """Patches of aspect 3/4 to 4/3 and up to 60 % of a square image always fit; rounding moves a side by 0.5 pixels."""
    sampling = Sampling(area=tuple(sorted((area_a, area_b))))
    patch = draw_patch(side, side, sampling, numpy_generator(seed, "sampling", 0, 0))
    smallest, largest = sampling.area
    rounding = (patch.width + patch.height + 1) / 2
    assert smallest * side**2 - rounding <= patch.width * patch.height <= largest * side**2 + rounding
    assert (patch.width - 0.5) / (patch.height + 0.5) <= 4 / 3
    assert (patch.width + 0.5) / (patch.height - 0.5) >= 3 / 4
