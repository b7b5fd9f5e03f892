"""The paper's test views as geometry (section 7): 4 scales x 3 squares x 6 crops x mirror = 144.

An image is scaled so that its shorter side is each of four sizes (256, 288, 320, 352 at a crop of 224). Of each
scaled image three squares are taken along its longer side (left, centre, right; top, centre, bottom of a portrait
image). Of each square: its four corners and centre at the crop size, and the whole square resized to the crop size.
Each of these also mirrored. Nothing here touches pixels.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SQUARES = ("first", "centre", "last")
KINDS = ("top_left", "top_right", "bottom_left", "bottom_right", "centre", "resized")
CROP_POLICIES = (1, 10, 144)


@dataclass(frozen=True)
class Box:
    """A square window of the image at one scale: pixels, origin at the top left."""

    scale_px: int  # the shorter side of the scaled image
    left_px: int
    top_px: int
    side_px: int  # equal to the crop size, or larger and then resized to it
    mirrored: bool


@dataclass(frozen=True)
class View:
    """One of the 144 views: where it comes from (for reports) and its window (for pixels)."""

    scale_index: int
    square: str
    kind: str
    box: Box


@dataclass(frozen=True)
class DistinctViews:
    """The distinct windows of an image and how much each one counts.

    Attributes:
        boxes: V distinct windows.
        weights: (P, V) float64; row p is the share of each window in crop policy p, and sums to 1.
        counts: for each policy the number of views that its row stands for (1, 10, 144).
    """

    boxes: tuple[Box, ...]
    weights: npt.NDArray[np.float64]
    counts: tuple[int, ...]


def scales_px(crop_px: int) -> tuple[int, int, int, int]:
    """The four lengths of the shorter side: 8/7, 9/7, 10/7 and 11/7 of the crop (256, 288, 320, 352 at 224).

    Raises:
        ValueError: ``crop_px`` is no positive multiple of 7.
    """
    if crop_px <= 0 or crop_px % 7:
        raise ValueError(f"crop_px must be a positive multiple of 7 (the scales are 8/7 to 11/7 of it), got {crop_px}")
    seventh = crop_px // 7
    return 8 * seventh, 9 * seventh, 10 * seventh, 11 * seventh


def scaled_size(width: int, height: int, scale_px: int) -> tuple[int, int]:
    """Width and height in pixels once the shorter side is ``scale_px``; the longer one is rounded to the nearest."""
    if width <= 0 or height <= 0:
        raise ValueError(f"an image needs a positive size, got {width}x{height}")
    shorter = min(width, height)
    # Integer arithmetic: halves round up on every machine.
    longer = (2 * max(width, height) * scale_px + shorter) // (2 * shorter)
    return (longer, scale_px) if width >= height else (scale_px, longer)


def all_views(width: int, height: int, crop_px: int) -> list[View]:
    """The 144 views of an image of ``width`` x ``height`` pixels, in a fixed order, duplicates included."""
    views = []
    for scale_index, scale_px in enumerate(scales_px(crop_px)):
        for square, (square_left, square_top) in _squares(width, height, scale_px).items():
            for kind, (left, top, side) in _windows(scale_px, crop_px).items():
                for mirrored in (False, True):
                    box = Box(scale_px, square_left + left, square_top + top, side, mirrored)
                    views.append(View(scale_index, square, kind, box))
    return views


def in_policy(view: View, num_crops: int) -> bool:
    """Whether the view belongs to the policy of 1, 10 or 144 crops.

    The paper does not state what its 1 and 10 crops are cut from. Here: of the central square at the smallest
    scale, its centre crop (1), or its four corners and centre with their mirrors (10), after Krizhevsky.
    """
    if num_crops == 144:
        return True
    central_square = view.scale_index == 0 and view.square == "centre" and view.kind != "resized"
    if num_crops == 10:
        return central_square
    if num_crops == 1:
        return central_square and view.kind == "centre" and not view.box.mirrored
    raise ValueError(f"a crop policy is one of {CROP_POLICIES}, got {num_crops}")


def distinct_views(width: int, height: int, crop_px: int, policies: Sequence[int] = CROP_POLICIES) -> DistinctViews:
    """The windows that have to be computed for ``policies``, each once, with its share in every policy.

    The three squares of a square image coincide, so that 48 of its 144 views are distinct; counting a window three
    times equals computing it three times.
    """
    views = all_views(width, height, crop_px)
    shares = [Counter(view.box for view in views if in_policy(view, policy)) for policy in policies]
    wanted = set().union(*shares)
    boxes = tuple(dict.fromkeys(view.box for view in views if view.box in wanted))
    counts = tuple(share.total() for share in shares)
    weights = np.array([[share[box] / count for box in boxes] for share, count in zip(shares, counts, strict=True)])
    return DistinctViews(boxes, weights, counts)


def _squares(width: int, height: int, scale_px: int) -> dict[str, tuple[int, int]]:
    """Top left corner (x, y) of the three squares along the longer side."""
    scaled_width, scaled_height = scaled_size(width, height, scale_px)
    slack = max(scaled_width, scaled_height) - scale_px
    offsets = (0, slack // 2, slack)
    if scaled_width >= scaled_height:
        return {name: (offset, 0) for name, offset in zip(SQUARES, offsets, strict=True)}
    return {name: (0, offset) for name, offset in zip(SQUARES, offsets, strict=True)}


def _windows(scale_px: int, crop_px: int) -> dict[str, tuple[int, int, int]]:
    """Left, top and side of the six windows inside a square of ``scale_px``, keyed by kind."""
    far = scale_px - crop_px
    middle = far // 2
    return dict(
        zip(
            KINDS,
            [
                (0, 0, crop_px),
                (far, 0, crop_px),
                (0, far, crop_px),
                (far, far, crop_px),
                (middle, middle, crop_px),
                (0, 0, scale_px),
            ],
            strict=True,
        )
    )
