"""Time until all replicas are trained, from the pace at which they went since this start of the command."""

import time
from collections.abc import Mapping

# Of each replica, on average; less says little about the pace.
LEAST_SHARE = 0.01


class TrainingTimeLeft:
    """Estimate in which earlier work counts as done, but not towards the pace of this start.

    Waiting replicas are assumed to start, in their order, whenever a running one finishes.
    """

    def __init__(self) -> None:
        self._phases: dict[int, str] = {}
        self._shares: dict[int, float] = {}
        self._first_shares: dict[int, float] = {}
        self._updated: float | None = None
        self._replica_seconds = 0.0

    def update(self, phases: Mapping[int, str], shares: Mapping[int, float]) -> None:
        """Take over the phase of each replica and the share of its work that is done, between 0 and 1."""
        now = time.monotonic()
        if self._updated is not None:
            self._replica_seconds += (now - self._updated) * len(self._in_phase("training"))
        self._updated, self._phases, self._shares = now, dict(phases), dict(shares)
        for replica in self._in_phase("training"):
            self._first_shares.setdefault(replica, shares[replica])

    @property
    def seconds(self) -> float | None:
        """Seconds until the last replica is trained; None while too little is done to tell."""
        done = sum(self._shares[replica] - first for replica, first in self._first_shares.items())
        if done < LEAST_SHARE * len(self._shares) or not self._replica_seconds:
            return None
        ends = [1.0 - self._shares[replica] for replica in self._in_phase("training", "starting")] or [0.0]
        for replica in self._in_phase("waiting"):
            ends[ends.index(min(ends))] += 1.0 - self._shares[replica]
        return max(ends) * self._replica_seconds / done

    def _in_phase(self, *phases: str) -> list[int]:
        return [replica for replica, phase in self._phases.items() if phase in phases]
