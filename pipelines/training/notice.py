"""Notice that a replica has to end soon: its node is taken away, its worker gets a SIGTERM, or the job stops.

The replica then writes a checkpoint and ends, so that it goes on elsewhere, or later, without repeating a step. Ray
Train's own notice comes later, waits for all workers, and needs a process beside each replica.
"""

import os
import signal
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Any

from pipelines.training.task import ReplicaTask

SIGTERM_RECEIVED = "its worker received SIGTERM"
ANOTHER_WORKER = "another of its workers has to end"
ASK_SECONDS = 1.0

_terminated = threading.Event()


class EndedByNoticeError(Exception):
    """The replica has written a checkpoint, and ended before its last step."""


class Notice:
    """Notice to one replica; its first worker asks the board, about once a second, and never waits for the answer."""

    def __init__(self, task: ReplicaTask) -> None:
        self._board, self._replica, self._share = task.board if task.leads else None, task.replica, task.share
        self._asked, self._reply, self._reason = 0.0, None, ""

    def reason(self) -> str:
        """Return why the replica has to end now; empty while it may go on. All its workers call this together."""
        own = SIGTERM_RECEIVED if _terminated.is_set() else self._from_board()
        return (own or ANOTHER_WORKER) if self._share.any_has(bool(own)) else ""

    def _from_board(self) -> str:
        if self._board is None:
            return ""
        import ray

        if self._reply is not None and ray.wait([self._reply], timeout=0)[0]:
            with suppress(ray.exceptions.RayError):  # the board died with its node
                self._reason = ray.get(self._reply)
            self._reply = None
        if self._reply is None and time.monotonic() - self._asked >= ASK_SECONDS:
            self._asked, self._reply = time.monotonic(), self._board.notice.remote(self._replica)
        return self._reason


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
