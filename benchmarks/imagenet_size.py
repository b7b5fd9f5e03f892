"""The pipeline at ImageNet's size with a network that does next to nothing: speed and memory of everything else.

    python -m benchmarks.imagenet_size
    python -m benchmarks.imagenet_size --stages job --images 2560 --folder DISK

The network has one channel in most layers. The stages:

- listing: archives of full size, whose images are holes, are listed
- preparing: shards are written from archives with images, at most ``--prepared``, in this process
- loading: this process makes the batches of one replica, from shards that are one file under many names
- training: all replicas are trained at once from such shards; after ``--seconds`` the training ends, and resumes
- job: the main command, from archives with images to the report
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Literal

import cv2
import torch
import tyro

from benchmarks.imagenet_files import CLASSES, TRAINING_IMAGES, VALIDATION_IMAGES, class_names, write_archives
from benchmarks.measure import print_circumstances
from benchmarks.photographs import photographs_of_size
from benchmarks.process_memory import MemoryWatch, pss_mb
from benchmarks.training import write_shard as write_shard_of
from googlenet.network.arithmetic import FP32
from googlenet.training.batches import TrainingSamples, training_batches
from pipelines.data.shards import plan_shards, write_shard
from pipelines.data.sources import images_to_train_on
from pipelines.job.log import read_jobs, stage_seconds
from pipelines.job.ray_session import connected
from pipelines.run.claims import claim
from pipelines.run.dataset import Manifest, Shard, Split, open_records, read_manifest
from pipelines.run.directory import DATASET, MANIFEST, ReplicaFiles
from pipelines.run.named_recipes import demo
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training.checkpoints import newest_step
from pipelines.training.resources import Resources
from pipelines.training.scheduler import train_replicas

Stage = Literal["listing", "preparing", "loading", "training", "job"]
ROOT = Path(__file__).parents[1]
IMAGES_PER_SHARD = 256
REPLICAS = 7
CROP_PX, WIDTH = 35, 0.01


@dataclass(frozen=True)
class Arguments:
    """Simulate the pipeline at ImageNet's size, or a part of it."""

    stages: tuple[Stage, ...] = ("listing", "preparing", "loading", "training")
    """Stages to run."""
    images: int = TRAINING_IMAGES
    """Training images; validation images in proportion."""
    prepared: int = 2048
    """Training images to prepare."""
    seconds: float = 120.0
    """Time of the loading, and of the training after the first step of the last replica and again when it resumes."""
    folder: str = ""
    """Where to write; 5 GB for the listing at full size, 110 KB an image for a job."""

    @property
    def validation(self) -> int:
        """Number of validation images."""
        return max(CLASSES, self.images * VALIDATION_IMAGES // TRAINING_IMAGES)


def _listing(folder: Path, arguments: Arguments) -> None:
    started = time.perf_counter(), time.process_time()
    write_archives(folder, arguments.images, arguments.validation)
    _say("archives written", arguments.images, *started)
    started = time.perf_counter(), time.process_time()
    with MemoryWatch(os.getpid(), 0.5) as memory:
        listing = images_to_train_on(str(folder), 10.0, 0).listing
    found = sum(map(len, listing.splits.values()))
    _say("listing", found, *started)
    print(f"listing: {memory.most_mb:.0f} MB at most")


def _preparing(folder: Path, arguments: Arguments) -> None:
    images = min(arguments.images, arguments.prepared)
    write_archives(folder, images, VALIDATION_IMAGES // CLASSES, _photographs(64))
    run, found = Storage.at(str(folder / "run")), images_to_train_on(str(folder), 10.0, 0)
    started = time.perf_counter(), time.process_time()
    with MemoryWatch(os.getpid(), 0.5) as memory:
        for plan in plan_shards("train", found.listing.splits["train"], IMAGES_PER_SHARD, "", None):
            write_shard(run, found.reader, plan)
    _say("preparing", images, *started)
    print(f"preparing: {memory.most_mb:.0f} MB at most")


def _photographs(number: int) -> list[bytes]:
    """Return JPEGs of about ImageNet's size and shape."""
    return photographs_of_size("", number, 500, 375, 97)


def _say(name: str, images: int, started: float, started_cpu: float) -> None:
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - started_cpu
    rates = f"{images / seconds:,.0f} a second, {images / cpu_seconds:,.0f} a second of CPU"
    print(f"{name}: {images:,} images in {seconds:.1f} s: {rates}", flush=True)


def _recipe() -> Recipe:
    small = {"crop_px": CROP_PX, "width": WIDTH, "aux_heads": False, "replicas": REPLICAS, "batch_size": 256}
    return replace(demo(), **small, photometric=(0.5, 1.5), lighting_sigma=0.1, precision="fp32")


def _full_size_run(folder: Path, arguments: Arguments) -> Storage:
    """Return a run directory with a prepared data set: one shard under as many names as it takes."""
    run = Storage.at(str(folder / "run"))
    write_shard_of(str(folder), _photographs(IMAGES_PER_SHARD))
    splits = {}
    for split, images in (("train", arguments.images), ("val", arguments.validation)):
        Path(run.path(f"{DATASET}/{split}")).mkdir(parents=True)
        shards = []
        for number, first in enumerate(range(0, images, IMAGES_PER_SHARD)):
            shards.append(Shard(f"{split}/{number:05d}.parquet", min(IMAGES_PER_SHARD, images - first), "0"))
            os.link(folder / "shard.parquet", run.path(f"{DATASET}/{shards[-1].file}"))
        splits[split] = Split(tuple(shards), dict.fromkeys(class_names(), images // CLASSES))
    run.write_json(MANIFEST, Manifest({}, tuple(class_names()), splits, "0", 0).to_dict())
    claim(run, "recipe", _recipe().to_dict())
    return run


def _loading(folder: Path, arguments: Arguments) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    run, recipe = _full_size_run(folder, arguments), _recipe()
    samples = TrainingSamples(open_records(run, read_manifest(run).splits["train"]), 224, recipe.sampling(0), 0)
    batches = training_batches(samples, recipe.batch_size, count())
    next(batches)
    before_mb, started = pss_mb(os.getpid()), (time.perf_counter(), time.process_time())
    for first in range(0, len(samples), IMAGES_PER_SHARD):
        samples.records.labelled_image(first)
    _say("one image of each shard", -(-len(samples) // IMAGES_PER_SHARD), *started)
    indexed_mb, started, loaded, checked_mb = pss_mb(os.getpid()), (time.perf_counter(), time.process_time()), 0, []
    while time.perf_counter() - started[0] < arguments.seconds:
        loaded += next(batches).num_images
        checked_mb.append(pss_mb(os.getpid()))
    _say("samples", loaded, *started)
    print(f"memory: {before_mb:.0f} MB after a batch, {indexed_mb:.0f} MB with all indexes of shards, then "
          f"{min(checked_mb):.0f} to {max(checked_mb):.0f} MB", flush=True)  # fmt: skip


class _Enough(Exception):  # noqa: N818  # not an error
    """The training has run for as long as it should."""


class _Clock:
    """Times of the replicas' first steps; ends the training some time after the last of them."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._started, self.first_steps = seconds, time.monotonic(), {}

    def on_poll(self, phases: dict[int, str]) -> None:
        """Note which replicas are training."""
        now = time.monotonic()
        for replica, phase in phases.items():
            if phase == "training":  # posted after a step
                self.first_steps.setdefault(replica, now - self._started)
        if len(self.first_steps) == REPLICAS and now - self._started - max(self.first_steps.values()) > self._seconds:
            raise _Enough

    def line(self) -> str:
        """Return the times."""
        times = sorted(self.first_steps.values())
        return f"first step of the first replica after {times[0]:.0f} s, of the last after {times[-1]:.0f} s"


def _training(folder: Path, arguments: Arguments) -> None:
    run = _full_size_run(folder, arguments)
    # All replicas at once on any machine: the network does next to nothing.
    resources = Resources(cpus_per_worker=0.2, checkpoint_minutes=0.25, parallel_replicas=REPLICAS)
    for name in ("started", "resumed"):
        before = _steps(run)
        clock = _Clock(arguments.seconds)
        with MemoryWatch(os.getpid()) as memory, connected(num_cpus=2), suppress(_Enough):
            train_replicas(run, _recipe(), resources, FP32, clock.on_poll)
        print(f"training {name}: {arguments.images:,} records, {REPLICAS} replicas; {clock.line()}")
        print(f"checkpoints of steps {before}, then {_steps(run)}, of {-(-arguments.images // 256)} in an epoch")
        print("\n".join(memory.lines()), flush=True)


def _steps(run: Storage) -> list[int]:
    return [newest_step(run.below(ReplicaFiles(replica).checkpoints)) for replica in range(REPLICAS)]


def _job(folder: Path, arguments: Arguments) -> None:
    data = folder / "imagenet"
    data.mkdir()
    write_archives(data, arguments.images, arguments.validation, _photographs(64))
    run = Storage.at(str(folder / "job"))
    options = {
        "recipe": "demo", "data": data, "run-dir": run.root, "crop-px": CROP_PX, "width": WIDTH, "epochs": 1,
        "replicas": REPLICAS, "training-precision": "fp32", "precision": "fp32", "models": "none",
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    started = time.perf_counter()
    job = subprocess.Popen([sys.executable, "pipelines/train_ensemble.py", *words, "--no-aux-heads"], cwd=ROOT)  # noqa: S603
    with MemoryWatch(job.pid) as memory:
        code = job.wait()
    if code:
        raise SystemExit(f"the job ended with exit code {code}")
    stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in stage_seconds(read_jobs(run)).items())
    print(f"job: {arguments.images:,} training and {arguments.validation:,} validation images, {REPLICAS} replicas")
    print(f"{time.perf_counter() - started:.0f} s: {stages}")
    print("\n".join(memory.lines()), flush=True)


def main(arguments: Arguments) -> None:
    """Run the stages and print their figures."""
    stages: dict[Stage, Callable[[Path, Arguments], None]] = {
        "listing": _listing, "preparing": _preparing, "loading": _loading, "training": _training, "job": _job,
    }  # fmt: skip
    for name in arguments.stages:
        with tempfile.TemporaryDirectory(dir=arguments.folder or None) as folder:
            stages[name](Path(folder), arguments)
    print_circumstances(1)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
