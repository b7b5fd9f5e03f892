"""Operations that keep little for their backward pass on a CPU: max pooling, and ReLU of joined maps.

A GPU would spend time on more kernels, and compilers know ways of their own: there they are PyTorch's.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


def is_lean(x: Tensor) -> bool:
    """Return whether operations on ``x`` are to keep little for a backward pass."""
    return x.is_cpu and torch.is_grad_enabled() and not torch.compiler.is_compiling()


def max_pool(x: Tensor, kernel: int = 3, stride: int = 2, padding: int = 0) -> Tensor:
    """Pool (N, C, H, W).

    Equal to ``torch.nn.functional.max_pool2d``, bit for bit, backward too. That function keeps its input, and a 64-bit
    position for each output; here 16 bits are kept.
    """
    if not is_lean(x):
        # Table 1's sizes (112, 56, 28, 14, 7) need rounding up, as in Caffe.
        return functional.max_pool2d(x, kernel, stride, padding, ceil_mode=stride > 1)
    pooled: Tensor = _MaxPool.apply(x, kernel, stride, padding)
    return pooled


def joined_relu(maps: Sequence[Tensor]) -> Tensor:
    """Concatenate ``maps``, each (N, C, H, W), along their channels, then ReLU.

    Equal to the concatenation of their ReLUs, bit for bit, backward too, where each of these would be kept as well.
    """
    joined: Tensor = _JoinedReLU.apply(*maps)
    return joined


class _MaxPool(torch.autograd.Function):
    """Max pooling that keeps where in its window each maximum is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
        ctx.window = [kernel, kernel], [stride, stride], [padding, padding], [1, 1], stride > 1
        ctx.shape, ctx.strides, ctx.first = x.shape, x.stride(), (stride, padding)
        pooled, positions = torch.ops.aten.max_pool2d_with_indices(x, *ctx.window)
        width = x.shape[-1]
        largest = (kernel - 1) * (width + 1)
        offsets = positions.sub_(_window_starts(pooled, width, stride, padding))
        ctx.save_for_backward(offsets.to(torch.int16 if largest < 2**15 else torch.int32))
        return pooled  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (offsets,) = ctx.saved_tensors
        positions = offsets.long().add_(_window_starts(gradient, ctx.shape[-1], *ctx.first))
        # Only the shape and the strides of the input are read.
        shaped = torch.empty_strided(ctx.shape, ctx.strides, dtype=gradient.dtype)
        found = torch.ops.aten.max_pool2d_with_indices_backward(gradient, shaped, *ctx.window, positions)
        return found, None, None, None


def _window_starts(pooled: Tensor, width: int, stride: int, padding: int) -> Tensor:
    """Return the position, in a map of ``width`` columns, where the window of each output begins: (H', W')."""
    rows, columns = (torch.arange(side) * stride - padding for side in pooled.shape[-2:])
    return rows[:, None] * width + columns


class _JoinedReLU(torch.autograd.Function):
    """ReLU of joined maps, whose gradients have a layout of their own: those of a slice would be slow to use."""

    @staticmethod
    def forward(ctx: Any, *maps: Tensor) -> Tensor:
        joined = torch.cat(maps, dim=1).relu_()
        ctx.channels = [each.shape[1] for each in maps]
        ctx.save_for_backward(joined)
        return joined

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        (joined,) = ctx.saved_tensors
        slices = zip(*(torch.split(each, ctx.channels, dim=1) for each in (gradient, joined)), strict=True)
        return tuple(torch.ops.aten.threshold_backward(change, result, 0) for change, result in slices)
