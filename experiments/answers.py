"""Answers of finished runs, and differences between them as tables."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from experiments.intervals import Floats, Interval, over_images, over_seeds
from googlenet.evaluation.crops import Policy
from pipelines.errors import UserError
from pipelines.run.directory import PREDICTIONS
from pipelines.run.predictions import file_name, read_ensemble, read_predictions
from pipelines.run.storage import Storage

# Two values say almost nothing about the spread.
LEAST_SEEDS = 3

T = TypeVar("T")


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

    def only(self, members: Sequence[int]) -> "Answers":
        """Return the answers of some replicas."""
        return replace(self, probabilities=self.probabilities[:, list(members)])

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


def read_answers(run: Storage) -> Answers:
    """Return the predictions of a finished run, or of one of its evaluations, for labelled images.

    Raises:
        UserError: there are none, or the images have no labels.
    """
    predictions, first = run.below(PREDICTIONS), file_name(0)
    ensemble = read_ensemble(predictions, first) if predictions.exists(first) else None
    if ensemble is None:
        raise UserError(f"{run} has no predictions: give a finished run of train_ensemble.py or evaluate_ensemble.py")
    rows = list(read_predictions(predictions, sorted(predictions.files("")), ensemble))
    probabilities, labels = (np.concatenate([getattr(r, name) for r in rows]) for name in ("probabilities", "labels"))
    if (labels < 0).any():
        raise UserError(f"{run} has images without labels, on which no error can be counted: evaluate labelled ones")
    return Answers(probabilities, labels, ensemble.policies, ensemble.dataset_digest)


def check_same_images(runs: Mapping[str, Answers]) -> None:
    """Refuse runs of different images: no image of one is an image of another, so nothing is paired.

    Raises:
        UserError: they have different images.
    """
    if len({answers.dataset_digest for answers in runs.values()}) > 1:
        raise UserError(f"the runs {', '.join(runs)} are of different images: choose another --runs-dir for these")


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
        print_table(rows, over, answers[0].policies)


def print_table(
    rows: Mapping[str, tuple[Floats, tuple[Floats, Floats]]], over: str, policies: Sequence[Policy]
) -> None:
    """Print the mean of the values (N, P) of each row, with bounds."""
    print(f"\nDifferences in percentage points, mean (95 % interval over {over})\n")
    print("| | " + " | ".join("1 crop" if policy == 1 else f"{policy} crops" for policy in policies) + " |")
    print("| --- |" + " ---: |" * len(policies))
    for question, (values, (low, high)) in rows.items():
        cells = [f"{m:+.1f} ({a:+.1f} to {b:+.1f})" for m, a, b in zip(values.mean(axis=0), low, high, strict=True)]
        print(f"| {question} | " + " | ".join(cells) + " |")
