"""Initial weights, drawn from a generator that the caller passes in.

The paper names no scheme. ``xavier`` is the Caffe model's, ``gaussian`` has the scales that remained in Caffe's first
commit of it and are attributed to the authors, ``he`` is used by later work without batch normalisation. ``lsuv``
begins with orthonormal weights, which :mod:`googlenet.network.unit_variance` scales.
"""

import math
from collections.abc import Iterator

import torch
from torch import nn

from googlenet.network.choices import Initialisation
from googlenet.network.model import GoogLeNet

# Standard deviations by the layer's role: the last part of a convolution's name unless stated otherwise.
GAUSSIAN_STD = {
    "conv1": 0.1,
    "conv2_reduce": 0.1,
    "conv2": 0.03,
    "conv_1x1": 0.03,
    "conv_3x3_reduce": 0.09,
    "conv_3x3": 0.03,
    "conv_5x5_reduce": 0.2,
    "conv_5x5": 0.03,
    "pool_proj": 0.1,
    "aux conv": 0.08,
    "aux hidden": 0.02,
    "aux classifier": 1 / 1024,
    "classifier": 0.01,  # not documented; chosen here
}
CONV_BIAS = {"xavier": 0.2, "gaussian": 0.2, "he": 0.0, "lsuv": 0.0}


@torch.no_grad()
def initialise(model: GoogLeNet, scheme: Initialisation, generator: torch.Generator) -> None:
    """Redraw every weight of ``model``; the same generator state gives the same weights.

    Raises:
        ValueError: the scheme is unknown.
    """
    if scheme not in CONV_BIAS:
        raise ValueError(f"initialisation must be one of {sorted(CONV_BIAS)}, got {scheme!r}")
    for role, layer in _layers(model):
        _draw_weight(layer.weight, role, scheme, generator)
        if layer.bias is not None:
            # Caffe starts the hidden layer of the auxiliary heads at 0.2 too; classifiers at zero.
            is_classifier = role.endswith("classifier")
            layer.bias.fill_(0.0 if is_classifier else CONV_BIAS[scheme])


def _draw_weight(weight: torch.Tensor, role: str, scheme: Initialisation, generator: torch.Generator) -> None:
    fan_in = weight[0].numel()
    if scheme == "xavier":  # Caffe's "xavier": uniform, by fan-in alone
        bound = math.sqrt(3 / fan_in)
        weight.uniform_(-bound, bound, generator=generator)
    elif scheme == "he":
        weight.normal_(0, math.sqrt((1 if role.endswith("classifier") else 2) / fan_in), generator=generator)
    elif scheme == "lsuv":
        nn.init.orthogonal_(weight, generator=generator)
    else:
        weight.normal_(0, GAUSSIAN_STD[role], generator=generator)


def _layers(model: GoogLeNet) -> Iterator[tuple[str, nn.Conv2d | nn.Linear]]:
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            parts = [part for part in name.split(".") if part != "conv"] or ["conv"]
            # aux.4a.conv.conv, aux.4a.hidden: the scale is the same for both heads
            yield (f"aux {(parts[2:] or ['conv'])[0]}" if parts[0] == "aux" else parts[-1]), layer
