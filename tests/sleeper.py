"""Functions that test_benchmarks.py calls in other processes, which import this module, and with it no PyTorch."""

import os
import time
from collections.abc import Callable


def sleeper(seconds: float) -> Callable[[], float]:
    """Contender that sleeps."""

    def one_round() -> float:
        time.sleep(seconds)
        return 10.0 if os.environ.get("BENCHMARK_TEST") else 5.0

    return one_round


class Times:
    """Source of a loader; each of its batches takes 20 ms, and is the time at which it was loaded."""

    @property
    def records(self) -> "Times":
        return self

    def share_cache(self, processes: int) -> None:
        pass

    def load(self, _request: object) -> float:
        time.sleep(0.02)
        return time.time()
