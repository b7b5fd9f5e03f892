"""Operations that keep little for their backward pass on a CPU: max pooling, and ReLU of concatenated maps.

Only this project's training loop uses them: they can be differentiated only once, and not by ``torch.func``. PyTorch's
own operations are used instead on GPUs, where these would take more kernels; in compiled code, since compilers save
memory in ways of their own; and for few images or small maps, which keep little anyway, and where a call for each image
would take longer than the pooling: with inputs of 56 px and a quarter of the width, a training step would take 1.5
times as long.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from googlenet.network.own_operations import are_own

# Such as the parts of a batch of the paper's network.
FEW_IMAGES = 8
# Numbers in the maps of an image: at full width and 112 px, all but the last two modules' have more.
SMALL_MAPS = 2**14


def is_lean(x: Tensor) -> bool:
    """Return whether operations on ``x`` are to keep little for a backward pass."""
    # is_compiling comes first, so that a compiler sees nothing else: neither the switch nor the number of images.
    is_kept = not torch.compiler.is_compiling() and are_own() and x.is_cpu and torch.is_grad_enabled()
    return is_kept and len(x) > FEW_IMAGES and math.prod(x.shape[1:]) > SMALL_MAPS


def max_pool(x: Tensor, kernel: int = 3, stride: int = 2, padding: int = 0) -> Tensor:
    """Pool (N, C, H, W).

    Equal to ``torch.nn.functional.max_pool2d``, bit for bit, backward too. That function keeps its input, and a 64-bit
    position for each output; here 16 bits are kept.
    """
    if not (is_lean(x) and _is_dense(x)):
        # Table 1's sizes (112, 56, 28, 14, 7) need rounding up, as in Caffe.
        return functional.max_pool2d(x, kernel, stride, padding, ceil_mode=stride > 1)
    pooled: Tensor = _MaxPool.apply(x, kernel, stride, padding)
    return pooled


def _is_dense(x: Tensor) -> bool:
    return x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)


def joined_relu(maps: Sequence[Tensor]) -> Tensor:
    """Concatenate ``maps``, each (N, C, H, W), along their channels, then ReLU.

    Equal to the concatenation of their ReLUs, bit for bit, backward too, where each of these would be kept as well.
    """
    joined: Tensor = _JoinedReLU.apply(*maps)
    return joined


class _MaxPool(torch.autograd.Function):
    """Max pooling that keeps where in its window each maximum is.

    Image by image, so that the positions of 64 bits stay in the processor's cache.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
        ctx.window = [kernel, kernel], [stride, stride], [padding, padding], [1, 1], stride > 1
        ctx.shape, ctx.strides, ctx.first = x.shape, x.stride(), (stride, padding)
        pool = torch.ops.aten.max_pool2d_with_indices
        one, positions = pool(x[:1], *ctx.window)
        pooled = _like_images(one, len(x), x.dtype)
        largest = (kernel - 1) * (x.shape[-1] + 1)
        offsets = _like_images(one, len(x), torch.int16 if largest < 2**15 else torch.int32)
        starts = _window_starts(one, x.shape[-1], stride, padding)
        for image in map(slice, range(len(x)), range(1, len(x) + 1)):
            pool.out(x[image], *ctx.window, out=pooled[image], indices=positions)
            offsets[image] = positions.sub_(starts)
        ctx.save_for_backward(offsets)
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (offsets,) = ctx.saved_tensors
        starts = _window_starts(gradient, ctx.shape[-1], *ctx.first)
        gradient_of_input = torch.empty_strided(ctx.shape, ctx.strides, dtype=gradient.dtype)
        for image in map(slice, range(len(gradient)), range(1, len(gradient) + 1)):
            positions, into = offsets[image].long().add_(starts), gradient_of_input[image]
            # Of the input, in whose place the result stands, only the shape and the strides are read.
            torch.ops.aten.max_pool2d_with_indices_backward.grad_input(
                gradient[image], into, *ctx.window, positions, grad_input=into
            )
        return gradient_of_input, None, None, None


def _like_images(one: Tensor, number: int, dtype: torch.dtype) -> Tensor:
    """Return an empty tensor of so many images, each laid out as the one in ``one``."""
    return torch.empty_strided((number, *one.shape[1:]), (math.prod(one.shape[1:]), *one.stride()[1:]), dtype=dtype)


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
