"""Error by number of crops, and by budget of forward passes spent on replicas or on crops.

    python -m experiments.views --run-dir RUN
    python -m experiments.views --run-dir RUN/evaluations/NAME

Uses the probabilities of single views that a finished run keeps of its validation images, or an evaluation of its own.
Views are taken in three orders: chosen greedily on four fifths of the images, by a hash of their ids, and measured on
the last fifth, in turn; at random, the mean of 20 orders; and the paper's own sets of 1, 10 and 144.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tyro

from benchmarks.measure import print_circumstances
from googlenet.evaluation.crops import CROP_POLICIES, Policy, views_of
from googlenet.evaluation.metrics import bootstrap_interval
from googlenet.evaluation.temperature import folds_of
from googlenet.evaluation.view_order import errors_along, greedy_order
from googlenet.randomness import numpy_generator
from pipelines.run.directory import PREDICTIONS
from pipelines.run.predictions import EvaluatedEnsemble, file_name, read_ensemble
from pipelines.run.storage import Storage
from pipelines.run.view_probabilities import ViewProbabilities, read_views

Floats = npt.NDArray[np.float64]

SHOWN_VIEWS = (1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 144)
FIRST_VIEWS = 6
RANDOM_ORDERS = 20


@dataclass(frozen=True)
class Arguments:
    """Compute the error by number of views and by forward passes."""

    run_dir: str
    """Finished run directory of train_ensemble.py, or that of an evaluation on other images (RUN/evaluations/NAME)."""


@dataclass(frozen=True)
class Curves:
    """Share of wrong answers (N, V) with the first 1, 2, ... views, by order of the views."""

    greedy: Floats
    random: Floats
    policies: dict[Policy, Floats]


def kept_views(run: Storage) -> tuple[ViewProbabilities, EvaluatedEnsemble]:
    """Return the probabilities of single views that a finished evaluation keeps, and its ensemble.

    Raises:
        ValueError: it keeps none.
    """
    predictions, first = run.below(PREDICTIONS), file_name(0)
    ensemble = read_ensemble(predictions, first) if predictions.exists(first) else None
    views = read_views(run, ensemble) if ensemble else None
    if ensemble is None or views is None:
        raise ValueError(
            f"{run} keeps no probabilities of single views; delete {run}/{PREDICTIONS} and evaluate it again, "
            "with 144 crops"
        )
    return views, ensemble


def curves(views: ViewProbabilities, crop_px: int, alone: bool) -> Curves:
    """Return the curves of single replicas (``alone``, their mean) or of the ensemble of all replicas."""
    probabilities = views.probabilities.astype(np.float64)
    if not alone:
        probabilities = probabilities.mean(axis=1, keepdims=True)
    at = {view: position for position, view in enumerate(views_of(CROP_POLICIES[-1], crop_px))}
    policies: dict[Policy, Floats] = {}
    for policy in CROP_POLICIES:
        members = np.array([at[view] for view in views_of(policy, crop_px)])
        policies[policy] = errors_along(probabilities, views.labels, members)[:, -1]
    generator = numpy_generator(0, "order")
    return Curves(
        held_out_errors(probabilities, views.labels, folds_of(views.image_ids)),
        random_errors(probabilities, views.labels, generator),
        policies,
    )


def held_out_errors(probabilities: Floats, labels: npt.NDArray[np.integer], folds: npt.NDArray[np.int64]) -> Floats:
    """Return (N, V) as in :func:`errors_along`, each image in the order chosen on the images of the other folds."""
    errors = np.empty((len(labels), probabilities.shape[2]))
    for fold in np.unique(folds):
        inside = folds == fold
        order = greedy_order(probabilities[~inside], labels[~inside])
        errors[inside] = errors_along(probabilities[inside], labels[inside], order)
    return errors


def random_errors(
    probabilities: Floats, labels: npt.NDArray[np.integer], generator: np.random.Generator, orders: int = RANDOM_ORDERS
) -> Floats:
    """Return (N, V): the mean over ``orders`` random orders."""
    drawn = [errors_along(probabilities, labels, generator.permutation(probabilities.shape[2])) for _ in range(orders)]
    mean: Floats = np.mean(drawn, axis=0)
    return mean


def percent(errors: Floats) -> str:
    """Return the mean over images (N,) with its 95 % interval."""
    low, high = bootstrap_interval(100 * errors[:, None])
    return f"{100 * errors.mean():.1f} ({low[0]:.1f} - {high[0]:.1f})"


def difference(errors: Floats, than: Floats) -> str:
    """Return the mean paired difference in percentage points with its 95 % interval."""
    low, high = bootstrap_interval(100 * (errors - than)[:, None])
    return f"{100 * (errors - than).mean():+.1f} ({low[0]:+.1f} to {high[0]:+.1f})"


def print_by_views(name: str, found: Curves) -> None:
    """Print the error by number of views, and the difference to all views."""
    last = found.greedy.shape[1]
    everything = found.greedy[:, -1]
    print(f"\n{name}: top-1 error in percent by number of views\n")
    print("| views | chosen order | against all views | random order | the paper's |\n" + "| ---: " * 5 + "|")
    for views in (v for v in SHOWN_VIEWS if v <= last):
        greedy, drawn = found.greedy[:, views - 1], found.random[:, views - 1]
        own = percent(found.policies[views]) if views in found.policies else ""
        print(f"| {views} | {percent(greedy)} | {difference(greedy, everything)} | {percent(drawn)} | {own} |")


def print_by_passes(replicas: int, alone: Curves, together: Curves) -> None:
    """Print the error when the same number of forward passes is spent on one replica or on all."""
    print(f"\nAt equal cost: 1 replica against {replicas}, top-1 error in percent, views in the chosen order\n")
    print(f"| forward passes | 1 replica | {replicas} replicas | difference |\n" + "| ---: " * 4 + "|")
    views = alone.greedy.shape[1]
    for each in (v for v in SHOWN_VIEWS if v * replicas <= views):
        one, all_of_them = alone.greedy[:, each * replicas - 1], together.greedy[:, each - 1]
        print(f"| {each * replicas} | {percent(one)} | {percent(all_of_them)} | {difference(all_of_them, one)} |")
    print(f"\n{replicas} replicas x 1 crop ({replicas} passes) against 1 replica x 144 crops (144 passes): ", end="")
    print(f"{percent(together.policies[1])} against {percent(alone.policies[144])}, ", end="")
    print(difference(together.policies[1], alone.policies[144]))


def print_first_views(views: ViewProbabilities, crop_px: int) -> None:
    """Print the first views of the order chosen on all images."""
    probabilities = views.probabilities.astype(np.float64).mean(axis=1, keepdims=True)
    order = greedy_order(probabilities, views.labels)[:FIRST_VIEWS]
    print(f"\nThe first {FIRST_VIEWS} views of all replicas, chosen on all images:")
    for view in (views_of(CROP_POLICIES[-1], crop_px)[position] for position in order):
        mirrored = ", mirrored" if view.mirrored else ""
        print(f"- {view.scale_px} px, {view.square} square, {view.kind.replace('_', ' ')}{mirrored}")


def main(arguments: Arguments) -> None:
    """Print the tables."""
    views, ensemble = kept_views(Storage.at(arguments.run_dir))
    number, replicas, *_ = views.probabilities.shape
    print(f"{number} images, {replicas} replicas, {ensemble.arithmetic}; 95 % bootstrap intervals over images")
    alone, together = (curves(views, ensemble.crop_px, alone=is_alone) for is_alone in (True, False))
    print_by_views(f"One replica (mean of {replicas})", alone)
    print_by_views(f"All {replicas} replicas", together)
    print_by_passes(replicas, alone, together)
    print_first_views(views, ensemble.crop_px)
    print_circumstances(1, "run")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
