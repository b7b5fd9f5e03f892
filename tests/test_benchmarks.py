"""The benchmarks' own arithmetic, and a minimal run of each."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks.measure import Contender, Round, print_rates, race
from tests.project import ROOT

pytestmark = pytest.mark.timeout(200)


def _sleeper(seconds: float) -> Round:
    import time

    def one_round() -> float:
        time.sleep(seconds)
        return 10.0 if os.environ.get("BENCHMARK_TEST") else 5.0

    return one_round


@pytest.mark.processes
def test_contenders_have_processes_and_environments_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    plain, other = Contender("plain", _sleeper, (0.05,)), Contender("other", _sleeper, (0.05,), {"BENCHMARK_TEST": "1"})
    rates = race([plain, other], rounds=3)
    assert "BENCHMARK_TEST" not in os.environ
    assert [len(values) for values in rates.values()] == [3, 3]
    assert max(rates["plain"]) <= 5 / 0.05
    assert 5 / 0.05 < max(rates["other"]) <= 10 / 0.05
    print_rates({"a": [1.0, 9.0, 2.0], "b": [4.0, 4.0, 4.0]}, "units/s", ["a"])
    assert "| b | 4.0 | 4.0 - 4.0 | 2.00 |" in capsys.readouterr().out


SMALL = {
    "full_size_report --images 40 --replicas 2 --classes 12 --rounds 1": "| 40 | 0.00 |",
    "allocator --rounds 1 --crop-px 42 --batches 2": "freed memory kept",
    "loader --rounds 1 --images 4 --crop-px 35": "| ours, all of it |",
    "records_scaling --records 300 600 --rounds 1 --steps 1 --batch-size 4 --crop-px 35 --width 0.125": "| 600 |",
}


def run_benchmark(words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *f"benchmarks.{words}".split()]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)


@pytest.fixture(scope="module")
def small_benchmarks() -> dict[str, subprocess.CompletedProcess[str]]:
    """Results of the benchmarks, run two at a time, since no rates are checked here."""
    with ThreadPoolExecutor(2) as threads:
        return dict(zip(SMALL, threads.map(run_benchmark, SMALL), strict=True))


@pytest.mark.parametrize(("words", "expected"), SMALL.items())
@pytest.mark.processes
def test_a_benchmark_runs(
    words: str, expected: str, small_benchmarks: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    ended = small_benchmarks[words]
    assert ended.returncode == 0, ended.stderr
    assert expected in ended.stdout
