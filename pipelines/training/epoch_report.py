"""Report of an epoch of a replica: sums over its steps, lines of the step log, status for the progress board."""

import socket
import time
from collections import defaultdict

from googlenet.training.health import HeadMonitor, TrainingError
from googlenet.training.loop import StepResult, TakenStep, results_of
from pipelines.job.progress import ReplicaStatus, post
from pipelines.run.directory import check_run_directory
from pipelines.run.json_lines import Line
from pipelines.training.checkpoints import EpochState
from pipelines.training.task import ReplicaTask

POST_SECONDS = 1.0
# The complete step log is rewritten, so that it is never truncated; an epoch has a bounded number of lines.
FLUSH_SECONDS = 20.0
LINES_PER_EPOCH = 100
# Reading the figures of a step waits for the GPU, which then waits for the next step: those of many are read at once.
STEPS_READ_AT_ONCE = 50


class EpochReport:
    """Accumulates the steps of one epoch. A resumed epoch continues from ``begun``, an earlier :meth:`state`.

    ``error`` is that of the last validation, for display.

    Attributes:
        epoch: number of the epoch, counted from 0.
        monitor: monitor of heads that do not learn.
    """

    def __init__(
        self,
        task: ReplicaTask,
        epoch: int,
        steps: int,
        error: float | None,
        monitor: HeadMonitor,
        begun: EpochState | None = None,
    ) -> None:
        self.epoch, self.monitor = epoch, monitor
        self._task, self._steps, self._error = task, steps, error
        begun = _complete(begun, epoch * steps)
        self._images, self._step, self._learning_rate = begun["images"], begun["step"], begun["learning_rate"]
        self._losses: dict[str, float] = defaultdict(float, begun["losses"])
        self._lines = list(begun["lines"])
        self._interruptions = list(begun["interruptions"])
        self._started = time.monotonic() - begun["seconds"]
        self._waiting_seconds = begun["waiting_seconds"]
        self._every = max(1, steps // LINES_PER_EPOCH)
        self._read_every = self._every, STEPS_READ_AT_ONCE, steps
        self._unread: list[TakenStep] = []
        self._posted, self._flushed, self._last_line = 0.0, time.monotonic(), self._amounts()

    def state(self) -> EpochState:
        """Return everything that a resumed epoch needs to end with the same figures, once they are read."""
        return {
            "images": self._images,
            "seconds": self._seconds(),
            "waiting_seconds": self._waiting_seconds,
            "learning_rate": self._learning_rate,
            "step": self._step,
            "losses": dict(self._losses),
            "lines": list(self._lines),
            "interruptions": list(self._interruptions),
        }

    def on_step(self, step: TakenStep, waited_seconds: float = 0.0) -> None:
        """Add a step, for whose batch the training waited ``waited_seconds``.

        On a GPU, its figures are read with those of steps after it, at the latest at the end of the epoch.

        Raises:
            TrainingError: a loss or gradient is not finite, or a head learns nothing and the recipe says to stop then.
        """
        self._waiting_seconds += waited_seconds
        self._unread.append(step)
        if self._task.device == "cpu" or any(step.step % steps == 0 for steps in self._read_every):
            self.read()
        if not self._task.leads:
            return
        now = time.monotonic()
        if self._images and now - self._posted > POST_SECONDS:
            self._posted = now
            post(self._task.board, self._task.replica, self._status())
        if now - self._flushed > FLUSH_SECONDS:
            self.flush()

    @property
    def may_be_read(self) -> bool:
        """Whether :meth:`read` may be called now.

        Data-parallel workers read after the same steps only, and so end alike where a loss is not finite.
        """
        return not self._unread or self._task.share.workers == 1

    def read(self) -> None:
        """Read the figures of all steps so far, and count them.

        Raises:
            TrainingError: as :meth:`on_step`.
        """
        unread, self._unread = self._unread, []
        for result in results_of(unread):
            self._count(result)

    def note_interruption(self, reason: str) -> None:
        """Add to the epoch's metrics that its training ends here for now, and why."""
        self.read()
        self._interruptions.append(f"step {self._step}: {reason}")

    def _count(self, result: StepResult) -> None:
        self.monitor.observe(result)
        if self.monitor.alarm and self._task.recipe.on_dead_head == "stop":
            raise TrainingError(self.monitor.alarm)
        self._images += result.num_images
        self._step, self._learning_rate = result.step, result.learning_rate
        for name, loss in result.losses.items():
            self._losses[name] += loss * result.num_images
        if result.step % self._every == 0:
            self._lines.append(self._line(result))

    def flush(self) -> None:
        """Write the lines so far to the epoch's step log, in the replica's first worker only.

        Raises:
            UserError: the run directory has vanished.
        """
        if not self._task.leads:
            return
        self._flushed = time.monotonic()
        check_run_directory(self._task.run)
        name = self._task.files.steps(self.epoch)
        self._task.run.write_json_lines(name, self._lines)

    def metrics(self) -> Line:
        """Return the epoch's line of metrics, without validation."""
        losses = {f"train_loss_{name}": total / self._images for name, total in self._losses.items()}
        return {
            "epoch": self.epoch + 1,
            "step": self._step,
            "time_ms": int(time.time() * 1000),
            **losses,
            **({"alarm": self.monitor.alarm} if self.monitor.alarm else {}),
            **self._interrupted(),
            "learning_rate": self._learning_rate,
            "images_per_second": self._images / self._seconds(),
            "waiting_seconds": self._waiting_seconds,
            "host": socket.gethostname(),
        }

    def _interrupted(self) -> Line:
        """Return how often notices interrupted the epoch, and the reasons; nothing if none did."""
        if not self._interruptions:
            return {}
        return {"interruptions": len(self._interruptions), "interrupted_at": "; ".join(self._interruptions)}

    def _line(self, result: StepResult) -> Line:
        """Return losses, rate, gradient norm and workers of this step, and speed and waiting since the last line."""
        now = self._amounts()
        images, seconds, waiting_seconds = (new - old for new, old in zip(now, self._last_line, strict=True))
        self._last_line = now
        return {
            "step": result.step,
            "time_ms": int(time.time() * 1000),
            **{f"step/loss_{name}": loss for name, loss in result.losses.items()},
            "step/learning_rate": result.learning_rate,
            "step/gradient_norm": result.gradient_norm,
            "step/images_per_second": images / max(seconds, 1e-9),
            "step/waiting_seconds": waiting_seconds,
            **({"step/workers": self._task.share.workers} if self._task.recipe.workers_per_replica > 1 else {}),
        }

    def _amounts(self) -> tuple[float, float, float]:
        return self._images, self._seconds(), self._waiting_seconds

    def _seconds(self) -> float:
        return time.monotonic() - self._started

    def _status(self) -> ReplicaStatus:
        return ReplicaStatus(
            phase="training",
            epoch=self._step / self._steps,
            epochs=self._task.recipe.epochs,
            loss=self._losses["logits"] / self._images,
            images_per_second=self._images / self._seconds(),
            error=self._error,
            dead_heads=tuple(self.monitor.dead),
            alarm=self.monitor.alarm,
        )


def _complete(begun: EpochState | None, first_step: int) -> EpochState:
    """Return the state of an epoch that begins after ``first_step`` steps, or of one that has ``begun``.

    Older versions kept less; what is missing is zero.
    """
    state = EpochState(
        images=0,
        seconds=0.0,
        waiting_seconds=0.0,
        learning_rate=0.0,
        step=first_step,
        losses={},
        lines=[],
        interruptions=[],
    )
    state.update(begun or {})
    return state
