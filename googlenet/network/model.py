"""GoogLeNet as defined by Table 1 and figure 3 of the paper (arXiv 1409.4842), on one device.

Two variants share one implementation:

- ``paper``: local response normalisation, true 5x5 convolutions, biases, no batch normalisation.
- ``bn``: torchvision's GoogLeNet (after TF-slim): batch normalisation, no local response
  normalisation, and a 3x3 kernel in the branch that the paper makes 5x5. Its state dict can be imported.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from googlenet.network.choices import LRN, MAX_WIDTH, Variant
from googlenet.network.layers import (
    LRN_CONSTANTS,
    NO_MASKS,
    Classifier,
    Conv,
    Dropout,
    DropoutMasks,
    LocalResponseNorm,
    exportable,
)
from googlenet.network.lean import is_lean, joined_relu, max_pool
from googlenet.network.table1 import (
    AUX_CONV_CHANNELS,
    AUX_GRID,
    AUX_HIDDEN_FEATURES,
    AUX_POSITIONS,
    INCEPTION_CHANNELS,
    STEM_CHANNELS,
    InceptionChannels,
)
from googlenet.shapes import Float


@exportable
class Outputs(NamedTuple):
    """Logits of the three classifiers, each (N, C); the auxiliary ones are None outside training."""

    logits: Float[Tensor, "n classes"]
    aux_4a: Float[Tensor, "n classes"] | None = None
    aux_4d: Float[Tensor, "n classes"] | None = None


class Inception(nn.Module):
    """Figure 2(b): 1x1, 3x3 and 5x5 convolutions with reductions, and a projected max pool, in parallel.

    (N, in, H, W) to (N, out, H, W), where ``out`` is the sum of the four branches' channels.
    """

    def __init__(self, in_channels: int, channels: InceptionChannels, variant: Variant) -> None:
        super().__init__()
        conv = partial(Conv, variant=variant)
        # Departure in `bn` only: torchvision's weights were trained with 3x3 kernels in this branch.
        wide_kernel = 5 if variant == "paper" else 3
        self.conv_1x1 = conv(in_channels, channels.conv_1x1, 1)
        self.conv_3x3_reduce = conv(in_channels, channels.conv_3x3_reduce, 1)
        self.conv_3x3 = conv(channels.conv_3x3_reduce, channels.conv_3x3, 3)
        self.conv_5x5_reduce = conv(in_channels, channels.conv_5x5_reduce, 1)
        self.conv_5x5 = conv(channels.conv_5x5_reduce, channels.conv_5x5, wide_kernel)
        self.pool_proj = conv(in_channels, channels.pool_proj, 1)

    def forward(self, x: Tensor) -> Tensor:
        # ReLU's result is kept for the backward pass, and so are the joined maps: here they are the same.
        relu = not is_lean(x)
        branches = [
            self.conv_1x1(x, relu=relu),
            self.conv_3x3(self.conv_3x3_reduce(x), relu=relu),
            self.conv_5x5(self.conv_5x5_reduce(x), relu=relu),
            self.pool_proj(max_pool(x, stride=1, padding=1), relu=relu),
        ]
        return torch.cat(branches, dim=1) if relu else joined_relu(branches)


class AuxHead(nn.Module):
    """Auxiliary classifier of section 5: (N, in, H, W) to logits (N, C)."""

    def __init__(
        self, in_channels: int, num_classes: int, *, variant: Variant, scale: Callable[[int], int], dropout: float
    ) -> None:
        super().__init__()
        conv_channels, hidden = scale(AUX_CONV_CHANNELS), scale(AUX_HIDDEN_FEATURES)
        self.paper_pool = variant == "paper"
        self.conv = Conv(in_channels, conv_channels, 1, variant=variant)
        self.hidden = nn.Linear(conv_channels * AUX_GRID**2, hidden)
        self.dropout = Dropout(dropout, hidden)
        self.classifier = Classifier(hidden, num_classes)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.conv(self._pool(x)).flatten(1)
        logits: Tensor = self.classifier(self.dropout(functional.relu(self.hidden(x)), mask))
        return logits

    def _pool(self, x: Tensor) -> Tensor:
        if self.paper_pool and x.shape[-2:] == (14, 14):
            return functional.avg_pool2d(x, 5, stride=3)
        # Departure: maps of other sizes than 14x14 (crops other than 224 px), and the `bn` variant at every
        # size as in torchvision, are pooled adaptively to the 4x4 grid that the fully connected layer needs.
        return functional.adaptive_avg_pool2d(x, AUX_GRID)


def scaled_channels(channels: int, width: float) -> int:
    """``channels`` times ``width``, in multiples of 8 unless the width is 1; at least 8."""
    return channels if width == 1 else max(8, 8 * round(channels * width / 8))


class GoogLeNet(nn.Module):
    """The network of Table 1: images (N, 3, H, W), already mean-subtracted, to :class:`Outputs`.

    Its weights are PyTorch's defaults, from which the variant ``paper`` does not learn: to train it, call
    :func:`googlenet.network.initialisation.initialise` first.

    Args:
        num_classes: outputs of each classifier.
        variant: ``paper`` or ``bn``, see the module's docstring.
        aux_heads: build the two auxiliary classifiers; they run in training mode only (section 5).
        width: factor on every channel count. The paper's seventh replica is a wider one (section 7).
        lrn: a key of ``LRN_CONSTANTS``, or ``none`` for no normalisation; no effect on ``bn``.
        dropout: main and auxiliary rates; None means 0.4 and 0.7 (paper) or 0.2 and 0.7 (torchvision).

    Raises:
        ValueError: an argument is out of range; or images are no batch, or too small for the five halvings of Table 1.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        variant: Variant = "paper",
        aux_heads: bool = True,
        width: float = 1.0,
        *,
        lrn: LRN = "caffe",
        dropout: tuple[float, float] | None = None,
    ) -> None:
        super().__init__()
        _check_arguments(num_classes, variant, width, lrn)
        self.num_classes, self.variant, self.width, self.lrn_name = num_classes, variant, width, lrn
        scale = partial(scaled_channels, width=width)
        main_dropout, aux_dropout = dropout or ((0.4, 0.7) if variant == "paper" else (0.2, 0.7))

        stem = {name: scale(count) for name, count in STEM_CHANNELS.items()}
        self.conv1 = Conv(3, stem["conv1"], 7, stride=2, variant=variant)
        self.conv2_reduce = Conv(stem["conv1"], stem["conv2_reduce"], 1, variant=variant)
        self.conv2 = Conv(stem["conv2_reduce"], stem["conv2"], 3, variant=variant)
        has_lrn = variant == "paper" and lrn != "none"
        self.lrn = LocalResponseNorm(LRN_CONSTANTS[lrn]) if has_lrn else nn.Identity()

        channels = stem["conv2"]
        self.inception = nn.ModuleDict()
        self.aux = nn.ModuleDict()
        for name, paper_row in INCEPTION_CHANNELS.items():
            row = InceptionChannels(*(scale(count) for count in vars(paper_row).values()))
            self.inception[name] = Inception(channels, row, variant)
            channels = row.output
            if aux_heads and name in AUX_POSITIONS:
                self.aux[name] = AuxHead(channels, num_classes, variant=variant, scale=scale, dropout=aux_dropout)
        self.dropout = Dropout(main_dropout, channels)
        self.classifier = Classifier(channels, num_classes)

    def draw_masks(self, images: int, generator: torch.Generator) -> DropoutMasks:
        """Draw the masks of a step, in a fixed order, so that the generator's state determines all three."""
        heads: dict[str, Any] = {name: self.aux[name] for name in AUX_POSITIONS if name in self.aux}
        aux = {name: head.dropout.draw(images, generator) for name, head in heads.items()}
        return DropoutMasks(self.dropout.draw(images, generator), aux.get("4a"), aux.get("4d"))

    def forward(self, images: Float[Tensor, "n 3 h w"], masks: DropoutMasks = NO_MASKS) -> Outputs:
        """Classify a batch.

        Args:
            images: (N, 3, H, W), float, preprocessed as the weights require.
            masks: dropout masks from :meth:`draw_masks`; required in training, unused in evaluation.
        """
        return self.after_stem(self.stem(images), masks)

    def after_stem(self, x: Tensor, masks: DropoutMasks = NO_MASKS) -> Outputs:
        """Classify what :meth:`stem` returned."""
        x = self.inception["3b"](self.inception["3a"](x))
        x = self.inception["4a"](max_pool(x))
        aux_4a = self._aux("4a", x, masks.aux_4a)
        for name in ("4b", "4c", "4d"):
            x = self.inception[name](x)
        aux_4d = self._aux("4d", x, masks.aux_4d)
        x = self.inception["4e"](x)
        # Departure in `bn` only: torchvision's fourth pool is 2x2.
        x = max_pool(x, kernel=3 if self.variant == "paper" else 2)
        x = self.inception["5b"](self.inception["5a"](x))
        # Departure: where Table 1 averages over 7x7, the mean is over the whole map, which crops of 224 px make 7x7.
        pooled = x.mean(dim=(2, 3), dtype=self._features_dtype(x))
        x = self.dropout(pooled, masks.dropout)
        return Outputs(self.classifier(x), aux_4a, aux_4d)

    def _features_dtype(self, x: Tensor) -> torch.dtype:
        """Return the dtype of the classifier's weights; that of ``x`` if it was replaced by a module without any."""
        weights = list(self.classifier.parameters())
        return weights[0].dtype if weights else x.dtype

    def stem(self, images: Tensor) -> Tensor:
        """Return the input of the first inception module: (N, C, H / 8, W / 8)."""
        if images.ndim != 4:
            raise ValueError(f"images must be (N, 3, H, W), got {tuple(images.shape)}: of one image, pass image[None]")
        if min(images.shape[-2:]) < 32:
            raise ValueError(f"images of {tuple(images.shape[-2:])} px are too small: GoogLeNet halves them five times")
        x = self.conv2_reduce(self.lrn(self._pooled(self.conv1, images)))
        return self._pooled(self.conv2, x) if isinstance(self.lrn, nn.Identity) else max_pool(self.lrn(self.conv2(x)))

    def _pooled(self, conv: nn.Module, x: Tensor) -> Tensor:
        if not is_lean(x):
            return max_pool(conv(x))
        # The same, and only the pooled maps are kept for the backward pass.
        return functional.relu(max_pool(conv(x, relu=False)), inplace=True)

    def _aux(self, name: str, x: Tensor, mask: Tensor | None) -> Tensor | None:
        if not self.training or name not in self.aux:
            return None
        logits: Tensor = self.aux[name](x, mask)
        return logits


def _check_arguments(num_classes: int, variant: str, width: float, lrn: str) -> None:
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
    if variant not in get_args(Variant):
        raise ValueError(f"variant must be 'paper' or 'bn', got {variant!r}")
    if not 0 < width <= MAX_WIDTH:
        raise ValueError(f"width must be in (0, {MAX_WIDTH}], got {width}")
    if lrn not in get_args(LRN):
        raise ValueError(f"lrn must be one of {list(get_args(LRN))}, got {lrn!r}")


def fold_batch_norm(model: GoogLeNet) -> GoogLeNet:
    """Return a copy of ``model``, in evaluation mode, that computes the same with fewer operations.

    Local response normalisation is fused as well, on a GPU.
    """
    folded = copy.deepcopy(model).eval()
    for module in folded.modules():
        if isinstance(module, Conv) and isinstance(module.bn, nn.BatchNorm2d):
            module.conv = fuse_conv_bn_eval(module.conv, module.bn)
            module.bn = nn.Identity()
        if isinstance(module, LocalResponseNorm):
            module.fused = True
    return folded
