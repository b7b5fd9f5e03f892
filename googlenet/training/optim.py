"""Optimiser of section 6: SGD with momentum 0.9, and Polyak averaging.

The paper gives momentum, schedule and averaging; batch size, base rate and weight decay are Caffe's (32, 0.01 and
2e-4 in the solver of its GoogLeNet), as the recipes say.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

# The average lags behind by less than this share of its horizon, and an update costs less than a hundredth of a step.
HORIZON_PER_UPDATE = 1000
MOST_STEPS_AT_A_TIME = 16


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
        if isinstance(group["lr"], Tensor):  # a CUDA graph reads it where it is
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


class PolyakAverage:
    """The averaged weights, which are the ones evaluated (section 6).

    Departure: Polyak's mean over all steps gives the first steps the same weight as the last. Here it is an exponential
    mean with a horizon, as in later work on the Inception networks; the horizon is a field of the recipe. Early in
    training it is a tenth of the steps taken, so that the random initial weights are forgotten quickly. With a horizon
    of thousands of steps, several steps are averaged at a time.

    The model's tensors may change, but not be replaced by others: move it to its device first.

    Attributes:
        weights: the average, by the names of ``model.state_dict()``, including statistics of batch normalisation.
    """

    def __init__(self, model: nn.Module, horizon_steps: float) -> None:
        if horizon_steps < 1:
            raise ValueError(f"horizon_steps must be at least 1, got {horizon_steps}")
        self.horizon_steps = horizon_steps
        current = model.state_dict()
        self.weights: dict[str, Tensor] = {name: value.detach().clone() for name, value in current.items()}
        # Collected once: to look up hundreds of tensors takes longer than to queue the averaging of all of them.
        floating = [name for name, value in current.items() if value.is_floating_point()]
        self._averaged = [self.weights[name] for name in floating], [current[name] for name in floating]
        self._counters = [(self.weights[name], current[name]) for name in current.keys() - set(floating)]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average with the weights after step number ``step``, counted from 1, if it is the step's turn."""
        horizon = min(self.horizon_steps, 1 + step / 10)
        steps = steps_at_a_time(horizon)
        if step % steps:
            return
        share = 1 / horizon if steps == 1 else 1 - (1 - 1 / horizon) ** steps
        torch._foreach_lerp_(*self._averaged, share)
        for own, current in self._counters:
            own.copy_(current)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Replace the average by ``weights``."""
        for name, own in self.weights.items():
            own.copy_(weights[name])


def steps_at_a_time(horizon_steps: float) -> int:
    """Return how many steps are averaged at a time: a power of two, at most a thousandth of the horizon."""
    fitting = min(horizon_steps / HORIZON_PER_UPDATE, MOST_STEPS_AT_A_TIME)
    return 1 << int(math.log2(max(fitting, 1.0)))
