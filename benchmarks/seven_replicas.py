"""Time for seven replicas as one job on Ray, including start-up, against one after the other without Ray.

    python -m benchmarks.seven_replicas

Without Ray: one process per replica, one at a time, with as many threads as cores. On Ray: a local cluster with one CPU
per core and a replica on each. Both train the same recipe from the same prepared images.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import tyro

from benchmarks.measure import print_circumstances
from googlenet.network.arithmetic import FP32
from pipelines.data.prepare import find_images, prepare
from pipelines.job.node_limits import node_limits
from pipelines.job.ray_session import connected
from pipelines.job.worker_process import KEEP_FREED_MEMORY
from pipelines.run.claims import claim
from pipelines.run.directory import MANIFEST, ReplicaFiles, read_recipe
from pipelines.run.named_recipes import load_recipe
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training.replica import train_replica
from pipelines.training.resources import Resources
from pipelines.training.scheduler import train_replicas
from pipelines.training.task import ReplicaTask


@dataclass(frozen=True)
class Arguments:
    """Compare a job on Ray with plain processes."""

    recipe: str = "demo"
    """Name of the recipe."""
    epochs: int = 30
    """Epochs; enough for ten minutes of work or more."""
    rounds: int = 1
    """Rounds."""
    cores: int = field(default_factory=lambda: node_limits().cpus)
    """Cores."""
    replica: int = -1
    """Train only this replica in --run-dir and exit; the plain processes use this."""
    run_dir: str = ""
    """Run directory of --replica."""


def _plainly(run: Storage, recipe: Recipe, cores: int) -> None:
    for replica in range(recipe.replicas):
        command = [sys.executable, "-m", "benchmarks.seven_replicas", "--replica", str(replica), "--run-dir", run.root]
        environment = {**os.environ, **KEEP_FREED_MEMORY, "OMP_NUM_THREADS": str(cores)}
        subprocess.run(command, check=True, env=environment)  # noqa: S603


def _on_ray(run: Storage, recipe: Recipe, cores: int) -> None:
    with connected(num_cpus=cores):
        failures = train_replicas(run, recipe, Resources(), FP32, lambda _: None)
    if failures:
        raise SystemExit(failures[0].traceback)


def main(arguments: Arguments) -> None:
    """Print seconds of both and their ratio."""
    if arguments.replica >= 0:
        run = Storage.at(arguments.run_dir)
        train_replica(ReplicaTask(run, read_recipe(run), arguments.replica))
        return
    recipe = replace(load_recipe(arguments.recipe), epochs=arguments.epochs)
    seconds: dict[str, list[float]] = {"plain processes": [], "on Ray": []}
    with tempfile.TemporaryDirectory() as folder:
        prepared = Storage.at(f"{folder}/prepared")
        with connected(num_cpus=arguments.cores):
            prepare(prepared, recipe, "stop", find_images(prepared, recipe))
        for number in range(arguments.rounds):
            ways = list(zip(seconds, (_plainly, _on_ray), strict=True))
            for name, train in ways[:: -1 if number % 2 else 1]:
                run = Storage.at(f"{folder}/{name.replace(' ', '_')}_{number}")
                shutil.copytree(Path(prepared.path(MANIFEST)).parent, run.path("dataset"))
                claim(run, "recipe", recipe.to_dict())
                started = time.perf_counter()
                train(run, recipe, arguments.cores)
                seconds[name].append(time.perf_counter() - started)
                assert all(run.exists(ReplicaFiles(k).weights) for k in range(recipe.replicas))  # noqa: S101
                print(f"{time.strftime('%H:%M:%S')} {name}: {seconds[name][-1]:.0f} s", flush=True)
    plain, on_ray = (statistics.median(values) for values in seconds.values())
    print(f"\n{recipe.replicas} replicas of {arguments.epochs} epochs ({recipe.name}), {arguments.cores} cores")
    print(f"plain processes {plain:.0f} s, on Ray {on_ray:.0f} s: x {on_ray / plain:.3f}")
    print_circumstances(arguments.rounds)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
