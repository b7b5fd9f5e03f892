"""Short trainings of one replica: which settings learn fastest, and whether a network starts to learn at all.

    python pipelines/prepare_dataset.py --data IMAGENETTE/train --val-percent 20 --run-dir PREPARED
    python -m experiments.short_runs --prepared PREPARED --work FOLDER --trials TRIALS.json --seeds 0 1 2 3

Settings are tuned on a split of the training images, never on the images that judge them: prepare the folder of the
training images alone. ``TRIALS.json`` holds the fields of a recipe that each trial changes, by its label:
``{"he": {"initialisation": "he"}, "xavier": {}}``. A trial is trained once for each seed of weights and sampling, in a
process with one thread, and in fp32 unless its ``training_precision`` says otherwise. Finished trials are not repeated,
and interrupted ones resume.

The table has, by trial, the mean error on the images held out and that of each seed, and for every classifier in how
many of the trainings it started to learn, after how many steps, and its loss at the end. Errors and losses are those of
the trainings that came to their end, and the row says how many did not; their classifiers do not count as started.
"""

import json
import math
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median
from typing import Any

import tyro

from benchmarks.measure import print_circumstances
from googlenet.network.arithmetic import Arithmetic
from pipelines.errors import UserError
from pipelines.run.claims import claim
from pipelines.run.dataset import read_manifest
from pipelines.run.directory import DATASET, ReplicaFiles
from pipelines.run.json_lines import read_metrics, read_steps
from pipelines.run.named_recipes import load_recipe
from pipelines.run.recipe import Recipe
from pipelines.run.recipe_json import recipe_from_dict
from pipelines.run.storage import Storage

# A classifier has started once the median loss of so many lines of the step log in a row is this share of guessing.
STARTED_SHARE = 0.95
STARTED_LINES = 10
CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True)
class Arguments:
    """Train one replica for each trial and seed, and print a table."""

    prepared: Path
    """Run directory of prepare_dataset.py."""
    work: Path
    """Folder for the trials' run directories."""
    trials: Path
    """JSON file: recipe fields that each trial changes, by label."""
    recipe: str = "imagenette"
    """Recipe that the trials change: a name, or a JSON file."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the initial weights and of the sampling."""
    processes: int = 2
    """Trials at the same time, with one thread each."""


@dataclass(frozen=True)
class Trial:
    """One training."""

    label: str
    seed: int
    recipe: Recipe
    folder: Path

    @property
    def run(self) -> Storage:
        """Run directory of the trial."""
        return Storage.at(str(self.folder))


def trials_of(arguments: Arguments) -> list[Trial]:
    """Return the trials in the order in which they are trained: all labels of a seed before the next seed."""
    changes: dict[str, dict[str, Any]] = json.loads(arguments.trials.read_text())
    base = load_recipe(arguments.recipe).to_dict()
    found = []
    for seed in arguments.seeds:
        for label, fields in changes.items():
            recipe = replace(recipe_from_dict({**base, **fields}), replicas=1, weights_seed=seed, sampling_seed=seed)
            found.append(Trial(label, seed, recipe, (arguments.work / f"{label}_{seed}").resolve()))
    return found


def claim_folder(trial: Trial, prepared: Path) -> None:
    """Take a trial's folder for its settings and for the prepared images.

    Raises:
        UserError: the folder holds a trial with other settings, or of other images.
    """
    claim(trial.run, "recipe", trial.recipe.to_dict())
    dataset, images = trial.folder / DATASET, (prepared / DATASET).resolve()
    if not (dataset.is_symlink() or dataset.exists()):
        dataset.symlink_to(images, target_is_directory=True)
    elif dataset.resolve() != images:
        raise UserError(f"{trial.folder} was trained on {dataset.resolve()}; choose another --work, or that --prepared")


def train(trial: Trial) -> None:
    """Train a trial to its end, from its newest checkpoint."""
    import torch

    from pipelines.training.replica import train_replica
    from pipelines.training.scaled_weights import keep_scaled_weights
    from pipelines.training.task import ReplicaTask

    # The training takes as many threads as this says.
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    asked = trial.recipe.training_precision
    task = ReplicaTask(trial.run, trial.recipe, 0, CHECKPOINT_SECONDS, Arithmetic("fp32" if asked == "auto" else asked))
    keep_scaled_weights(trial.run, trial.recipe, read_manifest(trial.run))
    train_replica(task)


def started_step(steps: list[dict[str, Any]], name: str, num_classes: int) -> int | None:
    """Return the step from which on classifier ``name`` learns; None if it does not."""
    losses = [line[name] for line in steps]
    for first in range(len(losses) - STARTED_LINES + 1):
        if median(losses[first : first + STARTED_LINES]) < STARTED_SHARE * math.log(num_classes):
            return int(steps[first]["step"])
    return None


def row(label: str, trials: list[Trial], seeds: int) -> str:
    """Return the row of a label in the table: its finished trials, of as many as there are seeds."""
    logs = [read_steps(trial.run, 0, after=0) for trial in trials]
    ends = [read_metrics(trial.run, 0)[-1] for trial in trials]
    errors, cells = [end["val_top1_error"] for end in ends], []
    classes = len(read_manifest(trials[0].run).classes)
    for name in sorted(name for name in logs[0][0] if name.startswith("step/loss_")):
        started = [started_step(log, name, classes) for log in logs]
        those = [step for step in started if step is not None]
        final = mean(end[name.replace("step/", "train_")] for end in ends)
        when = f" after {min(those)}-{max(those)}" if those else ""
        cells.append(f"{name.removeprefix('step/loss_')}: {len(those)} of {seeds}{when}, ends at {final:.2f}")
    each = f" ({', '.join(f'{error:.1f}' for error in errors)})" if len(errors) > 1 else ""
    unfinished = f", {seeds - len(errors)} of {seeds} unfinished" if len(errors) < seeds else ""
    return f"| {label} | {mean(errors):.1f}{each}{unfinished} | " + " | ".join(cells) + " |"


def main(arguments: Arguments) -> None:
    """Train the unfinished trials and print the table of all.

    Raises:
        UserError: a folder holds a trial with other settings, or of other images.
    """
    trials = trials_of(arguments)
    for trial in trials:
        claim_folder(trial, arguments.prepared)
    unfinished = [trial for trial in trials if not trial.run.exists(ReplicaFiles(0).weights)]
    server = get_context("forkserver")
    server.set_forkserver_preload(["pipelines.training.replica"])  # imported once, not by each process
    with ProcessPoolExecutor(arguments.processes, mp_context=server) as pool:
        for trial, future in [(trial, pool.submit(train, trial)) for trial in unfinished]:
            try:
                future.result()
            except ArithmeticError as error:  # diverged, which is a result
                print(f"{trial.label}, seed {trial.seed}: {error}", flush=True)
    print("| trial | top-1 error, % | classifiers that started |\n| --- | ---: | --- |")
    for label in dict.fromkeys(trial.label for trial in trials):
        finished = [t for t in trials if t.label == label and len(read_metrics(t.run, 0)) == t.recipe.epochs]
        told = row(label, finished, len(arguments.seeds)) if finished else f"| {label} | none finished | |"
        print(told, flush=True)
    print_circumstances(len(arguments.seeds), "seeds")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
