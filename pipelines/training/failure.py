"""Outcome of a failed attempt to train a replica, and of all failed replicas in one line."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.job.console import count, say


@dataclass(frozen=True)
class ReplicaFailure:
    """A failed attempt to train a replica.

    Attributes:
        replica: the replica's number.
        reason: cause in one line.
        traceback: traceback of the process that failed.
        may_pass: whether another attempt may succeed.
        not_finite: whether a loss or the gradient was not finite; of such failures only one in a row is retried.
        noticed: whether it ended on a notice, after writing a checkpoint; this never counts as a failure.
        is_explained: whether the reason says all that a user needs, as for a full disk.
    """

    replica: int
    reason: str
    traceback: str
    may_pass: bool = False
    not_finite: bool = False
    noticed: bool = False
    is_explained: bool = False


def summary_of_failures(
    failures: Sequence[ReplicaFailure], finished: int, replicas: int, *, at_limit: bool = False
) -> str:
    """Return in one line which of ``replicas`` replicas failed, and how many are finished.

    It says what to do, unless the job ends at a limit: the same command would end there again.
    """
    others = "the other one is" if finished == 1 else f"the other {finished} are"
    if finished < replicas - len(failures):
        others = f"{finished} {'is' if finished == 1 else 'are'}"
    kept = f"; {others} finished and kept" if finished else ""
    failed = ", ".join(str(failure.replica) for failure in failures)
    again = "" if at_limit else f" Run the same command again to retry {'it' if len(failures) == 1 else 'them'}."
    return f"{len(failures)} of {count(replicas, 'replica')} failed ({failed}){kept}.{again}"


def tell_failures(failures: Sequence[ReplicaFailure], finished: int, replicas: int, *, at_limit: bool = False) -> None:
    """Print each failure, and their summary; see :func:`summary_of_failures`."""
    for failure in failures:
        say(f"\nreplica {failure.replica} failed: {failure.reason}")
        if not failure.is_explained:
            say(failure.traceback.rstrip(), wrap=False)
    if failures:
        say(f"\n{summary_of_failures(failures, finished, replicas, at_limit=at_limit)}")
