"""Training and prediction on one GPU: images and crops a second, and how long the GPU is busy, in about eight minutes.

    python -m benchmarks.gpu

`make gpu-check` runs this after the checks of correctness, in the time that they leave. It needs PyTorch, NumPy, OpenCV
and Pillow, no network and no Ray; torchvision's network is a contender where torchvision is installed.
`--device cpu --quick` runs through on a CPU in about a minute, to prove the benchmark and not to measure.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import torch

from benchmarks.gpu_contenders import (
    FASTER,
    PLAIN,
    TORCHVISION,
    by_default,
    fast_precisions,
    predicting,
    training,
    training_with_processes,
)
from benchmarks.gpu_turns import Contender, Size, Turn
from benchmarks.measure import commit, versions
from googlenet.network.arithmetic import first_line

ROUNDS = 5
# Of the time, before the next comparison begins. Processes start last: on some machines that takes minutes.
SHARES = (0.4, 0.65, 1.0)
# Names in a trace for what a GPU does.
GPU_EVENTS = ("kernel", "gpu_memcpy", "gpu_memset")


@dataclass(frozen=True)
class Outcome:
    """Rates of a contender, and the share of the time in which the device computed; None where that is not known."""

    rates: list[float]
    busy: float | None


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="small networks and one round, to prove the benchmark")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of each contender, in turn")
    parser.add_argument(
        "--seconds", type=float, default=480.0, help="begin nothing after this time; what has begun goes on"
    )
    return parser.parse_args()


def measure(contenders: list[Contender], device: str, rounds: int, is_late: Callable[[], bool]) -> dict[str, Outcome]:
    """Set up each contender, let it do a round to warm up, and time ``rounds`` rounds of all in turn.

    A contender that cannot be set up is reported in one line, and the others go on. The first round begins in any
    case, and what comes after it only in time: the other rounds, and one that shows how long the device is busy.
    """
    ready: dict[str, Turn] = {}
    for contender in contenders:
        if is_late():
            print(f"left out, as the time is up: {contender.name}", flush=True)
            continue
        started = time.monotonic()
        try:
            ready[contender.name] = contender.set_up()
            print(f"set up in {time.monotonic() - started:.0f} s: {contender.name}", flush=True)
        except Exception as error:  # noqa: BLE001  # a compiler and its tools may raise anything
            print(f"failed: {contender.name}: {first_line(error)}", flush=True)
    rates: dict[str, list[float]] = {name: [] for name in ready}
    names = list(ready)
    for number in range(rounds if names else 0):
        if number and is_late():
            print(f"{number} of {rounds} rounds, as the time is up", flush=True)
            break
        for name in names[number % len(names) :] + names[: number % len(names)]:
            rates[name].append(_rate(ready[name], device))
    return {name: Outcome(rates[name], None if is_late() else busy_share(ready[name], device)) for name in ready}


def _rate(turn: Turn, device: str) -> float:
    turn.run_up()
    _synchronise(device)
    started = time.perf_counter()
    done = turn.work()
    _synchronise(device)
    return done / (time.perf_counter() - started)


def _synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def busy_share(turn: Turn, device: str) -> float | None:
    """Return the share of a round's time in which this process had the device compute or copy, by PyTorch's profiler.

    It is not known on a CPU, nor for contenders that compute in other processes.
    """
    if device != "cuda":
        return None
    from torch.profiler import ProfilerActivity, profile

    turn.run_up()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        started = time.perf_counter()
        turn.work()
        torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    # The profiler's own list of events takes it many seconds to make.
    with TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        spans = spans_on_gpu(json.loads(trace.read_bytes())["traceEvents"])
    return union_length(spans) / 1e6 / seconds if spans else None


def spans_on_gpu(events: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """Return beginnings and ends, in microseconds, of the events of a trace that are kernels or copies of a GPU."""
    of_gpu = [event for event in events if event.get("cat") in GPU_EVENTS]
    return [(event["ts"], event["ts"] + event["dur"]) for event in of_gpu]


def union_length(spans: list[tuple[float, float]]) -> float:
    """Return the length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def table(outcomes: dict[str, Outcome], unit: str, against: list[str]) -> Iterator[str]:
    """Yield the lines of a table for docs/results: median, spread, share of the device busy, and ratios."""
    known = [name for name in against if name in outcomes]
    heads = [f"{unit}, median", "lowest - highest", "busy", *(f"x {name}" for name in known)]
    yield f"| contender | {' | '.join(heads)} |"
    yield "| --- |" + " ---: |" * len(heads)
    medians = {name: statistics.median(outcome.rates) for name, outcome in outcomes.items()}
    for name, outcome in outcomes.items():
        spread = f"{min(outcome.rates):,.1f} - {max(outcome.rates):,.1f}"
        busy = "not known" if outcome.busy is None else f"{100 * outcome.busy:.0f} %"
        ratios = [f"{medians[name] / medians[peer]:.2f}" for peer in known]
        yield f"| {' | '.join([name, f'{medians[name]:,.1f}', spread, busy, *ratios])} |"


def circumstances(device: str) -> str:
    """Return card, driver, versions and commit in one line, for docs/results."""
    packages = f"{versions(('torch', 'torchvision', 'numpy'))}, OpenCV {cv2.__version__}"
    software = f"commit {commit()}; Python {platform.python_version()}, {packages}"
    if device == "cpu":
        return f"no GPU, {platform.processor() or platform.machine()}; {software}"
    card, memory = torch.cuda.get_device_properties(0), torch.cuda.mem_get_info()[1] / 2**30
    return f"{card.name}, {memory:.0f} GiB, driver {driver()}, CUDA {torch.version.cuda}; {software}"


def driver() -> str:
    """Return the version of NVIDIA's driver as the system shows it."""
    try:
        with open("/sys/module/nvidia/version") as file:  # noqa: PTH123
            return file.read().strip()
    except OSError:
        return "of unknown version"


def main() -> int:
    """Print the tables; return 1 if the device is not there."""
    options = arguments()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no GPU here: torch.cuda.is_available() is false; --device cpu --quick runs the benchmark on a CPU")
        return 1
    size = Size.quick() if options.quick else Size()
    rounds = 1 if options.quick else options.rounds
    began = time.monotonic()

    # Before the tables: whoever ends this early has what it takes to read those that are there.
    print(f"n = {rounds} rounds, in turn; {circumstances(options.device)}\n", flush=True)
    if find_spec("simplejpeg") is None:
        print("simplejpeg is not installed: OpenCV decodes whole images\n")
    if missing := [precision for precision in FASTER if precision not in fast_precisions(options.device)]:
        print(f"not measured, as this device has no instructions for it: {', '.join(missing)}\n")
    crop_px, device = size.crop_px, options.device
    plain, torchvision = (by_default(name, device) for name in (PLAIN, TORCHVISION))
    training_title = f"Training, batches of {size.batch_size} at {crop_px} px"
    comparisons = (
        (training_title, "images/s", training, [plain, torchvision]),
        (f"Prediction, 144 crops of {crop_px} px by one replica", "crops/s", predicting, [plain]),
        (
            f"{training_title}, with other processes",
            "images/s",
            training_with_processes,
            [f"{torchvision}, loading"],
        ),
    )
    for (title, unit, contenders, against), share in zip(comparisons, SHARES, strict=True):
        end = began + share * options.seconds
        print(f"## {title}\n", flush=True)
        outcomes = measure(contenders(size, device), device, rounds, lambda end=end: time.monotonic() > end)
        print("\n" + "\n".join(table(outcomes, unit, against)) + "\n", flush=True)
    print(f"{time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
