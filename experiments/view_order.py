"""The order in which test views help most, chosen on some images and measured on others.

Probabilities are arrays (N, R, V, C): N images, R classifiers that answer on their own, V views, C classes.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.integer]
Order = npt.NDArray[np.int64]

FOLDS = 5
LEAST_PROBABILITY = float(np.finfo(np.float32).tiny)


def errors_along(probabilities: Floats, labels: Labels, order: Order) -> Floats:
    """Return (N, V): share of classifiers wrong about each image with the first 1, 2, ... views of ``order``."""
    sums = np.cumsum(probabilities[:, :, order], axis=2)
    wrong: Floats = (sums.argmax(axis=3) != labels[:, None, None]).mean(axis=1)
    return wrong


def greedy_order(probabilities: Floats, labels: Labels) -> Order:
    """Return a greedy order: each next view is the one with which the average has the lowest error.

    Ties go to the view with the highest log-likelihood of the true classes.
    """
    images, classifiers, views, classes = probabilities.shape
    total = np.zeros((images, classifiers, 1, classes))
    order: list[int] = []
    left = np.arange(views)
    while len(left):
        candidates = total + probabilities[:, :, left]
        error = (candidates.argmax(axis=3) != labels[:, None, None]).mean(axis=(0, 1))
        true = np.take_along_axis(candidates, labels[:, None, None, None], axis=3)[..., 0]
        likelihood = np.log(np.maximum(true, LEAST_PROBABILITY)).mean(axis=(0, 1))
        best = int(np.lexsort((-likelihood, error))[0])
        total = candidates[:, :, best : best + 1]
        order.append(int(left[best]))
        left = np.delete(left, best)
    return np.array(order)


def held_out_errors(probabilities: Floats, labels: Labels, folds: int = FOLDS) -> Floats:
    """Return (N, V) as in :func:`errors_along`, each image in the order chosen on the images of the other folds.

    Every ``folds``-th image is in the same fold, so that images sorted by class are spread evenly.
    """
    errors = np.empty((len(labels), probabilities.shape[2]))
    fold = np.arange(len(labels)) % folds
    for number in range(folds):
        order = greedy_order(probabilities[fold != number], labels[fold != number])
        errors[fold == number] = errors_along(probabilities[fold == number], labels[fold == number], order)
    return errors


def random_errors(probabilities: Floats, labels: Labels, generator: np.random.Generator, orders: int = 20) -> Floats:
    """Return (N, V): the mean over ``orders`` random orders."""
    views = probabilities.shape[2]
    drawn = [errors_along(probabilities, labels, generator.permutation(views)) for _ in range(orders)]
    mean: Floats = np.mean(drawn, axis=0)
    return mean
