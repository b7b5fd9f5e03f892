"""Overhead of a replica's trainer: seconds before and after the training function.

    python -m benchmarks.trainer_start

A trained replica's weights are deleted before each round. Its newest checkpoint is of its last step, so the training
function only writes the weights again.
"""

import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from benchmarks.measure import print_circumstances
from googlenet.network.arithmetic import FP32
from pipelines.data.prepare import find_images, prepare
from pipelines.job.ray_session import connected
from pipelines.run.claims import claim
from pipelines.run.directory import ReplicaFiles
from pipelines.run.named_recipes import demo
from pipelines.run.storage import Storage
from pipelines.training.resources import Resources
from pipelines.training.scheduler import train_replicas


@dataclass(frozen=True)
class Arguments:
    """Measure the start and the end of a trainer."""

    rounds: int = 5
    """Rounds, one after the other; an extra one warms up."""


def main(arguments: Arguments) -> None:
    """Print seconds until the weights are written, and from then to the trainer's end."""
    with tempfile.TemporaryDirectory() as folder, connected(num_cpus=2):
        run = Storage.at(f"{folder}/run")
        recipe = replace(demo(), crop_px=35, width=0.125, epochs=1, replicas=1, images_per_shard=4000)
        prepare(run, recipe, "stop", find_images(run, recipe))
        claim(run, "recipe", recipe.to_dict())
        begun, ended = [], []
        for _ in range(arguments.rounds + 1):
            started = time.time()
            if train_replicas(run, recipe, Resources(), FP32, lambda _: None):
                raise SystemExit("the replica failed")
            written = Path(run.path(ReplicaFiles(0).weights)).stat().st_mtime
            begun.append(written - started)
            ended.append(time.time() - written)
            run.delete(ReplicaFiles(0).weights)
    for name, seconds in (("until the weights are written", begun), ("from then until the trainer has ended", ended)):
        kept = seconds[1:]
        print(f"{name}: {statistics.median(kept):.1f} s ({min(kept):.1f} - {max(kept):.1f})")
    print_circumstances(arguments.rounds)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
