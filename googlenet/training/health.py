"""Alarms for training that fails: a head whose loss stays at that of guessing, or a loss that is not finite.

The oldest complaint about this network is a head that never leaves ln(classes), the loss of guessing, for a whole
run. It can be detected within an epoch.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from googlenet.training.loop import StepResult

# A head whose mean loss stays above this share of ln(classes) has learned nothing.
GUESSING_SHARE = 0.99
MAX_PERIOD_STEPS = 500
CURES = (
    "try a lower or a higher --learning-rate, --warmup-epochs 1, --max-gradient-norm 5, --initialisation he, "
    "or --variant bn"
)


class TrainingError(ArithmeticError):
    """Training cannot succeed; the message says why and what to try."""


@dataclass
class HeadMonitor:
    """Monitor of the losses of one replica.

    Attributes:
        num_classes: number of classes; its logarithm is the loss of guessing.
        patience_steps: steps before a head can be called dead; 0 never calls one dead.
        alarms: a message for each head that is dead so far.
    """

    num_classes: int
    patience_steps: int
    alarms: dict[str, str] = field(default_factory=dict)
    _sums: dict[str, float] = field(default_factory=dict)
    _steps: int = 0

    def state(self) -> dict[str, Any]:
        """Return the monitor's state, JSON-ready, for a checkpoint."""
        return {"alarms": dict(self.alarms), "sums": dict(self._sums), "steps": self._steps}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a state that :meth:`state` returned."""
        self.alarms, self._sums, self._steps = dict(state["alarms"]), dict(state["sums"]), state["steps"]

    def observe(self, result: StepResult) -> None:
        """Record a step.

        Raises:
            TrainingError: a loss or the gradient is not finite, and training cannot recover.
        """
        for name, loss in [*result.losses.items(), ("gradient", result.gradient_norm)]:
            if not math.isfinite(loss):
                raise TrainingError(f"{name} is {loss} at step {result.step}: {CURES}")
        if not self.patience_steps:
            return
        for name, loss in result.losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + loss
        self._steps += 1
        if self._steps >= min(self.patience_steps, MAX_PERIOD_STEPS):
            self._close_period(result.step)

    def _close_period(self, step: int) -> None:
        guessing = math.log(self.num_classes)
        for name, total in self._sums.items():
            mean = total / self._steps
            if mean < GUESSING_SHARE * guessing:
                self.alarms.pop(name, None)  # it has started to learn
            elif step >= self.patience_steps:
                self.alarms[name] = (
                    f"head {name} has learned nothing by step {step}: loss {mean:.3f}, "
                    f"guessing is ln({self.num_classes}) = {guessing:.3f}; {CURES}"
                )
        self._sums, self._steps = {}, 0
