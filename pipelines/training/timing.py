"""Times of calls for a trial: of three, or for an estimate of as many as it takes to know a job's."""

import time
from collections.abc import Callable
from statistics import mean, median

# Timed calls, after a first one. For an estimate at least so many seconds, since other processes disturb single calls,
# and the more the longer the training is: a fiftieth of it, at most 20 seconds. The speed of a processor that is shared
# with other machines changes by a fifth within half a minute.
CALLS = 3
ESTIMATE_SECONDS, MOST_ESTIMATE_SECONDS, ESTIMATED_SHARE = 5.0, 20.0, 0.02


def times(work: Callable[[], object], least_seconds: float = 0.0, calls: int = 0) -> tuple[float, float]:
    """Return by how many seconds the first call exceeds the others, and the median of the others.

    If they take ``least_seconds`` together, or their share of so many ``calls``, it is their mean: what disturbs some
    of them disturbs a long training, too.
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
