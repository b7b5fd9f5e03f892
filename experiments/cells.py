"""Cells of the paper's table pair by pair: one model or all of them, with each number of crops.

    python -m experiments.cells --run-dir RUN
    python -m experiments.cells --run-dir RUN/evaluations/NAME

The report compares each cell with one model and one crop. The paper orders other pairs, too: 144 crops before ten,
144 crops of one model before one crop of seven. All pairs are printed, by top-1 and by top-5 error, with the report's
intervals over images, and over images and replicas. One model is the mean over the replicas.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tyro

from benchmarks.measure import print_circumstances
from experiments.answers import Answers, read_answers
from experiments.intervals import Floats
from googlenet.evaluation.metrics import RESAMPLES, EnsembleTally, bootstrap_interval, percentile_bounds
from googlenet.evaluation.two_way import resampled_errors
from pipelines.run.storage import Storage

MEASURES = ("top-1", "top-5")


@dataclass(frozen=True)
class Arguments:
    """Compare the cells of the table of models x crops."""

    run_dir: str
    """Finished run directory of train_ensemble.py with three replicas or more, or that of an evaluation on other
    images (RUN/evaluations/NAME)."""


@dataclass(frozen=True)
class Cells:
    """Errors in percent by cell: one model with each policy, then all models.

    Attributes:
        names: of the M cells.
        by_image: (2, N, M), of each image, by top-1 and top-5.
        resampled: (2, R, M), means over images in each of R resamples of images and replicas.
    """

    names: Sequence[str]
    by_image: Floats
    resampled: Floats


def cells_of(answers: Answers) -> Cells:
    """Return the cells of a run of three replicas or more.

    Raises:
        ValueError: there are fewer.
    """
    replicas = answers.probabilities.shape[1]
    tally = EnsembleTally(replicas, len(answers.policies))
    tally.update(answers.probabilities, answers.labels)
    names = [f"{models} x {policy}" for models in (1, replicas) for policy in answers.policies]
    return Cells(names, _by_cell(tally.by_image()), _by_cell(resampled_errors(tally, 0, RESAMPLES)))


def _by_cell(errors: Floats) -> Floats:
    """Return the shares (N, S, P, 2) of one model and of all in percent, (2, N, 2 P)."""
    ends = 100 * errors[:, [0, -1]]
    by_cell: Floats = ends.reshape(len(ends), -1, len(MEASURES)).transpose(2, 0, 1)
    return by_cell


def print_pairs(cells: Cells) -> None:
    """Print the difference between each two cells, the one that is lower in the table minus the other."""
    pairs = list(itertools.combinations(range(len(cells.names)), 2))
    first, second = zip(*pairs, strict=True)
    for measure, by_image, resampled in zip(MEASURES, cells.by_image, cells.resampled, strict=True):
        means = by_image.mean(axis=0)
        print(f"\n{measure} error, %: " + ", ".join(f"{n} {m:.2f}" for n, m in zip(cells.names, means, strict=True)))
        print(f"\n| {measure} | percentage points (95 % interval over {len(by_image)} images) | with other replicas |")
        print("| --- | ---: | ---: |")
        values = by_image[:, second] - by_image[:, first]
        with_replicas = np.clip(percentile_bounds(resampled[:, second] - resampled[:, first]), -100, 100)
        bounds = [*bootstrap_interval(values), *with_replicas]
        for (a, b), mean, *interval in zip(pairs, values.mean(axis=0), *bounds, strict=True):
            low, high, low_wide, high_wide = (f"{bound:+.2f}" for bound in interval)
            row = [f"{cells.names[b]} against {cells.names[a]}", f"{mean:+.2f} ({low} to {high})"]
            print(f"| {' | '.join([*row, f'{low_wide} to {high_wide}'])} |")


def main(arguments: Arguments) -> None:
    """Print both tables."""
    print_pairs(cells_of(read_answers(Storage.at(arguments.run_dir))))
    print_circumstances(1, "run")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
