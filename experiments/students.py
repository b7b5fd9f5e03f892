"""One network: a student of seven replicas, and the average of their weights, against a replica trained from labels.

    python -m experiments.students --runs-dir RUNS --seeds 0 100 200 --recipe demo
    python -m experiments.students --runs-dir RUNS --seeds 0 100 200 --recipe imagenette --data torchvision:Imagenette

Each seed (of the embedded images, the initial weights and the sampling) has three runs of the main job:

- ``teacher``: an ensemble, evaluated with its soups;
- ``student``: one network that learns the teacher's averaged answers, for as many epochs as one of the replicas;
- ``labels``: one network from labels alone, trained for the student's epochs and for those that the teacher's answers
  cost: an epoch is three forward passes of each training image, an answer one for each replica and view.

The teacher's single replicas are the networks that are trained from labels for as many epochs as the student. Finished
runs are not repeated, those of other options are refused, and interrupted ones resume. Differences are paired by image
and seed, as in ``ensembles``.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from benchmarks.measure import print_circumstances
from experiments.answers import Answers, check_same_images, print_differences, read_answers
from experiments.ensembles import train_once
from experiments.intervals import Floats
from googlenet.evaluation.crops import Policy, is_chosen, num_views
from pipelines.errors import UserError
from pipelines.report.outcomes import read_outcomes, soup_cell
from pipelines.run.named_recipes import load_recipe
from pipelines.run.storage import Storage

# Forward and backward, in forward passes.
PASSES_OF_A_STEP = 3
RUNS = ("teacher", "student", "labels")
SOUPS = ("uniform", "greedy")


@dataclass(frozen=True)
class Arguments:
    """Train teachers, their students and networks from labels, and compare them."""

    runs_dir: Path
    """Folder for the run directories, three for each seed."""
    seeds: tuple[int, ...] = (0, 100, 200)
    """Seeds of the embedded images, the initial weights and the first replica's sampling."""
    recipe: str = "demo"
    """Recipe of the teacher: a name, or a JSON file."""
    data: str = ""
    """Images, as --data of the main job; the default is the recipe's."""
    replicas: int = 7
    """Replicas of the teacher."""
    teacher_policy: str = "10"
    """Crop policy of the teacher's answers."""
    temperature: float = 2.0
    """Temperature of the student's loss."""
    label_weight: float = 0.5
    """Share of the labels in the student's loss."""


def epochs_of_labels(arguments: Arguments) -> int:
    """Return the epochs of the network that is trained from labels for the time of student and answers together."""
    policy = arguments.teacher_policy
    # The views that best:24 stands for are not known before the teacher is finished; their number is.
    views = int(policy.split(":")[1]) if is_chosen(policy) else num_views(int(policy) if policy.isdigit() else policy)
    return load_recipe(arguments.recipe).epochs + math.ceil(arguments.replicas * views / PASSES_OF_A_STEP)


def options_of(arguments: Arguments, seed: int) -> dict[str, list[str]]:
    """Return the options of the main job for each run of a seed."""
    seeds = ["--data-seed", str(seed), "--weights-seed", str(seed), "--sampling-seed", str(seed)]
    own = ["--recipe", arguments.recipe, *seeds, *(["--data", arguments.data] if arguments.data else [])]
    student = ["--recipe", "distil", "--teacher", str(run_dir(arguments, "teacher", seed))]
    student += ["--teacher-policy", arguments.teacher_policy, "--teacher-temperature", str(arguments.temperature)]
    return {
        "teacher": [*own, "--replicas", str(arguments.replicas), "--soup"],
        "student": [*student, "--label-weight", str(arguments.label_weight)],
        "labels": [*own, "--replicas", "1", "--epochs", str(epochs_of_labels(arguments))],
    }


def run_dir(arguments: Arguments, name: str, seed: int) -> Path:
    """Return the run directory of a run of a seed."""
    return (arguments.runs_dir / f"{name}{seed}").resolve()


def train(arguments: Arguments, seed: int) -> None:
    """Run the unfinished runs of ``seed``, the teacher first."""
    for name, options in options_of(arguments, seed).items():
        train_once(run_dir(arguments, name, seed), options)


@dataclass(frozen=True)
class Seed:
    """What the runs of a seed answered: (N, P) errors of each image in percent, by crop policy."""

    teacher: Answers
    student: Answers
    labels: Answers
    soups: dict[str, Floats]


def read_seed(arguments: Arguments, seed: int) -> Seed:
    """Return the answers of the finished runs of ``seed``."""
    runs = {name: Storage.at(str(run_dir(arguments, name, seed))) for name in RUNS}
    answers = {name: read_answers(run) for name, run in runs.items()}
    check_same_images(answers)
    return Seed(**answers, soups=_soups(runs["teacher"], answers["teacher"].policies))


def _soups(run: Storage, policies: Sequence[Policy]) -> dict[str, Floats]:
    """Return the errors (N, P) of the soups, in the order of the predictions, as the report keeps them by image.

    Raises:
        UserError: the run was evaluated without soups.
    """
    outcomes = read_outcomes(run)
    columns = {kind: [f"top1_wrong/{soup_cell(kind, str(policy))}" for policy in policies] for kind in SOUPS}
    if not {name for names in columns.values() for name in names} <= outcomes.keys():
        raise UserError(f"{run} has no soups: python pipelines/evaluate_ensemble.py --run-dir {run} --soup")
    return {kind: 100.0 * np.stack([outcomes[name] for name in names], axis=1) for kind, names in columns.items()}


QUESTIONS: dict[str, Callable[[Seed], Floats]] = {
    "student against one replica of as many epochs": lambda s: s.student.errors([0]) - s.teacher.single_errors(),
    "student against one network from labels in the same time": lambda s: s.student.errors([0]) - s.labels.errors([0]),
    "student against its teacher": lambda s: s.student.errors([0]) - s.teacher.errors(_all(s)),
    "uniform soup against one replica": lambda s: s.soups["uniform"] - s.teacher.single_errors(),
    "greedy soup against one replica": lambda s: s.soups["greedy"] - s.teacher.single_errors(),
}
ERRORS: dict[str, Callable[[Seed], Floats]] = {
    "one replica of the teacher": lambda s: s.teacher.single_errors(),
    "teacher": lambda s: s.teacher.errors(_all(s)),
    "student": lambda s: s.student.errors([0]),
    "from labels, same time": lambda s: s.labels.errors([0]),
    "uniform soup": lambda s: s.soups["uniform"],
    "greedy soup": lambda s: s.soups["greedy"],
}


def _all(seed: Seed) -> range:
    return range(seed.teacher.probabilities.shape[1])


def print_errors(by_seed: dict[int, Seed]) -> None:
    """Print the top-1 error of each network, in percent: the mean over the seeds, and that of each seed."""
    policies = next(iter(by_seed.values())).teacher.policies
    print(
        "\n| top-1 error, % | "
        + " | ".join("1 crop" if policy == 1 else f"{policy} crops" for policy in policies)
        + " |"
    )
    print("| --- |" + " ---: |" * len(policies))
    for name, errors in ERRORS.items():
        means = np.array([errors(seed).mean(axis=0) for seed in by_seed.values()])
        each = [", ".join(f"{value:.1f}" for value in column) for column in means.T]
        cells = [f"{mean:.1f} ({column})" for mean, column in zip(means.mean(axis=0), each, strict=True)]
        print(f"| {name} | " + " | ".join(cells) + " |")


def main(arguments: Arguments) -> None:
    """Run the unfinished runs and print the tables."""
    by_seed = {}
    for seed in arguments.seeds:
        train(arguments, seed)
        by_seed[seed] = read_seed(arguments, seed)
    print_errors(by_seed)
    print_differences(by_seed, QUESTIONS, lambda seed: seed.teacher)
    print_circumstances(len(by_seed), "seeds")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
