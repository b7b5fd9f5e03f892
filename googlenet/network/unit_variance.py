"""Layer-sequential unit-variance initialisation: every layer's output has variance 1 on a batch of images.

Source: D. Mishkin and J. Matas, "All you need is a good init" (arXiv 1511.06422). Orthonormal weights come from
:mod:`googlenet.network.initialisation`; here they are scaled, from the first layer to the last.
"""

from typing import Any

import torch
from torch import Tensor, nn

from googlenet.network.model import GoogLeNet
from googlenet.shapes import Float

# A layer whose output is constant cannot be scaled.
LEAST_VARIANCE = 1e-12


@torch.no_grad()
def scale_to_unit_variance(
    model: GoogLeNet, images: Float[Tensor, "n 3 h w"], generator: torch.Generator
) -> dict[str, float]:
    """Scale the weights of every layer until its output on ``images`` has variance 1, before its activation.

    One pass suffices where the original repeats: biases are zero, so a layer's output is scaled with its weights, and
    the layers after it see the scaled output.

    Args:
        model: a network without batch normalisation, whose biases are zero; changed in place.
        images: preprocessed images, a few dozen.
        generator: source of the dropout masks, since the auxiliary classifiers run in training mode only.

    Returns:
        The standard deviation of each layer's output before it was scaled, by the layer's name, in order of execution.

    Raises:
        ValueError: the network has batch normalisation, or a layer's output is constant on these images.
    """
    if model.variant == "bn":
        raise ValueError("layer-sequential initialisation is for the variant paper: batch normalisation rescales")
    names = {layer: name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}
    deviations: dict[str, float] = {}

    def scale(layer: Any, _: Any, output: Tensor) -> Tensor:
        variance = output.double().var(correction=0).item()
        if not variance > LEAST_VARIANCE:
            raise ValueError(f"the output of {names[layer]} has variance {variance:.3g} on these images")
        deviations[names[layer]] = variance**0.5
        layer.weight.div_(deviations[names[layer]])
        return output / deviations[names[layer]]

    hooks = [layer.register_forward_hook(scale) for layer in names]
    was_training = model.training
    try:
        model.train()(images, model.draw_masks(len(images), generator))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return deviations
