"""Optimiser of section 6: SGD with momentum 0.9, and Polyak averaging.

The paper gives momentum, schedule and averaging; batch size, base rate and weight decay are Caffe's (32, 0.01 and
2e-4 in the solver of its GoogLeNet), as the recipes say.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def build_sgd(model: nn.Module, *, momentum: float, weight_decay: float, decay_biases: bool) -> torch.optim.SGD:
    """Return SGD over ``model``; with ``decay_biases`` off, biases and normalisation scales have no weight decay."""
    decayed = [p for p in model.parameters() if p.ndim > 1 or decay_biases]
    undecayed = [p for p in model.parameters() if p.ndim <= 1 and not decay_biases]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": undecayed, "weight_decay": 0.0}]
    # The rate is set before every step. A step without it turns the weights into NaN, which is noticed; with zero here
    # it would silently do nothing.
    # One pass over each tensor, bit for bit like the loop over single operations and twice as fast.
    return torch.optim.SGD([group for group in groups if group["params"]], lr=math.nan, momentum=momentum, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate


class PolyakAverage:
    """The averaged weights, which are the ones evaluated (section 6).

    Departure: Polyak's mean over all steps gives the first steps the same weight as the last. Here it is an exponential
    mean with a horizon, as in later work on the Inception networks; the horizon is a field of the recipe. Early in
    training it is a tenth of the steps taken, so that the random initial weights are forgotten quickly.

    Attributes:
        weights: the average, by the names of ``model.state_dict()``, including statistics of batch normalisation.
    """

    def __init__(self, model: nn.Module, horizon_steps: float) -> None:
        if horizon_steps < 1:
            raise ValueError(f"horizon_steps must be at least 1, got {horizon_steps}")
        self.horizon_steps = horizon_steps
        self.weights: dict[str, Tensor] = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Update the average with the weights after step number ``step``, counted from 1."""
        share = 1 / min(self.horizon_steps, 1 + step / 10)
        current = model.state_dict()
        floating = [name for name, value in self.weights.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.weights[name] for name in floating], [current[name] for name in floating], share)
        for name in self.weights.keys() - set(floating):
            self.weights[name].copy_(current[name])

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Replace the average by ``weights``, on the devices of the average."""
        self.weights = {name: torch.empty_like(own).copy_(weights[name]) for name, own in self.weights.items()}
