"""Measurement of contenders in separate processes, round by round in turn; medians and ratios.

Contenders take turns so that a slow minute of the machine affects all of them equally. Each has its own process,
because some change settings (threads, allocator) that must not affect the others.
"""

import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from googlenet.network.arithmetic import Precision

Round = Callable[[], float]
GIT_SECONDS = 10
_round: Round | None = None


@dataclass(frozen=True)
class Contender:
    """One side of a comparison.

    Attributes:
        name: label in the table.
        make: ``make(*arguments)`` sets up and returns a function that does one round and returns how much it did.
        arguments: of ``make``.
        environment: variables added to the environment of its process.
    """

    name: str
    make: Callable[..., Round]
    arguments: tuple[Any, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def _set_up(make: Callable[..., Round], arguments: tuple[Any, ...]) -> None:
    global _round  # noqa: PLW0603  # one contender per process
    _round = make(*arguments)
    _round()  # warm up: compilation, caches


def _timed() -> float:
    assert _round is not None  # noqa: S101
    started = time.perf_counter()
    done = _round()
    return done / (time.perf_counter() - started)


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for processes that are started during the block."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            os.environ.pop(name)
        os.environ.update(before)


def race(contenders: Sequence[Contender], rounds: int) -> dict[str, list[float]]:
    """Return the rates of each contender: the amount of work in a round divided by its seconds."""
    spawn = get_context("spawn")
    processes = {
        c.name: ProcessPoolExecutor(1, spawn, initializer=_set_up, initargs=(c.make, c.arguments)) for c in contenders
    }
    rates: dict[str, list[float]] = {name: [] for name in processes}
    try:
        for contender in contenders:  # one at a time, so that none warms up while another is measured
            with environment(contender.environment):
                processes[contender.name].submit(int).result()
        for number in range(rounds):
            names = list(processes)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                rates[name].append(processes[name].submit(_timed).result())
    finally:
        for process in processes.values():
            process.shutdown()
    return rates


def print_rates(rates: dict[str, list[float]], unit: str, against: Sequence[str]) -> None:
    """Print medians, spread, and ratios to the median of each contender in ``against``."""
    print(
        "| contender | " + f"{unit}, median | lowest - highest | " + " | ".join(f"x {name}" for name in against) + " |"
    )
    print("| --- |" + " ---: |" * (2 + len(against)))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, values in rates.items():
        ratios = " | ".join(f"{medians[name] / medians[peer]:.2f}" for peer in against)
        print(f"| {name} | {medians[name]:.1f} | {min(values):.1f} - {max(values):.1f} | {ratios} |")


def precisions_to_measure() -> "list[Precision]":
    """Return fp32, and bf16 where this processor computes in it: emulated, a batch would take minutes."""
    from googlenet.network.arithmetic import profits_from_bf16

    if profits_from_bf16("cpu"):
        return ["fp32", "bf16"]
    print("bf16 is left out: this processor has no instructions for it", flush=True)
    return ["fp32"]


def commit() -> str:
    """Return the commit of this working copy, marked if it has changes; unknown without git or a repository."""
    try:
        git = subprocess.run(
            ["git", "describe", "--always", "--dirty"],  # noqa: S607
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=GIT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return git.stdout.strip() or "unknown"


def peak_mb() -> float:
    """Return the highest memory of this process so far, in 10^6 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # macOS counts bytes, Linux kibibytes


def versions(names: Sequence[str]) -> str:
    """Return the versions of those packages that are installed."""
    installed = [name for name in names if find_spec(name)]
    return ", ".join(f"{name} {version(name)}" for name in installed)


def print_circumstances(number: int, of: str = "rounds, in turn") -> None:
    """Print the number of rounds, or of what else was measured, commit, versions and processor, for docs/results."""
    from pipelines.job.circumstances import processor
    from pipelines.job.node_limits import node_limits

    software = versions(("torch", "torchvision", "ray", "pyarrow"))
    print(f"\nn = {number} {of}; commit {commit()}; Python {platform.python_version()}, {software}")
    print(f"{node_limits().cpus} cores of {processor()}")
