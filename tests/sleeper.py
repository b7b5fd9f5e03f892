"""Contender that sleeps, for test_benchmarks.py: its process imports this module, and with it no PyTorch."""

import os
import time
from collections.abc import Callable


def sleeper(seconds: float) -> Callable[[], float]:
    def one_round() -> float:
        time.sleep(seconds)
        return 10.0 if os.environ.get("BENCHMARK_TEST") else 5.0

    return one_round
