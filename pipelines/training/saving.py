"""Saving of a replica: when a checkpoint is due, what is in it, and the last one, on a notice."""

import time
from typing import Any

from googlenet.training.loop import TrainState
from pipelines.job.progress import warn
from pipelines.run.directory import check_run_directory
from pipelines.training.checkpoints import Checkpoint, Checkpoints
from pipelines.training.epoch_report import EpochReport
from pipelines.training.notice import EndedByNoticeError, Notice
from pipelines.training.task import ReplicaTask


class Saving:
    """Writes the checkpoints of a replica: at intervals, at the end of each epoch, and on a notice.

    ``history`` are the metrics of validated epochs, to which the training adds.
    """

    def __init__(self, task: ReplicaTask, checkpoints: Checkpoints, history: list[dict[str, Any]]) -> None:
        self._task, self._checkpoints, self._history = task, checkpoints, history
        self._notice, self._saved = Notice(task), time.monotonic()

    def after_step(self, state: TrainState, report: EpochReport, *, ends_epoch: bool) -> None:
        """Write a checkpoint if one is due.

        Raises:
            EndedByNoticeError: there was a notice; the checkpoint of this step is complete.
            UserError: the run directory has vanished.
            OSError: the checkpoint cannot be written.
        """
        is_due = time.monotonic() - self._saved >= self._task.checkpoint_seconds and report.has_counted_all
        # After the very last step, the replica is finished as soon as by ending.
        is_last = ends_epoch and report.epoch == self._task.recipe.epochs - 1
        reason = self._notice.reason() if report.has_counted_all and not is_last else ""
        if reason:
            report.note_interruption(reason)
        if ends_epoch or is_due or reason:
            self._saved = time.monotonic()
            check_run_directory(self._task.run)
            self._checkpoints.save(self._checkpoint(state, report))
        if reason:
            self._end(state.step, reason, report)

    def _checkpoint(self, state: TrainState, report: EpochReport) -> Checkpoint:
        progress = {"history": list(self._history), "monitor": report.monitor.state(), "epoch": report.state()}
        return Checkpoint(state.step, state.tensors(), progress)

    def _end(self, step: int, reason: str, report: EpochReport) -> None:
        self._checkpoints.wait()
        done = f"{reason}; checkpoint of step {step} written, from which it goes on"
        if self._task.leads:
            warn(self._task.board, self._task.replica, done)
        report.flush()
        raise EndedByNoticeError(done)
