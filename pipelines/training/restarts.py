"""Limit on the restarts of replicas that fail, and the pause before each."""

from collections import Counter

# Pause before a restart, doubled for each failure in a row: whatever ended the replica may last for minutes.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 2.0, 300.0


class Tries:
    """Limit on restarts: none while a replica makes progress, ``most`` times in a row while it makes none.

    On machines that come and go, a run of weeks fails many times, each time further on.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._failures: Counter[int] = Counter()
        self._furthest: Counter[int] = Counter()

    def has_another(self, replica: int, step: int) -> bool:
        """Count a failure of ``replica``, whose newest checkpoint is of ``step``; return whether to restart it."""
        if step > self._furthest[replica]:
            self._furthest[replica], self._failures[replica] = step, 0
        self._failures[replica] += 1
        return self._failures[replica] <= self._most

    def pause_seconds(self, replica: int) -> float:
        """Return how long to wait before ``replica`` is restarted after its last failure."""
        doublings = max(0, self._failures[replica] - 1)
        return float(min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**doublings))
