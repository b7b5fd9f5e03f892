"""Watch on a cluster whose nodes cannot hold what waits for them, as before nodes join that are added on demand."""

import time
from collections.abc import Callable, Mapping

from pipelines.job.console import duration, say
from pipelines.job.nodes import NodesMissingError
from pipelines.job.ray_session import alive_nodes, amounts_line, held_by

TOLD_AFTER_SECONDS = 60.0
# New nodes take minutes; half an hour without one is a quota, or a kind of node that the cluster does not add.
LONGEST_WAIT_SECONDS = 1800.0
POLL_SECONDS = 1.0


class Unplaced:
    """How long a cluster has been unable to hold something.

    Args:
        clock: returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._held_at, self._told = clock, clock(), False

    def seconds(self, *, is_held: bool) -> float:
        """Return how long that has been so; ``is_held`` says whether the cluster holds it at present."""
        if is_held:
            self._held_at, self._told = self._clock(), False
        return self._clock() - self._held_at

    def is_to_be_told(self, *, is_held: bool) -> bool:
        """Return whether it is time to report it, which is once."""
        seconds = self.seconds(is_held=is_held)
        if is_held or self._told or seconds < TOLD_AFTER_SECONDS:
            return False
        self._told = True
        return True


def wait_for_place(is_done: Callable[[float], bool], per_worker: Mapping[str, float], unplaced: Unplaced) -> None:
    """Wait until ``is_done``, which is called with the seconds that it may take, returns True.

    Raises:
        NodesMissingError: no node has been able to hold a worker for ``LONGEST_WAIT_SECONDS``.
    """
    while not is_done(POLL_SECONDS):
        is_held = any(held_by(node, per_worker) for node in alive_nodes())
        needed = amounts_line(per_worker)
        if unplaced.is_to_be_told(is_held=is_held):
            say(
                f"the trial waits for a node with {needed}, for {duration(LONGEST_WAIT_SECONDS)} at most; "
                "`ray status` shows what the cluster adds"
            )
        if unplaced.seconds(is_held=is_held) >= LONGEST_WAIT_SECONDS:
            raise NodesMissingError(
                f"no node with {needed} has joined within {duration(LONGEST_WAIT_SECONDS)}, and the trial needs one: "
                "see in `ray status` why the cluster does not grow, or reserve less"
            )
