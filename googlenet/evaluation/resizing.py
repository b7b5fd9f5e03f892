"""Resizing of square windows on any device, with the pixels that PyTorch computes on a CPU, bit for bit.

PyTorch's antialiased resizing of bytes exists for CPUs only. It multiplies with whole numbers, so its results do not
depend on the order of the sums: two matrix products, which a GPU is good at, give the same bytes.
"""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from googlenet.network.arithmetic import FP32
from googlenet.shapes import Float64, UInt8

BYTE = 255
# Weights are rounded to 16 bits with a sign, so their common exponent is the largest that the largest weight allows.
WEIGHT_LIMIT, LARGEST_EXPONENT = 2**15, 22
# Whole numbers up to here are exact in fp32.
EXACT_IN_FP32 = 2**24


def resized(windows: UInt8[Tensor, "n side side 3"], crop_px: int) -> UInt8[Tensor, "n {crop_px} {crop_px} 3"]:
    """Resize square windows to ``crop_px``, bilinear with antialiasing."""
    if windows.device.type == "cpu":
        channels_last = windows.permute(0, 3, 1, 2)
        size = (crop_px, crop_px)
        return functional.interpolate(channels_last, size, mode="bilinear", antialias=True).permute(0, 2, 3, 1)
    return resized_by_products(windows, crop_px)


def resized_by_products(
    windows: UInt8[Tensor, "n side side 3"], crop_px: int
) -> UInt8[Tensor, "n {crop_px} {crop_px} 3"]:
    """Like :func:`resized`, as two matrix products, for devices where PyTorch cannot resize bytes."""
    weights, exponent = _weights_on(windows.shape[1], crop_px, windows.device)
    planes = windows.permute(0, 3, 1, 2).to(weights.dtype)
    with FP32.in_force(windows.device.type):  # TF32 would round the weights
        rows = _rounded(planes @ weights.T, exponent)
        pixels = _rounded(weights @ rows, exponent)
    return pixels.to(torch.uint8).permute(0, 2, 3, 1)


def _rounded(sums: Tensor, exponent: int) -> Tensor:
    return (sums * 2.0**-exponent + 0.5).floor().clamp(0, BYTE)


@lru_cache(maxsize=16)
def _weights_on(side_px: int, crop_px: int, device: torch.device) -> tuple[Tensor, int]:
    """Return the (crop, side) weights, whole numbers, on a device, and the exponent of two that they are scaled by."""
    weights, exponent = whole_weights(side_px, crop_px)
    exact = torch.float32 if BYTE * 2**exponent + 2**exponent <= EXACT_IN_FP32 else torch.float64
    return torch.from_numpy(weights).to(device, exact), exponent


def whole_weights(side_px: int, crop_px: int) -> tuple[Float64[np.ndarray, "{crop_px} {side_px}"], int]:
    """Return the weight of each pixel of a line in each resized pixel, times two to the returned exponent.

    As in PyTorch, and in Pillow before it: a triangle as wide as two resized pixels, cut off at the ends of the line.
    """
    scale = side_px / crop_px
    reach = max(scale, 1.0)  # half the width of the triangle, in pixels of the line
    centres = scale * (np.arange(crop_px) + 0.5)
    first = np.maximum((centres - reach + 0.5).astype(int), 0)[:, None]
    last = np.minimum((centres + reach + 0.5).astype(int), side_px)[:, None]
    pixel = np.arange(side_px)
    weights = np.maximum(0.0, 1.0 - np.abs((pixel - centres[:, None] + 0.5) * (1.0 / reach)))
    weights[(pixel < first) | (pixel >= last)] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    exponent = _largest_exponent(weights)
    return np.floor(weights * 2**exponent + 0.5), exponent


def _largest_exponent(weights: NDArray[np.float64]) -> int:
    for exponent in range(LARGEST_EXPONENT):
        if int(0.5 + weights.max() * 2 ** (exponent + 1)) >= WEIGHT_LIMIT:
            return exponent
    return LARGEST_EXPONENT
