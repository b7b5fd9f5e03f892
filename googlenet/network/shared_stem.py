"""The stem of a square's five crops, computed once where they overlap.

Corner and centre crops lie at offsets of whole steps of the stem (8 px), so that its maps of the square contain those
of the crops, but for their borders: a crop is padded with zeros where the square has pixels. The borders are computed
again from strips of each crop, with its own padding.
"""

import torch
from torch import Tensor

from googlenet.network.lean import max_pool
from googlenet.network.model import GoogLeNet
from googlenet.shapes import Float

# Pixels of an image for each step of the maps after the first pooling, and after the second.
FIRST_STEP_PX, STEP_PX = 4, 8
# The paper's largest square has twice the area of a crop; much larger ones would cost more than their five crops.
LARGEST_SEVENTHS = 11
# Rows or columns of each kind, at the start of a crop and at its end: of its pixels, and of the maps that each layer
# makes of them; those that saw the padding of the strip on its inner side are left out.
PIXELS = 8
CONV1_START, CONV1_END = slice(0, 3), slice(2, 4)
REDUCED_START, REDUCED_END = slice(0, 4), slice(-5, None)
CONV2_START, CONV2_END = slice(0, 3), slice(1, 5)


def corners_px(side_px: int, crop_px: int) -> tuple[tuple[int, int], ...]:
    """Return top and left of the five crops of a square: corners row by row, then the centre."""
    far = side_px - crop_px
    return (0, 0), (0, far), (far, 0), (far, far), (far // 2, far // 2)


def can_share(side_px: int, crop_px: int) -> bool:
    """Return whether the crops of a square lie at whole steps of the stem, and overlap enough to gain by it."""
    overlaps = crop_px < side_px and 7 * side_px <= LARGEST_SEVENTHS * crop_px
    return overlaps and crop_px % STEP_PX == 0 and (side_px - crop_px) % (2 * STEP_PX) == 0


def stem_of_crops(
    network: GoogLeNet, squares: Float[Tensor, "n 3 side side"], crop_px: int
) -> Float[Tensor, "5*n c out out"]:
    """Return ``network.stem`` of the five crops of each square: the first crop of all squares, then the second."""
    corners = corners_px(squares.shape[-1], crop_px)
    reduced = network.conv2_reduce(network.lrn(max_pool(network.conv1(squares))))
    crops = [_cut(squares, corner, crop_px, 1) for corner in corners]
    maps = [_cut(reduced, corner, crop_px, FIRST_STEP_PX).clone() for corner in corners]
    for dim, at_end, inner in _inner_borders(corners):
        strips = torch.cat([_sliced(crops[n], dim, slice(-PIXELS, None) if at_end else slice(PIXELS)) for n in inner])
        border = _sliced(network.conv1(strips), dim, CONV1_END if at_end else CONV1_START)
        _replace(maps, inner, dim, at_end, network.conv2_reduce(network.lrn(max_pool(border))))
    pooled = max_pool(network.lrn(network.conv2(reduced)))
    outputs = [_cut(pooled, corner, crop_px, STEP_PX).clone() for corner in corners]
    for dim, at_end, inner in _inner_borders(corners):
        strips = torch.cat([_sliced(maps[n], dim, REDUCED_END if at_end else REDUCED_START) for n in inner])
        border = _sliced(network.conv2(strips), dim, CONV2_END if at_end else CONV2_START)
        _replace(outputs, inner, dim, at_end, max_pool(network.lrn(border)))
    return torch.cat(outputs)


def _inner_borders(corners: tuple[tuple[int, int], ...]) -> list[tuple[int, bool, list[int]]]:
    """Return the four sides of crops: dimension, whether at its end, and the crops that have it inside the square."""
    far = max(top for top, _ in corners)
    borders = []
    for axis in (0, 1):
        borders.append((2 + axis, False, [n for n, corner in enumerate(corners) if corner[axis] > 0]))
        borders.append((2 + axis, True, [n for n, corner in enumerate(corners) if corner[axis] < far]))
    return borders


def _cut(maps: Tensor, corner: tuple[int, int], crop_px: int, step_px: int) -> Tensor:
    top, left, side = corner[0] // step_px, corner[1] // step_px, crop_px // step_px
    return maps[:, :, top : top + side, left : left + side]


def _sliced(maps: Tensor, dim: int, part: slice) -> Tensor:
    return maps[:, :, part] if dim == 2 else maps[:, :, :, part]


def _replace(maps: list[Tensor], members: list[int], dim: int, at_end: bool, borders: Tensor) -> None:
    """Write the borders of ``members``, one after another, to their maps."""
    wide = borders.shape[dim]
    for n, border in zip(members, borders.chunk(len(members)), strict=True):
        _sliced(maps[n], dim, slice(-wide, None) if at_end else slice(wide)).copy_(border)
