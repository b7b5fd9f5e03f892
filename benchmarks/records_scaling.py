"""Cost of a training step, and of finding its records, from a thousand to a million records.

    python -m benchmarks.records_scaling

Synthetic shards of 256 small images, all hard links to one file. Memory is the peak of Python's own allocations for the
order of an epoch and one batch of it, and the resident set of the process after the steps.
"""

import os
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psutil
import pyarrow.fs as pafs
import torch
import tyro

from benchmarks.measure import print_circumstances
from benchmarks.photographs import photographs_of_size
from benchmarks.training import CLASSES, write_shard
from googlenet import GoogLeNet
from googlenet.images.records import Records
from googlenet.network.initialisation import initialise
from googlenet.network.preprocessing import SCRATCH_PREPROCESSING
from googlenet.randomness import torch_generator
from googlenet.training.augment import Sampling
from googlenet.training.batches import TrainingSamples, training_batches
from googlenet.training.epoch_order import EpochOrder
from googlenet.training.learning_rate import LearningRate
from googlenet.training.loader import Batch
from googlenet.training.loop import LoopSettings, TrainState, train_step
from googlenet.training.optim import PolyakAverage, build_sgd

IMAGES_PER_SHARD = 256


@dataclass(frozen=True)
class Arguments:
    """Measure steps on data sets of different sizes."""

    records: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000)
    """Numbers of records."""
    rounds: int = 5
    """Rounds."""
    steps: int = 20
    """Steps in a round."""
    batch_size: int = 32
    """Images in a step."""
    crop_px: int = 84
    """Side of the crops."""
    width: float = 0.25
    """Width of the network."""
    cache_bytes: int = 1 << 20
    """Limit of the cache of encoded images; small, so that not even a thousand records fit."""


def _records(folder: str, number: int, cache_bytes: int) -> Records:
    paths, counts = [], []
    for shard in range(-(-number // IMAGES_PER_SHARD)):
        path = Path(folder) / f"{shard:05d}.parquet"
        if not path.exists():
            os.link(Path(folder) / "shard.parquet", path)
        paths.append(str(path))
        counts.append(min(IMAGES_PER_SHARD, number - shard * IMAGES_PER_SHARD))
    return Records(pafs.LocalFileSystem(), paths, counts, cache_bytes)


def _order(number: int, batch_size: int) -> tuple[float, float]:
    """Return microseconds per index of an epoch's order, and the peak in KB."""
    tracemalloc.start()
    order = EpochOrder(number, 0, 0)
    order[:batch_size].tolist()
    peak = tracemalloc.get_traced_memory()[1] / 1000
    tracemalloc.stop()
    started = time.perf_counter()
    starts = range(0, min(number, 200 * batch_size) - batch_size, batch_size)
    for start in starts:
        order[start : start + batch_size].tolist()
    return 1e6 * (time.perf_counter() - started) / (len(starts) * batch_size), peak


def _batches(records: Records, arguments: Arguments) -> Iterator[Batch]:
    samples = TrainingSamples(records, arguments.crop_px, Sampling(), 0)
    return training_batches(samples, arguments.batch_size, count())


def _state(arguments: Arguments) -> TrainState:
    model = GoogLeNet(CLASSES, "bn", width=arguments.width)
    initialise(model, "he", torch_generator(0, "initial_weights"))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_sgd(model, momentum=0.9, weight_decay=1e-3, decay_biases=False)
    return TrainState(model, optimizer, PolyakAverage(model, 100))


def main(arguments: Arguments) -> None:
    """Print milliseconds per step, of these the wait for data, and the cost of the order, by number of records."""
    torch.set_num_threads(1)
    settings = LoopSettings(LearningRate(0.001, "paper", 0, 1), 10**9, SCRATCH_PREPROCESSING, 0)
    state = _state(arguments)
    step_ms: dict[int, list[float]] = {number: [] for number in arguments.records}
    load_ms: dict[int, list[float]] = {number: [] for number in arguments.records}
    resident: dict[int, list[float]] = {number: [] for number in arguments.records}
    with tempfile.TemporaryDirectory() as folder:
        write_shard(folder, photographs_of_size("", IMAGES_PER_SHARD, 128, 96))
        batches = {n: _batches(_records(folder, n, arguments.cache_bytes), arguments) for n in arguments.records}
        for round_number in range(arguments.rounds + 1):  # the first one warms up
            for number, source in batches.items():
                whole, loading = _steps(state, source, settings, arguments.steps)
                if round_number:
                    step_ms[number].append(whole)
                    load_ms[number].append(loading)
                    resident[number].append(psutil.Process().memory_info().rss / 1e6)
    first = arguments.records[0]
    print("| records | ms per step, median (lowest - highest) | x | loading | order: us per index | KB | process MB |")
    print("| ---: |" + " ---: |" * 6)
    for number in arguments.records:
        ms, loading = statistics.median(step_ms[number]), statistics.median(load_ms[number])
        micros, kilobytes = _order(number, arguments.batch_size)
        spread = f"{min(step_ms[number]):.1f} - {max(step_ms[number]):.1f}"
        ratio = ms / statistics.median(step_ms[first])
        print(
            f"| {number:,} | {ms:.1f} ({spread}) | {ratio:.3f} | {loading:.1f} "
            f"| {micros:.2f} | {kilobytes:.0f} | {statistics.median(resident[number]):.0f} |"
        )
    print_circumstances(arguments.rounds)


def _steps(state: TrainState, source: Iterator[Batch], settings: LoopSettings, steps: int) -> tuple[float, float]:
    """Return milliseconds per step, and of waiting for its batch."""
    whole = loading = 0.0
    for _ in range(steps):
        started = time.perf_counter()
        batch = next(source)
        loading += time.perf_counter() - started
        train_step(state, batch, settings)
        whole += time.perf_counter() - started
    return 1000 * whole / steps, 1000 * loading / steps


if __name__ == "__main__":
    main(tyro.cli(Arguments))
