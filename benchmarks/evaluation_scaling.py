"""Cost per image and peak memory of the evaluation, from a hundred images to ten thousand.

    python -m benchmarks.evaluation_scaling

A narrow network, all 144 views. The cost counts only the time when all predictors are busy, including pauses between
shards, because predictors neither start nor end together. The first quarter of the shards is left out. A measurement is
the mean over enough runs to predict at least a thousand images. Memory is the peak of anonymous pages, of the driver
and of the largest worker.
"""

import os
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import tyro

from benchmarks.evaluation_run import make_task, predict_all, untrained_replica
from benchmarks.measure import print_circumstances
from benchmarks.photographs import photographs
from googlenet.network.arithmetic import Arithmetic
from pipelines.evaluation.predictors import Predictors
from pipelines.job.ray_session import connected

LEAST_IMAGES = 1024


@dataclass(frozen=True)
class Arguments:
    """Measure how the evaluation scales with the number of images."""

    photos: str = ""
    """Folder of photographs, repeated as needed; the built-in images otherwise."""
    images: tuple[int, ...] = (128, 1024, 10240)
    """Numbers of images."""
    rounds: int = 5
    """Rounds."""
    crop_px: int = 35
    """Side of the crops."""
    width: float = 0.25
    """Width of the network."""
    predictors: int = 1
    """Predictors that run at once."""
    cpus: int = 2
    """CPUs of the cluster. One is left to start-up and feeding: a narrow network would finish before they settle."""


class Memory:
    """Peak memory in MB of this process and of its largest Ray worker, sampled during a block."""

    def __enter__(self) -> "Memory":
        self.driver_mb = self.worker_mb = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            self.driver_mb = max(self.driver_mb, _allocated_mb(psutil.Process()))
            for process in psutil.Process(os.getpid()).children(recursive=True):
                try:
                    if "ray::" in " ".join(process.cmdline()):
                        self.worker_mb = max(self.worker_mb, _allocated_mb(process))
                except psutil.Error:
                    continue


def _allocated_mb(process: psutil.Process) -> float:
    """Return anonymous memory; pages of library files are left out, because they are shared with other processes."""
    memory = process.memory_info()
    return (memory.rss - memory.shared) / 1e6


def main(arguments: Arguments) -> None:
    """Print milliseconds per image and peak memory by number of images, memory also relative to the first number."""
    network = untrained_replica(arguments.width, 10, "bn")
    cost: dict[int, list[float]] = {images: [] for images in arguments.images}
    driver: dict[int, list[float]] = {images: [] for images in arguments.images}
    worker: dict[int, list[float]] = {images: [] for images in arguments.images}
    with tempfile.TemporaryDirectory() as folder, connected(num_cpus=arguments.cpus):
        tasks = {
            n: make_task(
                Path(folder) / str(n), photographs(arguments.photos, n), network, arguments.crop_px, Arithmetic()
            )
            for n in arguments.images
        }
        for _ in range(arguments.rounds):
            for images, task in tasks.items():
                with Memory() as memory:
                    runs = [
                        predict_all(task, images, Predictors(arguments.predictors, 0.0))
                        for _ in range(max(1, LEAST_IMAGES // images))
                    ]
                cost[images].append(1000 * statistics.mean(run.seconds_per_image for run in runs))
                driver[images].append(memory.driver_mb)
                worker[images].append(memory.worker_mb)
                print(f"{time.strftime('%H:%M:%S')} {images}: {cost[images][-1]:.2f} ms", flush=True)
    first = arguments.images[0]
    print(
        "\n| images | ms per image, median | lowest - highest | for one more | driver MB | x | largest worker MB | x |"
    )
    print("| ---: |" + " ---: |" * 7)
    smaller, spent = 0, 0.0
    for images in arguments.images:
        ms, own, others = (statistics.median(values[images]) for values in (cost, driver, worker))
        base = [statistics.median(values[first]) for values in (driver, worker)]
        spread = f"{min(cost[images]):.2f} - {max(cost[images]):.2f}"
        # Relative to the row before, so that fixed costs such as first shards on cold caches cancel out.
        one_more, smaller, spent = (ms * images - spent) / (images - smaller), images, ms * images
        print(
            f"| {images} | {ms:.2f} | {spread} | {one_more:.2f} "
            f"| {own:.0f} | {own / base[0]:.3f} | {others:.0f} | {others / base[1]:.3f} |"
        )
    print_circumstances(arguments.rounds)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
