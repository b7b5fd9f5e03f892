"""The rectangle of an image that a training sample shows: section 6 of the paper, read in two ways."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

AreaSampling = Literal["even", "torchvision"]
Range = tuple[float, float]
MAX_TRIES = 10
Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Patch:
    """A rectangle of the source image, in pixels."""

    left: int
    top: int
    width: int
    height: int


def even_patch(width: int, height: int, areas: Range, aspects: Range, generator: np.random.Generator) -> Patch:
    """Draw a patch whose share of the area is "distributed evenly" (section 6), whatever the image's shape.

    A large area fits at few aspects: all of a 4:3 photograph at 4:3 only. The aspect is drawn from those at which the
    area fits. Areas that fit at no aspect, such as all of a panorama, are not drawn; if none of the range fits,
    the largest patch is taken.

    Args:
        width: width of the image in pixels.
        height: height of the image in pixels.
        areas: smallest and largest share of the image's area.
        aspects: smallest and largest width over height.
        generator: the only source of randomness.
    """
    narrowest, widest = aspects
    # The largest patch has the image's own aspect, or the nearest that is allowed.
    own = _between(narrowest, width / height, widest)
    largest = min(width, height * own) * min(height, width / own)
    smallest, largest = (min(share * width * height, largest) for share in areas)
    area = generator.uniform(smallest, largest)
    fitting = _between(narrowest, area / height**2, widest), _between(narrowest, width**2 / area, widest)
    aspect = generator.uniform(*fitting)
    patch_width = _between(1, round(np.sqrt(area * aspect)), width)
    patch_height = _between(1, round(np.sqrt(area / aspect)), height)
    return _placed(patch_width, patch_height, width, height, generator)


def torchvision_patch(width: int, height: int, areas: Range, aspects: Range, generator: np.random.Generator) -> Patch:
    """Draw a patch of uniform area share and uniform aspect, again and again until it lies inside the image.

    After ten tries, the largest central patch of an allowed aspect is taken. Departure: the shares of the area are not
    distributed evenly. Of a 500 x 375 photograph a quarter of the proposals is rejected, most of them large. This is
    the rule in common use, but for the aspect, whose logarithm is uniform there.
    """
    for _ in range(MAX_TRIES):
        area = generator.uniform(*areas) * width * height
        aspect = generator.uniform(*aspects)
        patch_width, patch_height = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < patch_width <= width and 0 < patch_height <= height:
            return _placed(patch_width, patch_height, width, height, generator)
    aspect = _between(aspects[0], width / height, aspects[1])
    patch_width = max(1, min(width, round(height * aspect)))
    patch_height = max(1, min(height, round(width / aspect)))
    return Patch((width - patch_width) // 2, (height - patch_height) // 2, patch_width, patch_height)


AREA_SAMPLINGS: dict[AreaSampling, Callable[[int, int, Range, Range, np.random.Generator], Patch]] = {
    "even": even_patch,
    "torchvision": torchvision_patch,
}


def _placed(patch_width: int, patch_height: int, width: int, height: int, generator: np.random.Generator) -> Patch:
    """Return a patch of this size at a place that is drawn evenly."""
    left = int(generator.integers(width - patch_width + 1))
    top = int(generator.integers(height - patch_height + 1))
    return Patch(left, top, patch_width, patch_height)


def _between(least: Number, value: Number, most: Number) -> Number:
    return min(max(value, least), most)
