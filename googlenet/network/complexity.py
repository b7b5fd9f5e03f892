"""Parameters and multiply-adds, counted on the network itself, next to those printed in Table 1."""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from googlenet.network.choices import Variant
from googlenet.network.layers import Conv
from googlenet.network.model import GoogLeNet
from googlenet.network.table1 import INCEPTION_CHANNELS

KIBI = 1024  # Table 1's "K": 112K is 114,688 weights
MILLION = 1_000_000


@dataclass(frozen=True)
class Row:
    """One row of Table 1, as computed and as printed.

    Attributes:
        name: name of the layer or module.
        output: channels, height and width.
        weights: number of weights without biases, as the table counts.
        multiply_adds: multiply-adds for one image.
        printed_weights_k: the table's "params", in units of 1024.
        printed_ops_m: the table's "ops", in millions.
        remark: explanation of a disagreement, if known.
    """

    name: str
    output: tuple[int, ...]
    weights: int
    multiply_adds: int
    printed_weights_k: float
    printed_ops_m: float
    remark: str = ""


@dataclass(frozen=True)
class Saving:
    """Multiply-adds of an Inception module without reductions (figure 2a) and with them (figure 2b)."""

    name: str
    naive: int
    reduced: int


# Table 1's columns "params" (in 1024) and "ops" (in millions).
PRINTED = {
    "conv1": (2.7, 34),
    "conv2": (112, 360),
    "3a": (159, 128),
    "3b": (380, 304),
    "4a": (364, 73),
    "4b": (437, 88),
    "4c": (463, 100),
    "4d": (580, 119),
    "4e": (840, 170),
    "5a": (1072, 54),
    "5b": (1388, 71),
    "linear": (1000, 1),
}
REMARKS = {
    "conv1": "printed pair fits a separable 7x7 with multiplier 8 (2,712 weights, 34.0M), not the dense one",
    "4c": "misprint: the printed ops agree with the computed weights",
    "5a": "misprint: the printed pair agrees with itself, not with the printed channels",
}
# Layers of AlexNet with their groups (Krizhevsky et al. 2012): inputs per output, outputs.
ALEXNET = (
    (3 * 11 * 11, 96),
    (48 * 5 * 5, 256),
    (256 * 3 * 3, 384),
    (192 * 3 * 3, 384),
    (192 * 3 * 3, 256),
    (256 * 6 * 6, 4096),
    (4096, 4096),
    (4096, 1000),
)


def table_rows(crop_px: int = 224) -> list[Row]:
    """Return the rows of Table 1 that have parameters, computed at ``crop_px`` (the printed figures are for 224)."""
    measured = _layers("paper", 1.0, 1000, crop_px)
    rows = []
    for name, (printed_weights, printed_ops) in PRINTED.items():
        layers = [layer for layer in measured if _row_of(layer.name) == name]
        shape = measured_output(layers, name)
        rows.append(
            Row(
                name,
                shape,
                sum(layer.weights for layer in layers),
                sum(layer.multiply_adds for layer in layers),
                printed_weights,
                printed_ops,
                REMARKS.get(name, ""),
            )
        )
    return rows


def parameter_count(aux_heads: bool) -> int:
    """Return the number of parameters of the network with 1000 classes, biases included."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in GoogLeNet(aux_heads=aux_heads).parameters())


def alexnet_parameter_count() -> int:
    """Return the number of parameters of AlexNet, biases included."""
    return sum((inputs + 1) * outputs for inputs, outputs in ALEXNET)


def savings(crop_px: int = 224) -> list[Saving]:
    """Return the savings of each module's 1x1 reductions, for the same input and the same 1x1, 3x3 and 5x5 outputs."""
    rows = {row.name: row for row in table_rows(crop_px)}
    result, inputs = [], 192
    for name, channels in INCEPTION_CHANNELS.items():
        per_position = channels.conv_1x1 + 9 * channels.conv_3x3 + 25 * channels.conv_5x5
        _, height, width = rows[name].output
        result.append(Saving(name, inputs * per_position * height * width, rows[name].multiply_adds))
        inputs = channels.output
    return result


@dataclass(frozen=True)
class _Layer:
    name: str
    output: tuple[int, ...]
    weights: int
    multiply_adds: int


def forward_flops(model: GoogLeNet, crop_px: int) -> int:
    """Return the floating-point operations of one image's forward pass: two for each multiply-add of the layers."""
    return 2 * multiply_adds(model.variant, model.width, model.num_classes, crop_px)


def multiply_adds(variant: Variant, width: float, num_classes: int, crop_px: int) -> int:
    """Return the multiply-adds of the layers of a network for one image."""
    return sum(layer.multiply_adds for layer in _layers(variant, width, num_classes, crop_px))


def output_bytes(model: GoogLeNet, crop_px: int) -> list[int]:
    """Return the fp32 bytes of the output of each convolution and linear layer, for one image."""
    layers = _layers(model.variant, model.width, model.num_classes, crop_px)
    return [4 * math.prod(layer.output) for layer in layers]


@functools.cache
def _layers(variant: Variant, width: float, num_classes: int, crop_px: int) -> tuple[_Layer, ...]:
    """Record every convolution and linear layer of a network for one image, which is computed with weights of zero.

    PyTorch's meta device computes nothing, but imports PyTorch's compiler, which takes longer.
    """
    with torch.device("meta"):
        model = GoogLeNet(num_classes, variant, aux_heads=False, width=width)
    # Normalisation changes no shape.
    model.lrn = nn.Identity()
    for conv in [module for module in model.modules() if isinstance(module, Conv)]:
        conv.bn = nn.Identity()
    for weight in model.eval().to_empty(device="cpu").parameters():
        nn.init.zeros_(weight)
    layers: list[_Layer] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(partial(_record, name, layers))
    with torch.inference_mode():
        model(torch.zeros(1, 3, crop_px, crop_px))
    return tuple(layers)


def _record(
    name: str, layers: list[_Layer], module: nn.Conv2d | nn.Linear, _inputs: object, output: torch.Tensor
) -> None:
    weights = module.weight.numel()
    positions = math.prod(output.shape[2:])
    layers.append(_Layer(name, tuple(output.shape[1:]), weights, weights * positions))


def _row_of(layer: str) -> str:
    parts = layer.split(".")
    return {"conv2_reduce": "conv2", "classifier": "linear", "inception": parts[1] if len(parts) > 1 else ""}.get(
        parts[0], parts[0]
    )


def measured_output(layers: Sequence[_Layer], name: str) -> tuple[int, ...]:
    """Return (channels, height, width) of a row: of its last layer, or of the four concatenated branches."""
    last = layers[-1].output
    if name not in INCEPTION_CHANNELS:
        return (*last, 1, 1)[:3]
    return (INCEPTION_CHANNELS[name].output, *last[1:])


def format_table() -> Iterator[str]:
    """Yield the lines that ``python -m googlenet`` prints."""
    yield "GoogLeNet, Table 1 (arXiv 1409.4842): computed at 224 px, printed figures in brackets; K is 1024"
    yield f"{'row':<8}{'output':>14}{'weights K':>20}{'multiply-adds M':>22}"
    rows = table_rows()
    for row in rows:
        channels, height, width = row.output
        weights = f"{row.weights / KIBI:.1f} [{row.printed_weights_k:g}]"
        ops = f"{row.multiply_adds / MILLION:.1f} [{row.printed_ops_m:g}]"
        yield f"{row.name:<8}{f'{height}x{width}x{channels}':>14}{weights:>20}{ops:>22}  {row.remark}".rstrip()
    total = sum(row.multiply_adds for row in rows)
    printed = sum(row.printed_weights_k for row in rows), sum(row.printed_ops_m for row in rows)
    sums = (
        f"{sum(row.weights for row in rows) / KIBI:.1f} [{printed[0]:.1f}]",
        f"{total / MILLION:.1f} [{printed[1]:g}]",
    )
    yield f"{'total':<8}{'':>14}{sums[0]:>20}{sums[1]:>22}"
    yield ""
    without, alexnet = parameter_count(aux_heads=False), alexnet_parameter_count()
    yield f"parameters: {without:,} without auxiliary heads, {parameter_count(aux_heads=True):,} with them"
    yield f"AlexNet: {alexnet:,}, {alexnet / without:.1f} times as many (the paper says 12 times)"
    yield f"multiply-adds: {total / 1e9:.2f} G for one crop; the paper's budget is 1.5 G"
    yield ""
    yield "Savings of the 1x1 reductions: multiply-adds M per module without (figure 2a) and with them (figure 2b)"
    modules = savings()
    for saving in modules:
        ratio = saving.naive / saving.reduced
        yield (
            f"{saving.name:<8}{saving.naive / MILLION:>14.1f}{saving.reduced / MILLION:>20.1f}{f'{ratio:.1f} x':>22}"
        )
    naive, reduced = sum(saving.naive for saving in modules), sum(saving.reduced for saving in modules)
    yield f"{'total':<8}{naive / MILLION:>14.1f}{reduced / MILLION:>20.1f}{f'{naive / reduced:.1f} x':>22}"
