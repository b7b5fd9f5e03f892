"""Geometry of the paper's test views (section 7): 4 scales x 3 squares x 6 crops x mirror = 144.

An image is scaled so that its shorter side is each of four sizes (256, 288, 320, 352 at a crop of 224). From
each scaled image three squares are taken along its longer side (left, centre, right; top, centre, bottom of a portrait
image). From each square: its four corners and centre at the crop size, and the whole square resized to the crop size.
Each of these is also mirrored. This module does not touch pixels.

A crop policy selects the views to average: 1, 10, 144, or all 36 views at each of the given scales, as in "256+320". A
policy of chosen views, "best:24:" and a mask in hexadecimal digits, names those of the 144 views that it averages.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import mean
from typing import NamedTuple

import numpy as np

from googlenet.images.scaled_image import scaled_size
from googlenet.shapes import Bool, Float64, Int64

SQUARES = ("first", "centre", "last")
KINDS = ("top_left", "top_right", "bottom_left", "bottom_right", "centre", "resized")
CROP_POLICIES = (1, 10, 144)
VIEWS_PER_SCALE = len(SQUARES) * len(KINDS) * 2
CHOSEN = "best:"
MASK_DIGITS = CROP_POLICIES[-1] // 4

Policy = int | str


@dataclass(frozen=True)
class View:
    """One view by its position, independent of the image's size."""

    scale_px: int  # the shorter side of the scaled image
    square: str
    kind: str
    mirrored: bool


class Box(NamedTuple):
    """A square window of an image at one scale, in pixels from the top left."""

    scale_px: int  # the shorter side of the scaled image
    left_px: int
    top_px: int
    side_px: int  # equal to the crop size, or larger and then resized to it
    mirrored: bool


@dataclass(frozen=True)
class DistinctViews:
    """The distinct windows of an image and their weights.

    Attributes:
        boxes: D distinct windows.
        weights: (P, D) float64; row p is the share of each window in crop policy p, and sums to 1.
        counts: number of views of each policy (1, 10, 144).
        positions: (V,) index of each view's window, in the order of :func:`views_of_all`.
    """

    boxes: tuple[Box, ...]
    weights: Float64[np.ndarray, "p d"]
    counts: tuple[int, ...]
    positions: Int64[np.ndarray, " v"]


def scales_px(crop_px: int) -> tuple[int, int, int, int]:
    """Return the four lengths of the shorter side: 8/7, 9/7, 10/7 and 11/7 of the crop (256, 288, 320, 352 at 224).

    Raises:
        ValueError: ``crop_px`` is not a positive multiple of 7.
    """
    if crop_px <= 0 or crop_px % 7:
        raise ValueError(f"crop_px must be a positive multiple of 7 (the scales are 8/7 to 11/7 of it), got {crop_px}")
    seventh = crop_px // 7
    return 8 * seventh, 9 * seventh, 10 * seventh, 11 * seventh


def chosen_policy(positions: Sequence[int]) -> str:
    """Return the policy that averages some of the 144 views, given by their positions in ``views_of(144, ...)``."""
    mask = sum(1 << position for position in set(positions))
    return f"{CHOSEN}{len(set(positions))}:{mask:0{MASK_DIGITS}x}"


def chosen_positions(policy: Policy) -> tuple[int, ...]:
    """Inverse of :func:`chosen_policy`; empty for all other policies.

    Raises:
        ValueError: the policy is one of chosen views, but does not name them, or not as many as it says.
    """
    if not is_chosen(policy):
        return ()
    number, _, mask = str(policy).removeprefix(CHOSEN).partition(":")
    try:
        named = int(mask, 16)
    except ValueError:
        raise ValueError(
            f"{policy} needs a finished run, on whose validation images its views are chosen: use it with "
            "evaluate_ensemble.py --run-dir RUN --data (without --weights), or as a student's teacher_policy"
        ) from None
    positions = tuple(position for position in range(CROP_POLICIES[-1]) if named >> position & 1)
    if chosen_policy(positions) != policy or not positions:
        raise ValueError(f"the policy {policy} does not name {number} of the {CROP_POLICIES[-1]} views")
    return positions


def is_chosen(policy: Policy) -> bool:
    """Return whether a policy averages chosen views, named (``best:24:...``) or not yet (``best:24``)."""
    return str(policy).startswith(CHOSEN)


def short_policy(policy: Policy) -> str:
    """Return the name of a policy for people, without the mask of chosen views: ``144``, ``256+320``, ``best:24``."""
    return ":".join(str(policy).split(":")[:2])


def policy_scales_px(policy: Policy, crop_px: int) -> tuple[int, ...]:
    """Return the shorter sides that a policy needs, in pixels.

    Raises:
        ValueError: the policy does not exist, or a scale is smaller than the crop.
    """
    if policy in CROP_POLICIES:
        return scales_px(crop_px) if policy == 144 else scales_px(crop_px)[:1]
    if is_chosen(policy):
        return tuple(sorted({view.scale_px for view in views_of(policy, crop_px)}))
    try:
        scales = tuple(int(scale) for scale in str(policy).split("+"))
    except ValueError:
        scales = ()
    if not scales or list(scales) != sorted(set(scales)) or scales[0] < crop_px:
        raise ValueError(
            f"a crop policy is one of {', '.join(map(str, CROP_POLICIES))}, a number of the views that help most, such "
            f"as {CHOSEN}24, or rising scales of at least the crop of {crop_px} px, such as "
            f"{8 * crop_px // 7}+{10 * crop_px // 7}; got {policy!r}"
        )
    return scales


def num_views(policy: Policy) -> int:
    """Return how many views a policy averages, counting duplicates."""
    if is_chosen(policy):
        return len(chosen_positions(policy))
    return int(policy) if policy in CROP_POLICIES else VIEWS_PER_SCALE * len(str(policy).split("+"))


@lru_cache(maxsize=64)
def views_of(policy: Policy, crop_px: int) -> tuple[View, ...]:
    """Return the views of a policy, in a fixed order.

    The paper does not state what its 1 and 10 crops are cut from. Here it is the central square at the smallest
    scale: its centre crop (1), or its four corners and centre with their mirrors (10), after Krizhevsky.

    Raises:
        ValueError: the policy does not exist.
    """
    if is_chosen(policy):
        every = views_of(CROP_POLICIES[-1], crop_px)
        return tuple(every[position] for position in chosen_positions(policy))
    views = [
        View(scale_px, square, kind, mirrored)
        for scale_px in policy_scales_px(policy, crop_px)
        for square in SQUARES
        for kind in KINDS
        for mirrored in (False, True)
    ]
    if policy in (1, 10):
        views = [view for view in views if view.square == "centre" and view.kind != "resized"]
    if policy == 1:
        views = [view for view in views if view.kind == "centre" and not view.mirrored]
    return tuple(views)


@lru_cache(maxsize=16)
def views_of_all(policies: tuple[Policy, ...], crop_px: int) -> tuple[View, ...]:
    """Return the views that occur in any of ``policies``, each once, sorted by scale, square, kind and mirror."""
    views = {view for policy in policies for view in views_of(policy, crop_px)}
    return tuple(sorted(views, key=lambda v: (v.scale_px, SQUARES.index(v.square), KINDS.index(v.kind), v.mirrored)))


def view_groups(views: Sequence[View]) -> dict[str, Bool[np.ndarray, " v"]]:
    """Return masks (V,) of the views that share a scale, a square, a kind or mirroring, by the group's name."""
    scales = sorted({view.scale_px for view in views})
    groups = {f"scale {scale_px} px": [view.scale_px == scale_px for view in views] for scale_px in scales}
    groups |= {f"square: {square}": [view.square == square for view in views] for square in SQUARES}
    groups |= {f"crop: {kind.replace('_', ' ')}": [view.kind == kind for view in views] for kind in KINDS}
    groups |= {"upright": [not view.mirrored for view in views], "mirrored": [view.mirrored for view in views]}
    return {name: np.array(mask) for name, mask in groups.items() if any(mask) and not all(mask)}


def box_of(view: View, width: int, height: int, crop_px: int) -> Box:
    """Return the window of a view in an image of ``width`` x ``height`` pixels."""
    return _box(view, _corner_of_square(view.square, width, height, view.scale_px), crop_px)


@lru_cache(maxsize=1024)
def distinct_views(
    width: int, height: int, crop_px: int, policies: tuple[Policy, ...] = CROP_POLICIES
) -> DistinctViews:
    """Return the windows to compute for ``policies``, each once, with its share in every policy.

    The three squares of a square image coincide, so that only 48 of its 144 views are distinct; counting a window three
    times equals computing it three times.
    """
    views = views_of_all(policies, crop_px)
    corners = {
        (scale_px, square): _corner_of_square(square, width, height, scale_px)
        for scale_px in {view.scale_px for view in views}
        for square in SQUARES
    }
    index: dict[Box, int] = {}
    # Once per image: otherwise the geometry of 144 views would take as long as many views in a narrow network.
    positions = np.array(
        [index.setdefault(_box(view, corners[view.scale_px, view.square], crop_px), len(index)) for view in views]
    )
    counts = tuple(len(views_of(policy, crop_px)) for policy in policies)
    weights = np.array(
        [
            np.bincount(positions[members], minlength=len(index)) / count
            for members, count in zip(_members(policies, crop_px), counts, strict=True)
        ]
    )
    return DistinctViews(tuple(index), weights, counts, positions)


def mean_distinct_views(
    sizes_px: Sequence[tuple[int, int]], crop_px: int, policies: tuple[Policy, ...] = CROP_POLICIES
) -> float:
    """Return the mean number of windows to compute of images with these widths and heights; of none, of all views."""
    if not sizes_px:
        return float(len(views_of_all(policies, crop_px)))
    return mean(len(distinct_views(*size, crop_px, policies).boxes) for size in sizes_px)


@lru_cache(maxsize=16)
def _members(policies: tuple[Policy, ...], crop_px: int) -> tuple[Int64[np.ndarray, " members"], ...]:
    """Return for each policy the positions of its views among those of all policies."""
    at = {view: position for position, view in enumerate(views_of_all(policies, crop_px))}
    return tuple(np.array([at[view] for view in views_of(policy, crop_px)]) for policy in policies)


def _box(view: View, corner: tuple[int, int], crop_px: int) -> Box:
    left, top, side = _window(view.kind, view.scale_px, crop_px)
    return Box(view.scale_px, corner[0] + left, corner[1] + top, side, view.mirrored)


def _corner_of_square(square: str, width: int, height: int, scale_px: int) -> tuple[int, int]:
    """Return left and top of one of the three squares along the longer side."""
    scaled_width, scaled_height = scaled_size(width, height, scale_px)
    slack = max(scaled_width, scaled_height) - scale_px
    offset = (0, slack // 2, slack)[SQUARES.index(square)]
    return (offset, 0) if scaled_width >= scaled_height else (0, offset)


@lru_cache(maxsize=1024)
def _window(kind: str, scale_px: int, crop_px: int) -> tuple[int, int, int]:
    """Return left, top and side of one of the six windows inside a square of ``scale_px``."""
    far = scale_px - crop_px
    middle = far // 2
    return {
        "top_left": (0, 0, crop_px),
        "top_right": (far, 0, crop_px),
        "bottom_left": (0, far, crop_px),
        "bottom_right": (far, far, crop_px),
        "centre": (middle, middle, crop_px),
        "resized": (0, 0, scale_px),
    }[kind]
