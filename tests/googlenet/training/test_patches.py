"""Patches of the paper's even areas, and of the rule in common use."""

import numpy as np
import pytest
from scipy import stats

from googlenet.randomness import numpy_generator
from googlenet.training.patches import AREA_SAMPLINGS, AreaSampling, Patch, even_patch

AREAS, ASPECTS = (0.08, 1.0), (3 / 4, 4 / 3)
COUNT = 4000


def drawn(area_sampling: AreaSampling, width: int, height: int, count: int = COUNT) -> list[Patch]:
    generator = numpy_generator(0, "sampling")
    draw = AREA_SAMPLINGS[area_sampling]
    return [draw(width, height, AREAS, ASPECTS, generator) for _ in range(count)]


def shares(patches: list[Patch], width: int, height: int) -> np.ndarray:
    return np.array([patch.width * patch.height for patch in patches]) / (width * height)


# At most the allowed aspect of 4:3 of a 3:2 photograph: 444 x 333 of 500 x 333 pixels.
@pytest.mark.parametrize(
    ("width", "height", "most"), [(5000, 5000, 1.0), (5000, 3750, 1.0), (3750, 5000, 1.0), (4998, 3332, 8 / 9)]
)
def test_areas_are_even_whatever_the_images_shape(width: int, height: int, most: float) -> None:
    patches = drawn("even", width, height)
    uniform = stats.uniform(0.08, most - 0.08)
    assert stats.kstest(shares(patches, width, height), uniform.cdf).pvalue > 0.01
    aspects = np.array([patch.width / patch.height for patch in patches])
    assert aspects.min() > 0.749
    assert aspects.max() < 1.335


def test_the_rule_in_common_use_makes_large_areas_rare() -> None:
    """Measured independently on 500 x 375 photographs: the median share is 0.43, and 6.6 % are over 0.8."""
    rejecting, even = (shares(drawn(rule, 500, 375), 500, 375) for rule in ("torchvision", "even"))  # type: ignore[arg-type]
    assert np.median(rejecting) == pytest.approx(0.43, abs=0.02)
    assert (rejecting > 0.8).mean() == pytest.approx(0.066, abs=0.012)
    assert np.median(even) == pytest.approx(0.54, abs=0.02)
    assert (even > 0.8).mean() == pytest.approx(0.217, abs=0.02)


def test_places_are_even() -> None:
    patches = drawn("even", 640, 480)
    left = np.array([p.left / (640 - p.width) for p in patches if p.width < 600])
    top = np.array([p.top / (480 - p.height) for p in patches if p.height < 450])
    for share in (left, top):
        assert stats.kstest(share, stats.uniform.cdf).pvalue > 0.001


@pytest.mark.parametrize(("width", "height", "size"), [(3000, 300, (400, 300)), (300, 3000, (300, 400))])
def test_of_a_panorama_the_largest_allowed_patch_lies_anywhere(width: int, height: int, size: tuple[int, int]) -> None:
    generator = numpy_generator(0, "sampling")
    patches = [even_patch(width, height, (0.5, 1.0), ASPECTS, generator) for _ in range(200)]
    assert {(patch.width, patch.height) for patch in patches} == {size}
    assert len({(patch.left, patch.top) for patch in patches}) > 100
    assert all(p.left + p.width <= width and p.top + p.height <= height for p in patches)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 500), (500, 1), (3, 2)])
def test_patches_lie_inside_the_smallest_images(width: int, height: int) -> None:
    for patch in drawn("even", width, height, 300):
        assert 1 <= patch.width <= width - patch.left
        assert 1 <= patch.height <= height - patch.top
