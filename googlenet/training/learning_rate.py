"""Learning rate of section 6 as a pure function of the epoch. Free of PyTorch, for options."""

import math
from dataclasses import dataclass
from typing import Literal

Schedule = Literal["paper", "cosine"]


@dataclass(frozen=True)
class LearningRate:
    """Learning rate as a function of the (fractional) epoch.

    Attributes:
        base: rate before any decay.
        schedule: ``paper`` decays by 4 % every 8 epochs; ``cosine`` falls to zero at the end.
        warmup_epochs: duration of a linear rise from zero.
        total_epochs: end of the cosine.
        step_epochs: epochs between two decays of ``paper``.
        step_factor: factor of a decay of ``paper``.
    """

    base: float
    schedule: Schedule
    warmup_epochs: float
    total_epochs: float
    step_epochs: float = 8
    step_factor: float = 0.96

    def at(self, epoch: float) -> float:
        """Return the rate at ``epoch``; fractions count for warm-up and cosine."""
        if epoch < self.warmup_epochs:
            return self.base * epoch / self.warmup_epochs
        if self.schedule == "paper":
            return self.base * self.step_factor ** math.floor(epoch / self.step_epochs)
        progress = (epoch - self.warmup_epochs) / max(self.total_epochs - self.warmup_epochs, 1e-9)
        return self.base * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
