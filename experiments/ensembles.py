"""Comparison of ensembles: what replicas differ in, a wider replica, and one replica trained longer.

    python -m experiments.ensembles --runs-dir RUNS --seeds 0 100 200 300 400
    python -m experiments.ensembles --runs-dir RUNS --recipe experiments/imagenette_short.json --data IMAGENETTE
    python -m experiments.ensembles --runs-dir RUNS --recipe experiments/few_photographs.json --data PHOTOS

Each seed (of the embedded images, the initial weights and the sampling) has four runs of the main job:

- ``paper``: seven sampling seeds, the same initial weights;
- ``initialisations``: seven sampling seeds, seven initial weights, of which the first are those of ``paper``;
- ``wide``: one replica, half as wide again by default, with the sampling seed of the last one of ``paper``;
- ``long``: two replicas with the first two sampling seeds, or ``--long-replicas``, trained seven times as long.

``--compare`` chooses among the last three. Finished runs are not repeated, and those of other options are refused.
Differences are paired by image and seed. Intervals are bootstrap intervals over the images, which apply to the trained
networks only: over those of all seeds if each seed has its own, as the embedded ones, else over the means of the seeds.
With three or more seeds, there are also Student's t intervals over the seeds; with one, intervals over images and the
ensemble's replicas. In those, the long replicas and the wide one are taken as they are: one or two say nothing of
others. So the own error of the wide one has no such interval, and that of the ensemble with it draws the others.
"""

import itertools
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import tyro

from benchmarks.measure import print_circumstances
from experiments.answers import Answers, check_same_images, print_differences, print_table, read_answers
from experiments.intervals import Floats, over_images_and_replicas
from googlenet.evaluation.metrics import largest_without_one
from googlenet.evaluation.two_way import FEWEST_REPLICAS
from pipelines.data.sources import with_absolute_paths
from pipelines.errors import UserError
from pipelines.job.options import parse_options
from pipelines.run.claims import check_claim
from pipelines.run.directory import REPORT_JSON
from pipelines.run.named_recipes import load_recipe
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.tracking.recipe_option import recipe_of_options

ROOT = Path(__file__).parents[1]
MANY_EPOCHS = 10_000
# The width of the wide replica over that of the others.
WIDER = 1.5

# Runs beside ``paper``.
Compared = Literal["initialisations", "wide", "long"]


@dataclass(frozen=True)
class Arguments:
    """Train and compare ensembles."""

    runs_dir: Path
    """Folder for the run directories, four for each seed."""
    seeds: tuple[int, ...] = (0, 100, 200, 300, 400)
    """Seeds of the embedded images, the initial weights and the first replica's sampling."""
    recipe: str = "demo"
    """Name of a recipe, or its JSON file."""
    data: str = ""
    """Images, as --data of the main job; the default is the recipe's."""
    replicas: int = 7
    """Replicas of an ensemble."""
    wide_replica_width: float | None = None
    """Width of the wide replica; the default is 1.5 times the recipe's."""
    long_replicas: int = 2
    """Replicas that are trained longer."""
    compare: tuple[Compared, ...] = get_args(Compared)
    """Runs that are compared with the paper's setting."""


@dataclass(frozen=True)
class OptionsOfRun:
    """Options of the main job that the experiments give it: the fields of its recipe, and two more."""

    fields: Recipe
    recipe: str = ""
    """Name of a recipe, or its JSON file."""
    soup: bool = False
    """Also evaluate averages of the replicas' weights, which changes no recipe."""


def options_of(arguments: Arguments, seed: int) -> dict[str, list[str]]:
    """Return the options of the main job for each run of a seed."""
    recipe = load_recipe(arguments.recipe)
    epochs, width = arguments.replicas * recipe.epochs, wide_width(arguments, recipe)
    own = ["--data-seed", str(seed), "--weights-seed", str(seed)]
    first, last = ["--sampling-seed", str(seed)], ["--sampling-seed", str(seed + arguments.replicas - 1)]
    all_of_them = ["--replicas", str(arguments.replicas)]
    options = {
        "initialisations": [*own, *first, *all_of_them, "--no-shared-initial-weights"],
        "wide": [*own, *last, "--replicas", "1", "--wide-replica-width", str(width)],
        "long": [*own, *first, "--replicas", str(arguments.long_replicas), "--epochs", str(epochs)],
    }
    return {"paper": [*own, *first, *all_of_them], **{name: options[name] for name in arguments.compare}}


def wide_width(arguments: Arguments, recipe: Recipe) -> float:
    """Return the width of the wide replica.

    Raises:
        UserError: the one that was asked for is no wider than the others.
    """
    if arguments.wide_replica_width is None:
        return WIDER * recipe.width
    if arguments.wide_replica_width <= recipe.width:
        raise UserError(f"--wide-replica-width must be more than {recipe.width:g}, the width of the recipe")
    return arguments.wide_replica_width


def train(arguments: Arguments, seed: int) -> None:
    """Run the unfinished runs of ``seed``."""
    of_all = ["--recipe", arguments.recipe, *(["--data", arguments.data] if arguments.data else [])]
    for name, options in options_of(arguments, seed).items():
        train_once(_run_dir(arguments, name, seed), [*of_all, *options])


def train_once(run_dir: Path, options: Sequence[str]) -> None:
    """Run the main job in ``run_dir``, unless it is finished there.

    Raises:
        UserError: the finished run is of other options, to which its answers are none.
    """
    run = Storage.at(str(run_dir))
    if run.exists(REPORT_JSON):
        check_claim(run, "recipe", recipe_of(options).to_dict())
        return
    print(f"{run_dir}: {' '.join(options)}", flush=True)
    command = [sys.executable, "pipelines/train_ensemble.py", *options, "--run-dir", str(run_dir)]
    # The experiments read the predictions of the trained networks; what an epoch's validation says is not used.
    unused = ["--models", "none", "--validate-every-epochs", str(MANY_EPOCHS)]
    subprocess.run([*command, *unused], check=True, cwd=ROOT)  # noqa: S603


def recipe_of(options: Sequence[str]) -> Recipe:
    """Return the recipe that the main job takes from these options."""
    with chdir(ROOT):  # where the job runs
        recipe = recipe_of_options(options, OptionsOfRun.recipe)
        return with_absolute_paths(parse_options(OptionsOfRun, options, fields=recipe).fields)


def _run_dir(arguments: Arguments, name: str, seed: int) -> Path:
    return (arguments.runs_dir / f"{name}{seed}").resolve()


Ask = Callable[[Mapping[str, Answers]], Floats]
WIDE_ALONE, WIDE_WITH_OTHERS = "its own error", "error of the ensemble with it"
# By the run that is compared with ``paper``.
QUESTIONS: dict[Compared, dict[str, Ask]] = {
    "initialisations": {
        "error of the ensemble": lambda runs: _together(runs["initialisations"]) - _together(runs["paper"]),
        "mean error of one": lambda runs: runs["initialisations"].single_errors() - runs["paper"].single_errors(),
        "disagreement of two": lambda runs: runs["initialisations"].disagreement() - runs["paper"].disagreement(),
    },
    "wide": {
        WIDE_ALONE: lambda runs: runs["wide"].errors([0]) - runs["paper"].errors([-1]),
        WIDE_WITH_OTHERS: lambda runs: _with_wide(runs) - _together(runs["paper"]),
    },
    "long": {
        "against one replica": lambda runs: runs["long"].single_errors() - runs["paper"].single_errors(),
        "against the ensemble": lambda runs: runs["long"].single_errors() - _together(runs["paper"]),
    },
}
TITLES: dict[Compared, str] = {
    "initialisations": "initial weights of their own",
    "wide": "a wider last replica",
    "long": "one replica trained for all epochs of the ensemble",
}
# Runs whose replicas differ in their seeds: replica k of both has the same sampling seed.
OF_REPLICAS = {"paper", "initialisations"}


def _together(answers: Answers) -> Floats:
    return answers.errors(range(answers.probabilities.shape[1]))


def _with_wide(runs: Mapping[str, Answers]) -> Floats:
    paper, wide = runs["paper"].probabilities, runs["wide"].probabilities
    return runs["paper"].errors_of(np.concatenate([paper[:, :-1], wide[:, :1]], axis=1))


def questions_of(runs: Collection[str]) -> dict[str, Ask]:
    """Return the questions that these runs answer, by their whole title."""
    asked = {run: questions for run, questions in QUESTIONS.items() if run in runs}
    return {f"{TITLES[run]}: {title}": ask for run, questions in asked.items() for title, ask in questions.items()}


def print_errors(by_seed: dict[int, dict[str, Answers]]) -> None:
    """Print the errors of each run in percent: the mean of single replicas, and all together."""
    policies = next(iter(by_seed.values()))["paper"].policies
    print("\n| seed | run | " + " | ".join(f"alone, {p} | all, {p}" for p in policies) + " |")
    print("| ---: | --- |" + " ---: |" * 2 * len(policies))
    for seed, runs in by_seed.items():
        for name, answers in runs.items():
            together = answers.errors(range(answers.probabilities.shape[1])).mean(axis=0)
            alone = answers.single_errors().mean(axis=0)
            cells = " | ".join(f"{a:.1f} | {b:.1f}" for a, b in zip(alone, together, strict=True))
            print(f"| {seed} | {name} | {cells} |")


def print_over_replicas(runs: Mapping[str, Answers]) -> None:
    """Print the answers of one seed with intervals over images and replicas."""
    replicas = range(runs["paper"].probabilities.shape[1])
    rows: dict[str, dict[str, tuple[Floats, tuple[Floats, Floats]]]] = {}
    for title, ask in questions_of(runs).items():
        # The wide replica takes the place of the last one, so both stay where they are.
        drawn = replicas[:-1] if title.startswith(TITLES["wide"]) else replicas
        if not title.endswith(WIDE_ALONE) and len(drawn) >= FEWEST_REPLICAS:
            interval = over_images_and_replicas(ask(runs), without_each(runs, ask, drawn))
            over = f"the {len(runs['paper'].labels)} images and {len(drawn)} replicas"
            rows.setdefault(over, {})[title] = ask(runs), interval
    for over, of_these in rows.items():
        print_table(of_these, over, runs["paper"].policies)


def without_each(runs: Mapping[str, Answers], ask: Ask, drawn: Sequence[int]) -> Floats:
    """Return (K, N, P): the mean answer of those ensembles of about half the K replicas that lack each of them.

    The replicas that are not among the ``drawn`` are in every ensemble.
    """
    every = range(runs["paper"].probabilities.shape[1])
    answers = {}
    for members in itertools.combinations(drawn, largest_without_one(len(drawn))):
        present = sorted({*members, *set(every).difference(drawn)})
        answers[members] = ask({name: a.only(present) if name in OF_REPLICAS else a for name, a in runs.items()})
    return np.array([np.mean([a for members, a in answers.items() if k not in members], axis=0) for k in drawn])


def main(arguments: Arguments) -> None:
    """Run the unfinished runs and print the tables."""
    by_seed = {}
    for seed in arguments.seeds:
        train(arguments, seed)
        names = options_of(arguments, seed)
        by_seed[seed] = {name: read_answers(Storage.at(str(_run_dir(arguments, name, seed)))) for name in names}
        check_same_images(by_seed[seed])
    print_errors(by_seed)
    print_differences(by_seed, questions_of(arguments.compare), lambda runs: runs["paper"])
    if len(by_seed) == 1 and arguments.replicas >= FEWEST_REPLICAS:
        print_over_replicas(*by_seed.values())
    print_circumstances(len(by_seed), "seeds")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
