"""Alarms for training that fails: a classifier whose loss stays at that of guessing, or a loss that is not finite.

The oldest complaint about this network is a classifier that never leaves ln(classes), the loss of guessing, for a whole
run. It can be detected early: after the warm-up, at the end of each period of steps, a classifier counts as dead if its
loss is still that of guessing and is not falling.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import NotRequired, TypedDict

from googlenet.network.table1 import AUX_POSITIONS
from googlenet.training.distillation import TEACHER
from googlenet.training.loop import StepResult

# A classifier whose mean loss is below this share of ln(classes) has learned something.
GUESSING_SHARE = 0.99
# A loss counts as falling if, from the first half of a period to the second, it drops by this share of ln(classes) and
# by this many standard errors: more than the noise of the batches.
LEAST_FALL_SHARE = 0.001
LEAST_FALL_ERRORS = 2.0
# Fewer steps after the warm-up say nothing.
MIN_PATIENCE_STEPS = 100
MAX_PERIOD_STEPS = 500
HEAD_NAMES = {"logits": "the classifier"} | {
    f"aux_{position}": f"auxiliary classifier {number}" for number, position in enumerate(AUX_POSITIONS, start=1)
}


class TrainingError(ArithmeticError):
    """Training cannot succeed; the message says why and what to try."""


class NotFiniteError(TrainingError):
    """A loss or the gradient is not finite. On a GPU, whose sums are not in a fixed order, another attempt may pass."""


@dataclass(frozen=True)
class Advice:
    """What to try, for the recipe in use.

    Attributes:
        dead: if a classifier does not learn.
        not_finite: if a loss or the gradient is not finite.
    """

    dead: str = ""
    not_finite: str = ""


@dataclass
class LossSum:
    """Sums over the losses of some steps."""

    steps: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, loss: float) -> None:
        """Count the loss of a step."""
        self.steps, self.total, self.squares = self.steps + 1, self.total + loss, self.squares + loss * loss

    @property
    def mean(self) -> float:
        """Mean over the steps."""
        return self.total / self.steps

    @property
    def variance_of_mean(self) -> float:
        """Squared standard error of the mean."""
        return max(0.0, self.squares / self.steps - self.mean**2) / self.steps


def is_dead(earlier: LossSum, later: LossSum, num_classes: int) -> bool:
    """Return whether a classifier still guesses in the later half of a period, and its loss is not falling."""
    guessing = math.log(num_classes)
    if later.mean < GUESSING_SHARE * guessing:
        return False
    noise = math.sqrt(earlier.variance_of_mean + later.variance_of_mean)
    return earlier.mean - later.mean <= max(LEAST_FALL_SHARE * guessing, LEAST_FALL_ERRORS * noise)


def patience_steps(dead_head_epochs: float, steps_per_epoch: int) -> int:
    """Return after how many steps from the end of the warm-up a classifier can be called dead; 0 for never."""
    return max(MIN_PATIENCE_STEPS, math.ceil(dead_head_epochs * steps_per_epoch)) if dead_head_epochs else 0


def alarm_line(dead: Mapping[str, float], heads: Sequence[str], step: int, num_classes: int, advice: str) -> str:
    """Return in one line which of ``heads`` are dead at ``step``, with their losses, and what to try."""
    if not dead:
        return ""
    names = " and ".join(HEAD_NAMES.get(name, name) for name in dead)
    losses = " and ".join(f"{loss:.3f}" for loss in dead.values())
    others = ", while the classifier learns" if "logits" in heads and "logits" not in dead else ""
    has = "has" if len(dead) == 1 else "have"
    line = (
        f"{names} {has} learned nothing by step {step}{others}: loss {losses}, "
        f"guessing is ln({num_classes}) = {math.log(num_classes):.3f}"
    )
    return f"{line}; {advice}" if advice else line


class MonitorState(TypedDict):
    """State of a :class:`HeadMonitor`, ready for JSON.

    Attributes:
        dead: as in the monitor.
        alarm: as in the monitor.
        halves: steps, total and squares of both halves of the period, by classifier; not in those of older versions.
        steps: steps of the period so far.
    """

    dead: dict[str, float]
    alarm: str
    halves: NotRequired[dict[str, list[tuple[int, float, float]]]]
    steps: int


@dataclass
class HeadMonitor:
    """Monitor of the losses of one replica.

    Attributes:
        num_classes: number of classes; its logarithm is the loss of guessing.
        patience_steps: steps after the warm-up before a classifier can be called dead; 0 never calls one dead.
        warmup_steps: steps of the warm-up, which are not counted.
        advice: what to try.
        dead: mean loss of each classifier that was dead at the end of the last period, by its name in ``StepResult``.
        alarm: one line about the dead classifiers; empty if there are none.
    """

    num_classes: int
    patience_steps: int
    warmup_steps: int = 0
    advice: Advice = field(default_factory=Advice)
    dead: dict[str, float] = field(default_factory=dict)
    alarm: str = ""
    _halves: dict[str, tuple[LossSum, LossSum]] = field(default_factory=dict)
    _steps: int = 0

    def state(self) -> MonitorState:
        """Return the monitor's state for a checkpoint."""
        halves = {name: [astuple(half) for half in both] for name, both in self._halves.items()}
        return {"dead": dict(self.dead), "alarm": self.alarm, "halves": halves, "steps": self._steps}

    def load(self, state: MonitorState) -> None:
        """Continue from a state that :meth:`state` returned; from that of an older version with a new period."""
        self.dead, self.alarm, self._halves, self._steps = {}, "", {}, 0
        if "halves" not in state:
            return
        self.dead, self.alarm, self._steps = dict(state["dead"]), state["alarm"], state["steps"]
        for name, (earlier, later) in state["halves"].items():
            self._halves[name] = LossSum(*earlier), LossSum(*later)

    def observe(self, result: StepResult) -> None:
        """Record a step.

        Raises:
            NotFiniteError: a loss or the gradient is not finite, and training cannot recover.
        """
        for name, loss in result.losses.items():
            if not math.isfinite(loss):
                head = name.removeprefix(TEACHER)
                against = " against the teacher" if name.startswith(TEACHER) else ""
                raise self._not_finite(f"the loss of {HEAD_NAMES.get(head, head)}{against}", loss, result.step)
        if not math.isfinite(result.gradient_norm):
            raise self._not_finite("the gradient", result.gradient_norm, result.step)
        if not self.patience_steps or result.step <= self.warmup_steps:
            return
        period_steps = min(self.patience_steps, MAX_PERIOD_STEPS)
        half = 0 if self._steps < period_steps // 2 else 1
        # A divergence from a teacher has no fixed value that means guessing.
        of_labels = {name: loss for name, loss in result.losses.items() if not name.startswith(TEACHER)}
        for name, loss in of_labels.items():
            self._halves.setdefault(name, (LossSum(), LossSum()))[half].add(loss)
        self._steps += 1
        if self._steps >= period_steps:
            self._close_period(result.step)

    def _not_finite(self, name: str, value: float, step: int) -> NotFiniteError:
        advice = f"; {self.advice.not_finite}" if self.advice.not_finite else ""
        return NotFiniteError(f"{name} is {value} at step {step}{advice}")

    def _close_period(self, step: int) -> None:
        if step - self.warmup_steps >= self.patience_steps:
            halves = self._halves.items()
            self.dead = {name: late.mean for name, (early, late) in halves if is_dead(early, late, self.num_classes)}
            self.alarm = alarm_line(self.dead, list(self._halves), step, self.num_classes, self.advice.dead)
        self._halves, self._steps = {}, 0
