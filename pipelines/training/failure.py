"""Outcome of a failed attempt to train a replica."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ReplicaFailure:
    """A failed attempt to train a replica.

    Attributes:
        replica: the replica's number.
        reason: cause in one line.
        traceback: traceback of the process that failed.
        may_pass: whether another attempt may succeed.
    """

    replica: int
    reason: str
    traceback: str
    may_pass: bool = False
