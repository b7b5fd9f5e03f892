"""Layers of GoogLeNet: local response normalisation, dropout with masks passed in, and the basic convolution."""

import warnings
from collections.abc import Callable
from functools import cache
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from googlenet.network.arithmetic import can_compile
from googlenet.network.choices import Variant
from googlenet.network.own_operations import are_own
from googlenet.shapes import Float

N = TypeVar("N", bound=type)


class LRNConstants(NamedTuple):
    """Constants of local response normalisation, in PyTorch's convention: x / (k + alpha / size * sum(x^2)) ** beta."""

    size: int
    alpha: float
    beta: float
    k: float


# The paper prints no constants. Caffe's divide alpha by the size, as PyTorch does; the graph that Google
# released (TensorFlow: depth_radius 5, alpha 1e-4 undivided, bias 2) needs alpha times its size of 11.
LRN_CONSTANTS = {
    "caffe": LRNConstants(size=5, alpha=1e-4, beta=0.75, k=1.0),
    "google": LRNConstants(size=11, alpha=11e-4, beta=0.5, k=2.0),
}


class LocalResponseNorm(nn.Module):
    """Across-channel local response normalisation, (N, C, H, W) to the same shape.

    A sum of shifted squares: equal to ``torch.nn.LocalResponseNorm``, faster on a CPU, and defined for bfloat16 and
    float16.

    Attributes:
        constants: constants of the normalisation.
        fused: compile it to one kernel on a GPU even if the network is not compiled: its dozen operations would each
            read and write the largest maps of the network. Compiled code can be differentiated once, and not by
            ``torch.func``; this project's training loop uses it in any case.
    """

    def __init__(self, constants: LRNConstants) -> None:
        super().__init__()
        self.constants, self.fused = constants, False

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling() and x.is_cuda and (self.fused or are_own()):
            return _fused_normalisation(x.device)(x, self.constants)
        return _normalised(x, self.constants)


def _normalised(x: Tensor, constants: LRNConstants) -> Tensor:
    if x.dtype == torch.float16:  # whose largest number is 65,504: the squares of common activations are larger
        return _normalised(x.float(), constants).half()
    size, alpha, beta, k = constants
    channels, before = x.shape[1], size // 2
    # Concatenated, not padded: a compiler would fold padding into the neighbouring pools and repeat it many times.
    squares = torch.cat([_zeros(x, before), x.square(), _zeros(x, size - 1 - before)], dim=1)
    total = squares.narrow(1, 0, channels) + squares.narrow(1, 1, channels)
    # In place, since these are the largest maps of the network: a backward pass does not need the sums.
    for offset in range(2, size):
        total += squares.narrow(1, offset, channels)
    del squares
    divisor = total.mul_(alpha / size).add_(k)
    if beta == 0.75:  # two square roots cost a tenth of pow
        return x * torch.rsqrt(divisor * divisor.sqrt())
    return x * divisor.pow(-beta)


def _zeros(x: Tensor, channels: int) -> Tensor:
    """Return channels of zeros beside those of ``x``, in its layout."""
    batch, _, height, width = x.shape
    if x.stride(1) < x.stride(3):  # channels last; ``torch.vmap`` refuses to be asked for the memory format
        return x.new_zeros(batch, height, width, channels).permute(0, 3, 1, 2)
    return x.new_zeros(batch, channels, height, width)


@cache
def _fused_normalisation(device: torch.device) -> Callable[[Tensor, LRNConstants], Tensor]:
    """Return the normalisation for a GPU: compiled, if a first trial on it shows that the compiler works."""
    if not can_compile("cuda"):
        return _normalised
    fused: Callable[[Tensor, LRNConstants], Tensor] = torch.compile(_normalised)
    try:
        fused(torch.ones(1, 8, 2, 2, device=device), LRN_CONSTANTS["caffe"])
    except Exception as error:  # noqa: BLE001  # a compiler and its tools may raise anything
        warnings.warn(f"local response normalisation is not fused because the compiler failed: {error}", stacklevel=2)
        return _normalised
    return fused


def exportable(cls: N) -> N:
    """Let ``torch.export.save`` write networks that take or return this class of named tuples."""
    pytree._register_namedtuple(cls, serialized_type_name=f"{cls.__module__}.{cls.__qualname__}")
    return cls


@exportable
class DropoutMasks(NamedTuple):
    """Multipliers of the three dropouts, each (N, features): 0, or the inverse of the share kept. None: no dropout."""

    dropout: Float[Tensor, "n features"] | None = None
    aux_4a: Float[Tensor, "n hidden"] | None = None
    aux_4d: Float[Tensor, "n hidden"] | None = None


NO_MASKS = DropoutMasks()


class Dropout(nn.Module):
    """Dropout whose mask is drawn beforehand, from a generator that the caller passes in.

    A step can therefore be repeated exactly, also by several workers, each with its share of a batch.
    """

    def __init__(self, p: float, features: int) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout must be in [0, 1), got {p}")
        self.p, self.features = p, features

    def draw(self, images: int, generator: torch.Generator) -> Float[Tensor, "{images} {self.features}"] | None:
        """Draw the mask of a batch, (images, features); None if nothing is dropped."""
        if self.p == 0:
            return None
        mask = torch.empty(images, self.features, device=generator.device)
        return mask.bernoulli_(1 - self.p, generator=generator) / (1 - self.p)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if mask is None:
            raise ValueError(
                "training with dropout needs masks: pass model.draw_masks(len(images), generator), with a "
                "torch.Generator on the images' device"
            )
        return x * mask


class Classifier(nn.Linear):
    """The last layer of a head, (N, features) to logits (N, C), in the precision of its own weights: fp32.

    With the eight significant bits of bfloat16, logits of different classes are often equal, also within autocast.
    """

    def forward(self, features: Tensor) -> Tensor:
        features = features.to(self.weight.dtype)
        device = features.device.type
        # On the device meta, which has shapes alone, PyTorch refuses the question.
        if device == "meta" or not torch.is_autocast_enabled(device):
            return super().forward(features)
        with torch.autocast(device, enabled=False):
            return super().forward(features)


class Conv(nn.Module):
    """Convolution, batch normalisation if the variant has it, ReLU: (N, in, H, W) to (N, out, H', W').

    ``relu=False`` leaves ReLU to the caller.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, variant: Variant, stride: int = 1) -> None:
        super().__init__()
        has_bn = variant == "bn"
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=not has_bn)
        self.bn = nn.BatchNorm2d(out_channels, eps=1e-3) if has_bn else nn.Identity()

    def forward(self, x: Tensor, *, relu: bool = True) -> Tensor:
        x = self.bn(self.conv(x))
        # In place: nothing needs the values before it, in training either.
        return functional.relu(x, inplace=True) if relu else x
