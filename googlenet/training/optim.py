"""Optimiser of section 6: SGD with momentum 0.9, and Polyak averaging.

Departure: the paper's SGD is asynchronous, on many machines. Here it is synchronous: but for rounding, a step does not
depend on the number of workers, and a repeated training has the same bits.

The paper gives momentum, schedule and averaging; batch size, base rate and weight decay are Caffe's (32, 0.01 and
2e-4 in the solver of its GoogLeNet), as the recipes say.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

# The average lags behind by less than this share of its horizon, and an update costs less than a hundredth of a step.
HORIZON_PER_UPDATE = 1000
MOST_STEPS_AT_A_TIME = 16


class MomentumSGD:
    """SGD with momentum, with the steps of ``torch.optim.SGD``.

    Each optimiser class of PyTorch imports its compiler when it is created: seconds of processor time in every worker.

    Attributes:
        param_groups: groups of parameters, each a dict with ``params``, ``weight_decay`` and ``lr``.
        state: the ``momentum_buffer`` of each parameter, once it has one.
    """

    def __init__(self, groups: list[dict[str, Any]], momentum: float) -> None:
        # The rate is set before every step. A step without it turns the weights into NaN, which is noticed; with zero
        # here it would silently do nothing.
        self.param_groups = [{"lr": math.nan, **group} for group in groups]
        self.state: dict[Tensor, dict[str, Tensor]] = {p: {} for group in groups for p in group["params"]}
        self._momentum = momentum

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self.state:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Take a step along the gradients; parameters without a gradient stay."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            buffers = [self.state[p].get("momentum_buffer") for p in parameters]
            sgd(
                parameters,
                [p.grad for p in parameters],
                buffers,
                # One pass over each tensor, bit for bit like the loop over single operations and twice as fast.
                fused=True,
                weight_decay=group["weight_decay"],
                momentum=self._momentum,
                lr=group["lr"],
                dampening=0.0,
                nesterov=False,
                maximize=False,
            )
            for parameter, buffer in zip(parameters, buffers, strict=True):
                if buffer is not None:
                    self.state[parameter]["momentum_buffer"] = buffer


def build_sgd(model: nn.Module, *, momentum: float, weight_decay: float, decay_biases: bool) -> MomentumSGD:
    """Return SGD over ``model``; with ``decay_biases`` off, biases and normalisation scales have no weight decay."""
    decayed = [p for p in model.parameters() if p.ndim > 1 or decay_biases]
    undecayed = [p for p in model.parameters() if p.ndim <= 1 and not decay_biases]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": undecayed, "weight_decay": 0.0}]
    return MomentumSGD([group for group in groups if group["params"]], momentum)


def set_learning_rate(optimizer: MomentumSGD, rate: float) -> None:
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

    Raises:
        ValueError: ``horizon_steps`` is less than 1.
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
