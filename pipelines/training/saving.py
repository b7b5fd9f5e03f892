"""Saving of a replica: when a checkpoint is due, what is in it, and the last one, on a notice."""

import time

from googlenet.training.loop import TrainState
from pipelines.job.progress import warn
from pipelines.run.directory import check_run_directory
from pipelines.run.json_lines import Line
from pipelines.training.checkpoints import Checkpoint, Checkpoints, Progress
from pipelines.training.epoch_report import EpochReport
from pipelines.training.notice import EndedByNoticeError, Notice
from pipelines.training.task import ReplicaTask


class Saving:
    """Writes the checkpoints of a replica: at intervals, at the end of each epoch, and on a notice.

    ``history`` are the metrics of validated epochs, to which the training adds.
    """

    def __init__(self, task: ReplicaTask, checkpoints: Checkpoints, history: list[Line], notice: Notice) -> None:
        self._task, self._checkpoints, self._history, self._notice = task, checkpoints, history, notice
        self._saved = time.monotonic()

    def after_step(self, state: TrainState, report: EpochReport, *, ends_epoch: bool) -> None:
        """Write a checkpoint if one is due.

        Raises:
            EndedByNoticeError: there was a notice; the checkpoint of this step is complete.
            TrainingError: a loss or gradient since the last reading of figures is not finite.
            UserError: the run directory has vanished.
            OSError: the checkpoint cannot be written.
        """
        if not report.may_be_read:
            return
        # After the very last step, the replica is finished as soon as by ending.
        is_last = ends_epoch and report.epoch == self._task.recipe.epochs - 1
        if not is_last and (reason := self._notice.reason()):
            self._end(state, report, reason)
        if ends_epoch or time.monotonic() - self._saved >= self._task.checkpoint_seconds:
            self._save(state, report)

    def end_if_noticed(self, state: TrainState, report: EpochReport) -> None:
        """Write the last checkpoint if no batch comes after a notice: loader processes may have received SIGTERM, too.

        Several workers cannot agree about that: the others wait for this one in the next step.

        Raises:
            EndedByNoticeError: there was a notice; the checkpoint is complete.
        """
        if self._task.share.workers == 1 and (reason := self._notice.reason()):
            self._end(state, report, reason)

    def _save(self, state: TrainState, report: EpochReport) -> None:
        report.read()
        self._saved = time.monotonic()
        check_run_directory(self._task.run)
        progress = Progress(history=list(self._history), monitor=report.monitor.state(), epoch=report.state())
        self._checkpoints.save(Checkpoint(state.step, state.tensors(), progress))

    def _end(self, state: TrainState, report: EpochReport, reason: str) -> None:
        report.note_interruption(reason)
        self._save(state, report)
        self._checkpoints.wait()
        done = f"{reason}; it wrote a checkpoint of step {state.step} and will continue from there"
        if self._task.leads:
            warn(self._task.board, self._task.replica, done)
        report.flush()
        raise EndedByNoticeError(done)
