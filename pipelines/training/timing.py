"""Timed calls for a trial: three, or for an estimate of a job's time as many as that takes."""

import time
from collections.abc import Callable
from statistics import mean, median

# Calls timed after a first one. For an estimate, they take at least this long together, since other processes disturb
# single calls, and longer for a longer training: a fiftieth of its time, at most 20 seconds. The speed of a processor
# that is shared with other machines changes by a fifth within half a minute.
CALLS = 3
ESTIMATE_SECONDS, MOST_ESTIMATE_SECONDS, ESTIMATED_SHARE = 5.0, 20.0, 0.02


def times(work: Callable[[], object], least_seconds: float = 0.0, calls: int = 0) -> tuple[float, float]:
    """Return how much longer the first call takes than a typical later one, and the seconds of a typical later one.

    That is the median of ``CALLS`` calls. With ``least_seconds``, it is the mean of calls that together take at least
    that long, and their share of ``calls`` calls: what disturbs some of them disturbs a long training, too.
    """
    first, others = _seconds(work), [_seconds(work)]
    while _are_too_few(others, least_seconds, calls):
        others.append(_seconds(work))
    typical = mean(others) if least_seconds else median(others)
    return max(0.0, first - typical), typical


def _are_too_few(others: list[float], least_seconds: float, calls: int) -> bool:
    if not least_seconds:
        return len(others) < CALLS
    return sum(others) < max(least_seconds, min(MOST_ESTIMATE_SECONDS, ESTIMATED_SHARE * calls * mean(others)))


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
