"""Comparison of ensembles: what replicas differ in, a wider replica, and one replica trained longer.

    python -m experiments.ensembles --runs-dir RUNS --seeds 0 100 200 300 400
    python -m experiments.ensembles --runs-dir RUNS --recipe experiments/imagenette_short.json --data IMAGENETTE
    python -m experiments.ensembles --runs-dir RUNS --recipe experiments/few_photographs.json --data PHOTOS

Each seed (of the embedded images, the initial weights and the sampling) has four runs of the main job:

- ``paper``: seven sampling seeds, the same initial weights;
- ``initialisations``: seven sampling seeds, seven initial weights;
- ``wide``: one replica, half as wide again by default, with the sampling seed of the paper's seventh;
- ``long``: two replicas with the first two sampling seeds, or ``--long-replicas``, trained seven times as long.

``--compare`` chooses among the last three. Finished runs are not repeated, and those of other options are refused.
Differences are paired by image and seed. Intervals are bootstrap intervals over the images, which apply to the trained
networks only: over those of all seeds if each seed has its own, as the embedded ones, else over the means of the seeds.
With three or more seeds, there are also Student's t intervals over the seeds; with one, intervals over images and the
ensemble's replicas. In those, the long replicas and the wide one are taken as they are: one or two say nothing of
others. So the own error of the wide one has no such interval, and that of the seven with it draws the six others.
"""

import itertools
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import chdir
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt
import tyro

from benchmarks.measure import print_circumstances
from experiments.intervals import Floats, Interval, over_images, over_images_and_replicas, over_seeds
from googlenet.evaluation.crops import Policy
from googlenet.evaluation.two_way import FEWEST_REPLICAS
from pipelines.data.sources import with_absolute_paths
from pipelines.errors import UserError
from pipelines.job.options import parse_options
from pipelines.run.claims import check_claim
from pipelines.run.directory import PREDICTIONS, REPORT_JSON
from pipelines.run.named_recipes import load_recipe
from pipelines.run.predictions import file_name, read_ensemble, read_predictions
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.tracking.recipe_option import recipe_of_options

ROOT = Path(__file__).parents[1]
MANY_EPOCHS = 10_000
# Two values say almost nothing about the spread.
LEAST_SEEDS = 3
# The width of the wide replica over that of the others.
WIDER = 1.5

T = TypeVar("T")
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


@dataclass(frozen=True)
class Answers:
    """Probabilities of a run's replicas by crop policy (N, K, P, C), labels (N,), and what both are of."""

    probabilities: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int32]
    policies: tuple[Policy, ...]
    dataset_digest: str

    def errors(self, members: Sequence[int]) -> Floats:
        """Return (N, P): 100 where the ensemble of ``members`` is wrong about an image, else 0."""
        return self.errors_of(self.probabilities[:, list(members)])

    def errors_of(self, probabilities: npt.NDArray[np.float32]) -> Floats:
        """Return (N, P): the same for the mean of any probabilities (N, K, P, C) of these images."""
        answers = probabilities.mean(axis=1, dtype=np.float64).argmax(axis=2)
        errors: Floats = 100.0 * (answers != self.labels[:, None])
        return errors

    def without(self, replica: int) -> "Answers":
        """Return the answers of the other replicas."""
        return replace(self, probabilities=np.delete(self.probabilities, replica, axis=1))

    def single_errors(self) -> Floats:
        """Return (N, P): the mean error of single replicas."""
        errors: Floats = np.mean([self.errors([k]) for k in range(self.probabilities.shape[1])], axis=0)
        return errors

    def disagreement(self) -> Floats:
        """Return (N, P): percentage of the pairs of replicas that answer an image differently."""
        answers = self.probabilities.argmax(axis=3)
        pairs = itertools.combinations(range(answers.shape[1]), 2)
        share: Floats = 100 * np.mean([answers[:, a] != answers[:, b] for a, b in pairs], axis=0)
        return share


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


def read_answers(run: Storage) -> Answers:
    """Return the predictions of a finished run for its validation images."""
    predictions = run.below(PREDICTIONS)
    ensemble = read_ensemble(predictions, file_name(0))
    if ensemble is None:
        raise ValueError(f"{run} has no predictions")
    rows = list(read_predictions(predictions, sorted(predictions.files("")), ensemble))
    probabilities, labels = (np.concatenate([getattr(r, name) for r in rows]) for name in ("probabilities", "labels"))
    return Answers(probabilities, labels, ensemble.policies, ensemble.dataset_digest)


WIDE_ALONE = "a wider seventh replica: its own error"
WIDE_WITH_OTHERS = "a wider seventh replica: error of the seven"
QUESTIONS: dict[str, Callable[[dict[str, Answers]], Floats]] = {
    "seven initialisations instead of one: error of the seven": lambda runs: (
        runs["initialisations"].errors(_all(runs)) - runs["paper"].errors(_all(runs))
    ),
    "seven initialisations instead of one: mean error of one": lambda runs: (
        runs["initialisations"].single_errors() - runs["paper"].single_errors()
    ),
    "seven initialisations instead of one: disagreement of two": lambda runs: (
        runs["initialisations"].disagreement() - runs["paper"].disagreement()
    ),
    WIDE_ALONE: lambda runs: runs["wide"].errors([0]) - runs["paper"].errors(_last(runs)),
    WIDE_WITH_OTHERS: lambda runs: (
        runs["paper"].errors_of(
            np.concatenate([runs["paper"].probabilities[:, :-1], runs["wide"].probabilities[:, :1]], axis=1)
        )
        - runs["paper"].errors(_all(runs))
    ),
    "one trained seven times longer: against one of the seven": lambda runs: (
        runs["long"].single_errors() - runs["paper"].single_errors()
    ),
    "one trained seven times longer: against the seven": lambda runs: (
        runs["long"].single_errors() - runs["paper"].errors(_all(runs))
    ),
}


# Runs whose replicas differ in their seeds: replica k of both has the same sampling seed.
OF_REPLICAS = {"paper", "initialisations"}


# Beginnings of the questions, and the run that each needs beside ``paper``.
NEEDED = {
    "seven initialisations instead of one": "initialisations", "a wider seventh replica": "wide",
    "one trained seven times longer": "long",
}  # fmt: skip


def _questions_of(runs: Collection[str]) -> dict[str, Callable[[dict[str, Answers]], Floats]]:
    return {question: ask for question, ask in QUESTIONS.items() if NEEDED[question.partition(":")[0]] in runs}


def _all(runs: dict[str, Answers]) -> range:
    return range(runs["paper"].probabilities.shape[1])


def _last(runs: dict[str, Answers]) -> list[int]:
    return [_all(runs)[-1]]


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


def print_over_replicas(runs: dict[str, Answers]) -> None:
    """Print the answers of one seed with intervals over images and replicas."""
    of_replicas = OF_REPLICAS & runs.keys()
    others = [{**runs, **{name: runs[name].without(k) for name in of_replicas}} for k in _all(runs)]
    rows = {}
    for question, ask in _questions_of(runs).items():
        if question != WIDE_ALONE:
            drawn = others[:-1] if question == WIDE_WITH_OTHERS else others
            rows[question] = ask(runs), over_images_and_replicas(ask(runs), np.array([ask(one) for one in drawn]))
    over = f"the {len(runs['paper'].labels)} images and the {len(others)} replicas"
    _print_table(rows, over, runs["paper"].policies)


def print_differences(
    by_seed: Mapping[int, T], questions: Mapping[str, Callable[[T], Floats]], answers_of: Callable[[T], Answers]
) -> None:
    """Print the answer to each question by crop policy, with intervals over images, and over three or more seeds.

    ``answers_of`` returns those of one run of a seed, all of whose runs have the same images and policies.
    """
    answers = [answers_of(runs) for runs in by_seed.values()]
    digests = [of_seed.dataset_digest for of_seed in answers]
    images = sum({of_seed.dataset_digest: len(of_seed.labels) for of_seed in answers}.values())
    intervals: dict[str, Interval] = {f"the {images} images": partial(over_images, digests=digests)}
    if len(by_seed) >= LEAST_SEEDS:
        intervals[f"the {len(by_seed)} seeds"] = over_seeds
    for over, interval in intervals.items():
        by_question = {question: [ask(runs) for runs in by_seed.values()] for question, ask in questions.items()}
        rows = {question: (np.concatenate(values), interval(values)) for question, values in by_question.items()}
        _print_table(rows, over, answers[0].policies)


def _print_table(
    rows: Mapping[str, tuple[Floats, tuple[Floats, Floats]]], over: str, policies: Sequence[Policy]
) -> None:
    """Print the mean of the values (N, P) of each row, with bounds."""
    print(f"\nDifferences in percentage points, mean (95 % interval over {over})\n")
    print("| | " + " | ".join("1 crop" if policy == 1 else f"{policy} crops" for policy in policies) + " |")
    print("| --- |" + " ---: |" * len(policies))
    for question, (values, (low, high)) in rows.items():
        cells = [f"{m:+.1f} ({a:+.1f} to {b:+.1f})" for m, a, b in zip(values.mean(axis=0), low, high, strict=True)]
        print(f"| {question} | " + " | ".join(cells) + " |")


def main(arguments: Arguments) -> None:
    """Run the unfinished runs and print the tables."""
    by_seed = {}
    for seed in arguments.seeds:
        train(arguments, seed)
        names = options_of(arguments, seed)
        by_seed[seed] = {name: read_answers(Storage.at(str(_run_dir(arguments, name, seed)))) for name in names}
    print_errors(by_seed)
    print_differences(by_seed, _questions_of(arguments.compare), lambda runs: runs["paper"])
    if len(by_seed) == 1 and arguments.replicas >= FEWEST_REPLICAS:
        print_over_replicas(*by_seed.values())
    print_circumstances(len(by_seed))


if __name__ == "__main__":
    main(tyro.cli(Arguments))
