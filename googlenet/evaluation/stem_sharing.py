"""Views of an image through networks whose first layers are computed once for the five crops of a square."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from googlenet.evaluation.crops import Box
from googlenet.evaluation.views import cut_views
from googlenet.network.arithmetic import Arithmetic
from googlenet.network.model import GoogLeNet
from googlenet.network.preprocessing import PreprocessingOnDevice
from googlenet.network.shared_stem import can_share, corners_px, stem_of_crops
from googlenet.shapes import Float32


@dataclass(frozen=True, eq=False)
class SharedViews:
    """The windows of an image, cut as squares of each scale for the crops in them, and as views for the others.

    Attributes:
        squares: (N, 3, side, side) uint8 for each scale.
        others: (M, 3, crop, crop) uint8.
        order: (D,) for each window, its position among the crops of all squares, followed by the others.
        crop_px: side of the views.
    """

    squares: list[Tensor]
    others: Tensor
    order: list[int]
    crop_px: int

    @classmethod
    def cut(cls, scaled: Sequence[Tensor], boxes: Sequence[Box], crop_px: int) -> "SharedViews | None":
        """Return the windows ``boxes``; None if no square has all its crops among them, at whole steps of the stem."""
        by_scale: dict[int, list[Box]] = {}
        wanted = set(boxes)
        for square in boxes:
            if can_share(square.side_px, crop_px) and wanted.issuperset(crops_of(square, crop_px)):
                by_scale.setdefault(square.scale_px, []).append(square)
        if not by_scale:
            return None
        shared = [crop for squares in by_scale.values() for crop in _crops_by_corner(squares, crop_px)]
        others = sorted(wanted.difference(shared), key=boxes.index)
        position = {box: n for n, box in enumerate([*shared, *others])}
        squares_px = [cut_views(scaled, squares, scale_px) for scale_px, squares in by_scale.items()]
        return cls(squares_px, cut_views(scaled, others, crop_px), [position[box] for box in boxes], crop_px)

    def logits(
        self, network: GoogLeNet, prepare: PreprocessingOnDevice, arithmetic: Arithmetic, batch_size: int
    ) -> Float32[Tensor, "d c"]:
        """Return the outputs of a network for each window."""
        logits, waiting = [], None
        for maps in self._stems(network, prepare, arithmetic, batch_size):
            waiting = maps if waiting is None else torch.cat([waiting, maps])
            while len(waiting) >= batch_size:
                logits.append(network.after_stem(waiting[:batch_size]).logits)
                waiting = waiting[batch_size:]
        if waiting is not None and len(waiting):
            logits.append(network.after_stem(waiting).logits)
        return torch.cat(logits)[self.order]

    def _stems(
        self, network: GoogLeNet, prepare: PreprocessingOnDevice, arithmetic: Arithmetic, batch_size: int
    ) -> Iterator[Tensor]:
        """Yield the outputs of the stem, little by little: those of all views would take more memory than a batch."""
        for squares in self.squares:
            yield stem_of_crops(network, prepare(squares).to(arithmetic.dtype), self.crop_px)
        for views in torch.split(self.others, batch_size):
            yield network.stem(prepare(views).to(arithmetic.dtype))


def crops_of(square: Box, crop_px: int) -> list[Box]:
    """Return the windows of a square's five crops, in the order of the pixels of the square, which may be mirrored."""
    far = square.side_px - crop_px
    return [
        square._replace(
            top_px=square.top_px + top,
            left_px=square.left_px + (far - left if square.mirrored else left),
            side_px=crop_px,
        )
        for top, left in corners_px(square.side_px, crop_px)
    ]


def _crops_by_corner(squares: Sequence[Box], crop_px: int) -> list[Box]:
    """Return the first crop of all squares, then the second, as :func:`stem_of_crops` does."""
    by_corner = zip(*(crops_of(square, crop_px) for square in squares), strict=True)
    return [crop for crops in by_corner for crop in crops]
