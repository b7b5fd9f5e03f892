"""Spread of a recipe's errors over seeds of everything, on the embedded data set.

    python -m experiments.calm_demo --work FOLDER --seeds 0 1 2 3 4
    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 python -m experiments.calm_demo --work OTHER --seeds 0 1 2 3 4

The second command computes as processors without AVX-512 do (on those, ``ONEDNN_MAX_CPU_ISA=AVX`` computes as older
ones): its sums end in other digits, and a training that is stopped on its steepest part ends elsewhere. A seed is that
of the images, of the initial weights and of the first replica's sampling. Networks, samples and crops are those of the
main job; each replica is trained in a process with one thread. Finished replicas are not trained again; after a change
of the data set, choose another folder.

Replicas of neighbouring seeds share sampling seeds: they differ in their images and in their initial weights.

The table has, by seed, the top-1 errors in percent of one model (the mean of all) and of all models with each crop
policy, those of the replicas with the first policy, and how far the farthest one is from their mean, as a share of it.
"""

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tyro

from benchmarks.measure import print_circumstances
from experiments.ensembles import ROOT
from experiments.short_runs import Trial, claim_folder, train
from pipelines.run.dataset import open_records, read_manifest
from pipelines.run.directory import MANIFEST, ReplicaFiles
from pipelines.run.json_lines import read_metrics
from pipelines.run.named_recipes import load_recipe

WEIGHTS = ReplicaFiles(0).weights


@dataclass(frozen=True)
class Arguments:
    """Train and evaluate a recipe of the embedded data set with several seeds."""

    work: Path
    """Folder for the images and the trainings."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds of the images, the initial weights and the first replica's sampling."""
    recipe: str = "demo"
    """Name of a recipe, or its JSON file."""
    processes: int = 2
    """Replicas, and afterwards seeds, at the same time, with one thread each."""


@dataclass(frozen=True)
class Errors:
    """Top-1 errors of a seed in percent.

    Attributes:
        single: (K, P) of each replica with each crop policy.
        together: (P,) of all replicas.
    """

    single: npt.NDArray[np.float64]
    together: npt.NDArray[np.float64]

    @property
    def farthest(self) -> float:
        """Largest distance of a replica from the mean of all with the first policy, as a percentage of this mean."""
        errors = self.single[:, 0]
        return float(100 * np.abs(errors - errors.mean()).max() / errors.mean())

    @property
    def keeps_order(self) -> bool:
        """Whether more models help with each policy, and each further policy helps one model."""
        one = self.single.mean(axis=0)
        return bool((self.together < one).all() and (np.diff(one) < 0).all())

    @property
    def above_lowest(self) -> float:
        """Points by which all models with the last policy err more often than the best cell of the table."""
        return float(self.together[-1] - min(self.together.min(), self.single.mean(axis=0).min()))


def images_of(arguments: Arguments, seed: int) -> Path:
    """Return the run directory of the images of a seed."""
    return (arguments.work / f"images_{seed}").resolve()


def prepare(arguments: Arguments, seed: int) -> None:
    """Prepare the images of a seed, unless they are there."""
    if not (images_of(arguments, seed) / MANIFEST).exists():
        command = [sys.executable, "pipelines/prepare_dataset.py", "--data", "embedded", "--data-seed", str(seed)]
        subprocess.run([*command, "--run-dir", str(images_of(arguments, seed))], check=True, cwd=ROOT)  # noqa: S603


def trials_of(arguments: Arguments, seed: int) -> list[Trial]:
    """Return the replicas of a seed."""
    recipe = replace(load_recipe(arguments.recipe), replicas=1, data_seed=seed, weights_seed=seed)
    number = load_recipe(arguments.recipe).replicas
    names = [f"seed{seed}_replica{replica}" for replica in range(number)]
    return [
        Trial(name, seed, replace(recipe, sampling_seed=seed + replica), (arguments.work / name).resolve())
        for replica, name in enumerate(names)
    ]


def evaluate(trials: Sequence[Trial]) -> Errors:
    """Predict the validation images by the trained replicas of a seed, in a process with one thread."""
    import torch

    from googlenet.evaluation.crops import views_of_all
    from googlenet.evaluation.predictor import Predictor
    from googlenet.images.scaled_image import ScaledImage
    from pipelines.evaluation.sharded_prediction import load_replicas

    torch.set_num_threads(1)
    recipe, run = trials[0].recipe, trials[0].run
    networks = [network for trial in trials for network in load_replicas(trial.run, [WEIGHTS])]
    predictor = Predictor(networks, recipe.crop_px, recipe.policies)
    scales_px = sorted({view.scale_px for view in views_of_all(recipe.policies, recipe.crop_px)})
    records = open_records(run, read_manifest(run).splits["val"])
    labels = np.array([records[index].label for index in range(len(records))])
    images = (ScaledImage.decode(records[index].image, scales_px) for index in range(len(records)))
    probabilities = np.stack([predictor.predict(image).probabilities for image in images])
    together = probabilities.mean(axis=1, dtype=np.float64).argmax(axis=2) != labels[:, None]
    single = probabilities.argmax(axis=3) != labels[:, None, None]
    return Errors(100 * single.mean(axis=0), 100 * together.mean(axis=0))


def row(seed: int, errors: Errors) -> str:
    """Return the row of a seed in the table."""
    one = errors.single[:, 0]
    cells = [*errors.single.mean(axis=0), *errors.together]
    numbers = " | ".join(f"{cell:.2f}" for cell in cells)
    return f"| {seed} | {numbers} | {one.min():.1f} - {one.max():.1f} | {errors.farthest:.0f} % |"


def print_table(found: dict[int, Errors], recipe_name: str) -> None:
    """Print the table, and in how many seeds the paper's orders hold."""
    recipe = load_recipe(recipe_name)
    models = [f"{number} x {policy}" for number in (1, recipe.replicas) for policy in recipe.policies]
    print(f"| seed | {' | '.join(models)} | replicas | farthest from their mean |")
    print(f"|{' ---: |' * (len(models) + 3)}")
    for seed, errors in found.items():
        print(row(seed, errors))
    of_all, number = list(found.values()), len(found)
    print(f"\nreplicas within a third of their mean: {sum(e.farthest <= 100 / 3 for e in of_all)} of {number}")
    ordered = sum(errors.keeps_order for errors in of_all)
    print(f"more models help with every policy, and every further policy helps one model: {ordered} of {number}")
    near = sum(e.above_lowest <= 0.5 + 1e-9 for e in of_all)
    print(f"{models[-1]} has the lowest error of the table or is within 0.5 points of it: {near} of {number}")


def main(arguments: Arguments) -> None:
    """Train what is unfinished, evaluate all seeds, and print the table.

    Raises:
        UserError: a folder holds a training with other settings, or of other images.
    """
    by_seed = {seed: trials_of(arguments, seed) for seed in arguments.seeds}
    for seed, trials in by_seed.items():
        prepare(arguments, seed)
        for trial in trials:
            claim_folder(trial, images_of(arguments, seed))
    unfinished = [t for trials in by_seed.values() for t in trials if not t.run.exists(WEIGHTS)]
    server = get_context("forkserver")
    server.set_forkserver_preload(["pipelines.training.replica"])  # imported once, not by each process
    with ProcessPoolExecutor(arguments.processes, mp_context=server) as pool:
        for trial, _ in zip(unfinished, pool.map(train, unfinished), strict=True):
            error = read_metrics(trial.run, 0)[-1]["val_top1_error"]
            print(f"{trial.label}: {error:.1f} %", flush=True)
        found = dict(zip(by_seed, pool.map(evaluate, by_seed.values()), strict=True))
    print_table(found, arguments.recipe)
    print_circumstances(len(by_seed), "seeds")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
