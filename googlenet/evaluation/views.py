"""Pixels of the test views, cut from the scaled images."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from googlenet.evaluation.crops import Box
from googlenet.images.decoding import Pixels
from googlenet.shapes import UInt8


def cut_views(
    scaled: Sequence[Pixels], boxes: Sequence[Box], crop_px: int
) -> UInt8[Tensor, "{len(boxes)} 3 {crop_px} {crop_px}"]:
    """Cut ``boxes`` out of the scaled images.

    Args:
        scaled: (H, W, 3) uint8 images, one for each scale that occurs in ``boxes``.
        boxes: V windows.
        crop_px: side of the views; larger windows are resized to it, bilinear with antialiasing.

    Returns:
        (V, 3, crop_px, crop_px) uint8, channels-last in memory.
    """
    by_scale = {min(image.shape[:2]): image for image in scaled}
    # Channels stay innermost throughout, so that rows are copied, not single bytes.
    views = np.empty((len(boxes), crop_px, crop_px, 3), np.uint8)
    upright: dict[tuple[int, int, int, int], Pixels] = {}
    for view, box in zip(views, boxes, strict=True):
        place = box.scale_px, box.left_px, box.top_px, box.side_px
        if place not in upright:
            upright[place] = _window(by_scale[box.scale_px], box, crop_px)
        if box.mirrored:
            cv2.flip(upright[place], 1, dst=view)
        else:
            view[:] = upright[place]
    return torch.from_numpy(views).permute(0, 3, 1, 2)


def _window(image: Pixels, box: Box, crop_px: int) -> Pixels:
    window = image[box.top_px : box.top_px + box.side_px, box.left_px : box.left_px + box.side_px]
    if box.side_px == crop_px:
        return window
    batch = torch.from_numpy(np.array(window)).permute(2, 0, 1)[None]
    resized = functional.interpolate(batch, size=(crop_px, crop_px), mode="bilinear", antialias=True)[0]
    pixels: Pixels = resized.permute(1, 2, 0).numpy()
    return pixels
