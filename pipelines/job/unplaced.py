"""Watch on a cluster whose nodes cannot hold what waits for them, as before nodes join that are added on demand."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from pipelines.job.console import duration, say
from pipelines.job.nodes import NodesMissingError, alive_nodes, amounts_line, failures_to_answer, held_by
from pipelines.job.repeating import repeating

TOLD_AFTER_SECONDS = 60.0
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
        """Return True once: when the wait has become long enough to report."""
        seconds = self.seconds(is_held=is_held)
        if is_held or self._told or seconds < TOLD_AFTER_SECONDS:
            return False
        self._told = True
        return True


def once_placed(
    ref: Any,
    work: str,
    needs: Mapping[str, float],
    *,
    longest_wait_seconds: float = math.inf,
    is_start: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Any:
    """Return the result of the Ray task ``ref``; say after a minute what it waits for if no node can hold it.

    ``work`` is what the task does, with an article; ``needs`` is what it reserves. One that ``is_start`` answers as
    soon as it runs, so that a wait for nodes that other jobs use is reported, too; such a wait has no limit.

    Raises:
        NodesMissingError: no node has been able to hold it for ``longest_wait_seconds``.
    """
    import ray

    unplaced, unstarted, needed = Unplaced(clock), Unplaced(clock), amounts_line(needs)
    most = f", for {duration(longest_wait_seconds)} at most" if longest_wait_seconds < math.inf else ""
    while not ray.wait([ref], timeout=POLL_SECONDS)[0]:
        is_held = _is_held(needs)
        if unplaced.is_to_be_told(is_held=is_held):
            say(_waiting_line(work, needs, most))
        if is_start and unstarted.is_to_be_told(is_held=not is_held):
            say(
                f"{work} has not started yet: other jobs use the {needed} that it needs, or its environment is still "
                "being installed; `ray status` shows what is in use"
            )
        if unplaced.seconds(is_held=is_held) >= longest_wait_seconds:
            raise NodesMissingError(
                f"no node with {needed} has joined within {duration(longest_wait_seconds)}, and {work} needs one: "
                "see in `ray status` why the cluster does not grow, or reserve less"
            )
    return ray.get(ref)


@contextmanager
def told_while_unplaced(work: str, needs: Mapping[str, float], tell: Callable[[str], None]) -> Iterator[None]:
    """During the block, report after a minute what ``work`` waits for if no node can hold a process that needs that."""
    unplaced = Unplaced()

    def look() -> None:
        with suppress(*failures_to_answer()):  # a cluster that does not answer is for the work to notice
            if unplaced.is_to_be_told(is_held=_is_held(needs)):
                tell(_waiting_line(work, needs))

    with repeating(look, POLL_SECONDS, "unplaced"):
        yield


def _is_held(needs: Mapping[str, float]) -> bool:
    return any(held_by(node, needs) for node in alive_nodes())


def _waiting_line(work: str, needs: Mapping[str, float], most: str = "") -> str:
    return f"{work} waits for a node with {amounts_line(needs)}{most}; `ray status` shows what the cluster adds"
