"""Metrics of epochs as reports to Ray Train: they are in the logs of its workers, and the last one in its record."""

import time

from pipelines.run.json_lines import Line
from pipelines.training.task import ReplicaTask

# Ray Train takes one report each time it looks at its workers, every two seconds; who reports more often has to wait.
REPORT_SECONDS = 2.0


class RayReports:
    """Reports of one worker, which may train several replicas; each report names its replica.

    ``named`` is the replica whose folder Ray Train was given.
    """

    def __init__(self, named: int) -> None:
        self._named = named
        self._reported = time.monotonic()

    def send(self, task: ReplicaTask, line: Line) -> None:
        """Report a line of metrics, unless the last report was a moment ago; that of the last epoch always.

        All workers of a replica have to call this after the same epochs, since Ray Train lets them wait for each other.
        """
        is_last = line["epoch"] == task.recipe.epochs
        is_due = is_last or time.monotonic() - self._reported >= REPORT_SECONDS
        if not task.share.broadcast(int(is_due)):
            return
        self._reported = time.monotonic()
        _report(task, {"replica": task.replica, **line}, recorded=is_last and task.replica == self._named)


def _report(task: ReplicaTask, metrics: Line, *, recorded: bool) -> None:
    """Report to Ray Train, which keeps ``recorded`` metrics in its own folder."""
    from ray.train import Checkpoint, report
    from ray.train.v2.api.report_config import CheckpointUploadMode

    if not recorded:
        report(metrics)
        return
    # Ray Train keeps metrics only beside a checkpoint, which has to be in the folder that it was given. This one names
    # the replica's own checkpoints: nothing is copied, and nothing will be deleted.
    own = Checkpoint(task.run.path(task.files.checkpoints), task.run.filesystem)
    report(metrics, checkpoint=own, checkpoint_upload_mode=CheckpointUploadMode.NO_UPLOAD)
