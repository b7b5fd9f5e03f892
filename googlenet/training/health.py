"""Is training alive? Each head's loss against that of guessing, and against not being a number.

The oldest complaint about this network is a head that never leaves ln(classes), the loss of guessing, for a whole
run. It shows within an epoch, if someone looks.
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
    """Training cannot get anywhere; the message says why and what to try."""


@dataclass
class HeadMonitor:
    """Watches the losses of one replica.

    Attributes:
        num_classes: whose logarithm is the loss of guessing.
        patience_steps: steps that a head has before it is called dead; 0 never calls one dead.
        alarms: what was found so far, a message for each dead head.
    """

    num_classes: int
    patience_steps: int
    alarms: dict[str, str] = field(default_factory=dict)
    _sums: dict[str, float] = field(default_factory=dict)
    _steps: int = 0

    def state(self) -> dict[str, Any]:
        """What it has seen, JSON-ready, for a checkpoint."""
        return {"alarms": dict(self.alarms), "sums": dict(self._sums), "steps": self._steps}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` gave."""
        self.alarms, self._sums, self._steps = dict(state["alarms"]), dict(state["sums"]), state["steps"]

    def observe(self, result: StepResult) -> None:
        """Take in a step.

        Raises:
            TrainingError: a loss or the gradient is not finite; nothing mends that by itself.
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
                self.alarms.pop(name, None)  # it came to life after all
            elif step >= self.patience_steps:
                self.alarms[name] = (
                    f"head {name} has learned nothing by step {step}: loss {mean:.3f}, "
                    f"guessing is ln({self.num_classes}) = {guessing:.3f}; {CURES}"
                )
        self._sums, self._steps = {}, 0
