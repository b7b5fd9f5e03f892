"""Meter of a job: the time and money that it uses, written to its log while it runs."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from pipelines.job.console import count, duration, say
from pipelines.job.limits import Limits, Usage, comparison
from pipelines.job.log import JobLog, LoggedJob
from pipelines.job.nodes import failures_to_answer
from pipelines.job.repeating import repeating

KEEP_SECONDS = 60.0


def nodes_that_cost() -> int:
    """Return the number of nodes with CPUs for tasks, drained ones too; a head without them is small, not counted."""
    import ray

    return sum(node["Resources"].get("CPU", 0.0) > 0 for node in ray.nodes() if node["Alive"])


class Meter:
    """What a job has used so far, whether its run has reached a limit, and how that compares with an estimate.

    Args:
        limits: the price of a node, and the limits.
        jobs: logs of the earlier jobs of the run.
        nodes: returns the number of nodes that cost money at present.
        clock: returns the time in seconds.
    """

    def __init__(
        self,
        limits: Limits,
        jobs: Iterable[LoggedJob],
        nodes: Callable[[], int] = nodes_that_cost,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        earlier = list(jobs)
        self._limits, self._earlier, self._nodes, self._clock = limits, limits.usage_of(earlier), nodes, clock
        self._used, self._read, self._number = Usage(), clock(), 0
        self._expected, self._reserve = Usage(), Usage()
        self._stop = self._still_stopped(earlier[-1]) if earlier else ""
        self._lock = threading.Lock()

    def _still_stopped(self, before: LoggedJob) -> str:
        """Return the limit at which the job before has stopped, if it is given again, on no more nodes than then.

        What that job kept back for the evaluation would be known only after a trial, which may wait for a node.
        """
        stopped_at = before.get("limit", "")
        if stopped_at not in self._limits.names:
            return ""
        self._count_nodes()
        return stopped_at if self._number <= before.get("limit_nodes", 0) else ""

    def expect(self, seconds: float, evaluation_seconds: float, nodes: int) -> str:
        """Take over an estimate of the rest of this job; return it in one line.

        Training leaves enough for the evaluation.
        """
        rest = self._limits.usage(seconds, nodes)
        self._expected = self.used() + rest
        self._reserve = self._limits.usage(evaluation_seconds, nodes)
        return self._limits.line(rest)

    def used(self) -> Usage:
        """Return what this job has used. Between two calls, the nodes are taken to be those of the second."""
        with self._lock:
            now = self._clock()
            self._count_nodes()
            self._used += self._limits.usage(now - self._read, self._number)
            self._read = now
            return self._used

    def _count_nodes(self) -> None:
        with suppress(*failures_to_answer()):  # a cluster that does not answer has as many as before
            self._number = self._nodes()

    def why_stop(self) -> str:
        """Return why the training has to stop: the limit that the run has reached; empty while it may go on."""
        if not self._stop and self._limits.are_given:
            self._stop = self._limits.reached_by(self._earlier + self.used() + self._reserve)
        return f"the run has reached {self._stop}" if self._stop else ""

    @property
    def has_stopped(self) -> bool:
        """Whether the run has reached a limit, as :meth:`why_stop` last saw it."""
        return bool(self._stop)

    def how_to_go_on(self, finished: int, replicas: int) -> str:
        """Return what the run has used at its limit, what is finished, and how to go on."""
        stopped = f"stopped at {self._stop}{self._kept_back()}"
        return (
            f"{stopped}: the jobs of this run have used {self._earlier + self.used()}; "
            f"{finished} of {count(replicas, 'replica')} finished, the others keep their checkpoints. "
            f"To go on, run the same command with a larger {self._stop.partition(' ')[0]}."
        )

    def _kept_back(self) -> str:
        return f", less {duration(self._reserve.seconds)} for the evaluation" if self._reserve.seconds else ""

    @contextmanager
    def kept_in(self, log: JobLog) -> Iterator[None]:
        """Write to the log what the job has used, about once a minute; say at the end how the estimate did."""

        def keep() -> None:
            log.keep("usage", self.used().to_dict())

        try:
            with repeating(keep, KEEP_SECONDS, "meter"):
                yield
        finally:
            keep()
            if self._stop:
                log.keep("limit", self._stop)
                log.keep("limit_nodes", self._number)
        if self._expected.seconds and not self._stop:  # a part of the work says nothing of the estimate
            log.keep("estimate", self._expected.to_dict())
            say(comparison(self._expected, self._used))
