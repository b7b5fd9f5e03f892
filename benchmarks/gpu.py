"""Training and prediction on one GPU: images and crops a second, and how long the GPU is busy, in under ten minutes.

    python -m benchmarks.gpu

`make gpu-check` runs this after the checks of correctness. It needs PyTorch, NumPy, OpenCV and Pillow, no network and
no Ray; torchvision's network is a contender where torchvision is installed. `--device cpu --quick` runs through on a
CPU in about a minute, to prove the benchmark and not to measure.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec

import cv2
import torch

from benchmarks.gpu_contenders import Contender, Size, predicting, training
from benchmarks.measure import commit, versions
from googlenet.network.arithmetic import first_line

ROUNDS = 5
# Of the time, before the prediction begins.
TRAINING_SHARE = 0.65


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
    parser.add_argument("--minutes", type=float, default=9.0, help="begin no other contender or round after this time")
    return parser.parse_args()


def measure(contenders: list[Contender], device: str, rounds: int, is_late: Callable[[], bool]) -> dict[str, Outcome]:
    """Set up each contender, let it do a round to warm up, and time ``rounds`` rounds of all in turn.

    A contender that cannot be set up is reported in one line, and the others go on.
    """
    ready: dict[str, Callable[[], int]] = {}
    for contender in contenders:
        if is_late():
            print(f"left out, as the time is up: {contender.name}", flush=True)
            continue
        try:
            ready[contender.name] = contender.set_up()
        except Exception as error:  # noqa: BLE001  # a compiler and its tools may raise anything
            print(f"failed: {contender.name}: {first_line(error)}", flush=True)
    rates: dict[str, list[float]] = {name: [] for name in ready}
    names = list(ready)
    for number in range(rounds):
        if number and is_late():
            print(f"{number} of {rounds} rounds, as the time is up", flush=True)
            break
        for name in names[number % len(names) :] + names[: number % len(names)]:
            rates[name].append(_rate(ready[name], device))
    return {name: Outcome(rates[name], busy_share(ready[name], device)) for name in ready}


def _rate(work: Callable[[], int], device: str) -> float:
    started = time.perf_counter()
    done = work()
    if device == "cuda":
        torch.cuda.synchronize()
    return done / (time.perf_counter() - started)


def busy_share(work: Callable[[], int], device: str) -> float | None:
    """Return the share of a round's time in which this process had the device compute or copy, by PyTorch's profiler.

    It is not known on a CPU, nor for contenders that compute in other processes.
    """
    if device != "cuda":
        return None
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    events = [event for event in profiler.events() or [] if event.device_type == DeviceType.CUDA]
    spans = [(event.time_range.start, event.time_range.end) for event in events]
    return union_length(spans) / 1e6 / seconds if spans else None


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

    def is_late(share: float = 1.0) -> bool:
        return time.monotonic() - began > share * 60 * options.minutes

    print(f"## Training, batches of {size.batch_size} at {size.crop_px} px\n", flush=True)
    if find_spec("simplejpeg") is None:
        print("simplejpeg is not installed: OpenCV decodes whole images\n")
    outcomes = measure(training(size, options.device), options.device, rounds, lambda: is_late(TRAINING_SHARE))
    print("\n".join(table(outcomes, "images/s", ["plain PyTorch, TF32", "torchvision's loop, TF32"])), flush=True)
    print(f"\n## Prediction, 144 crops of {size.crop_px} px by one replica\n", flush=True)
    outcomes = measure(predicting(size, options.device), options.device, rounds, is_late)
    print("\n".join(table(outcomes, "crops/s", ["plain PyTorch, TF32"])))
    print(f"\nn = {rounds} rounds, in turn; {circumstances(options.device)}; {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
