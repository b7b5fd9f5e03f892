"""Notice that a replica has to end soon: its node is taken away, its worker gets a SIGTERM, or the job stops.

The replica then writes a checkpoint and ends, so that it goes on elsewhere, or later, without repeating a step. Ray
Train's own notice comes later, waits for all workers, and needs a process beside each replica.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from pipelines.job.repeating import repeating
from pipelines.training.task import ReplicaTask

SIGTERM_RECEIVED = "its worker received SIGTERM"
ANOTHER_WORKER = "another of its workers has to end"
ASK_SECONDS = 1.0
# The end of a replica waits for an answer, but not for a board that gives none.
LONGEST_ANSWER_SECONDS = 10.0

_terminated = threading.Event()


class EndedByNoticeError(Exception):
    """The replica has written a checkpoint, and ended before its last step."""


class Notice:
    """A notice that the replica of ``task`` has to end soon, as one of its workers receives it."""

    def __init__(self, task: ReplicaTask) -> None:
        self._task, self._told = task, ""

    def reason(self) -> str:
        """Return why the replica has to end now; empty while it may go on. All its workers call this together."""
        own = SIGTERM_RECEIVED if _terminated.is_set() else self._told
        return (own or ANOTHER_WORKER) if self._task.share.any_has(bool(own)) else ""

    def ask(self) -> None:
        """Ask the board, and wait for its answer."""
        import ray

        with suppress(ray.exceptions.RayError):  # the board died with its node, or is busy
            reply = self._task.board.notice.remote(self._task.replica)
            self._told = ray.get(reply, timeout=LONGEST_ANSWER_SECONDS)


@contextmanager
def notice_to(task: ReplicaTask) -> Iterator[Notice]:
    """Listen for a notice during the block: the replica's first worker asks the board once a second, in a thread."""
    notice = Notice(task)
    if task.board is None or not task.leads:
        yield notice
        return
    with repeating(notice.ask, ASK_SECONDS, "notice"):
        yield notice


def take_sigterm_as_notice(_worker: Any = None) -> None:
    """Make the first SIGTERM of this process a notice; the second one ends it. For the main thread.

    Machines that are shut down send it to their processes some seconds before they end them.
    """
    own, before = os.getpid(), signal.getsignal(signal.SIGTERM)

    def on_sigterm(number: int, _frame: FrameType | None) -> None:
        _terminated.set()
        signal.signal(number, before or signal.SIG_DFL)
        if os.getpid() != own:  # a process that loads samples, with the handler of its parent
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, on_sigterm)
