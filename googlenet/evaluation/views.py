"""Pixels of the test views, cut from the scaled images on any device."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from googlenet.evaluation.crops import Box
from googlenet.evaluation.resizing import resized
from googlenet.images.decoding import Pixels
from googlenet.shapes import UInt8


def cut_views(
    scaled: Sequence[Pixels] | Sequence[Tensor], boxes: Sequence[Box], crop_px: int
) -> UInt8[Tensor, "{len(boxes)} 3 {crop_px} {crop_px}"]:
    """Cut ``boxes`` out of the scaled images, on the device that holds them.

    Args:
        scaled: (H, W, 3) uint8 images, one for each scale that occurs in ``boxes``; arrays, or tensors of one device.
        boxes: V windows.
        crop_px: side of the views; larger windows are resized to it, bilinear with antialiasing.

    Returns:
        (V, 3, crop_px, crop_px) uint8, channels-last in memory.
    """
    images = [image if isinstance(image, Tensor) else _copied(image) for image in scaled]
    upright = {min(image.shape[:2]): image for image in images}
    # A mirrored window is cut from the mirrored image: four are mirrored instead of 72 windows.
    mirrored = {scale_px: upright[scale_px].flip(1) for scale_px in {box.scale_px for box in boxes if box.mirrored}}
    whole = _resized_squares(upright, [box for box in boxes if box.side_px != crop_px], crop_px)
    windows = []
    for box in boxes:
        if box.side_px != crop_px:
            windows.append(whole[box])
        elif box.mirrored:
            image = mirrored[box.scale_px]
            windows.append(_window(image, box._replace(left_px=image.shape[1] - box.left_px - crop_px)))
        else:
            windows.append(_window(upright[box.scale_px], box))
    # Channels stay innermost, so that rows are copied, not single bytes.
    return torch.stack(windows).permute(0, 3, 1, 2)


def _copied(image: Pixels) -> Tensor:
    """Return a tensor with an image's pixels, which may be read-only."""
    tensor = torch.empty(image.shape, dtype=torch.uint8, device="cpu")
    np.copyto(tensor.numpy(), image)
    return tensor


def _resized_squares(images: dict[int, Tensor], boxes: Sequence[Box], crop_px: int) -> dict[Box, Tensor]:
    """Return the windows that are larger than a crop, resized: those of one scale together, mirrored after it."""
    views: dict[Box, Tensor] = {}
    for scale_px in dict.fromkeys(box.scale_px for box in boxes):
        upright = list(dict.fromkeys(box._replace(mirrored=False) for box in boxes if box.scale_px == scale_px))
        small = resized(torch.stack([_window(images[scale_px], box) for box in upright]), crop_px)
        for box, view, mirror in zip(upright, small, small.flip(2), strict=True):
            views |= {box: view, box._replace(mirrored=True): mirror}
    return views


def _window(image: Tensor, box: Box) -> Tensor:
    return image[box.top_px : box.top_px + box.side_px, box.left_px : box.left_px + box.side_px]
