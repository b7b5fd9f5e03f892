"""The greedy order of views against brute force."""

from itertools import product

import numpy as np
import pytest

from googlenet.evaluation import view_order
from googlenet.evaluation.calibration import LEAST_KEPT
from googlenet.evaluation.crops import box_of, views_of
from googlenet.evaluation.view_order import (
    errors_along,
    greedy_order,
    mean_windows_along,
    windows_along,
)


def some_probabilities(images: int, classifiers: int, views: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(7)
    labels = generator.integers(classes, size=images)
    logits = generator.normal(size=(images, classifiers, views, classes))
    logits[np.arange(images), :, :, labels] += np.linspace(0, 1.5, views)
    values = np.exp(logits)
    return values / values.sum(axis=3, keepdims=True), labels


def wrong_with(probabilities: np.ndarray, labels: np.ndarray, views: list[int]) -> list[list[bool]]:
    """Return the errors by image and classifier, computed in plain loops."""
    return [
        [bool(np.argmax(sum(classifier[view] for view in views)) != label) for classifier in image]
        for image, label in zip(probabilities, labels, strict=True)
    ]


def test_each_view_of_the_greedy_order_is_the_best_next_one() -> None:
    probabilities, labels = some_probabilities(20, 2, 5)
    order = greedy_order(probabilities, labels).tolist()
    assert sorted(order) == list(range(5))
    for taken in range(5):
        error = {
            view: np.mean(wrong_with(probabilities, labels, [*order[:taken], view]))
            for view in set(range(5)) - set(order[:taken])
        }
        assert error[order[taken]] == min(error.values())


def full_greedy_order(probabilities: np.ndarray, labels: np.ndarray) -> list[int]:
    """Return the order by its definition: all classes of all views are summed, one view after the other."""
    total, order = np.zeros((*probabilities.shape[:2], probabilities.shape[3])), []
    left = list(range(probabilities.shape[2]))
    while left:
        scores = []
        for view in left:
            sums = total + probabilities[:, :, view]
            own = np.take_along_axis(sums, labels[:, None, None], axis=2)
            scores.append(
                ((sums.argmax(axis=2) != labels[:, None]).mean(), -np.log(np.maximum(own, LEAST_KEPT)).mean())
            )
        order.append(left.pop(min(range(len(left)), key=lambda place: scores[place])))
        total += probabilities[:, :, order[-1]]
    return order


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("classifiers", [1, 3])
@pytest.mark.parametrize("numbers_at_once", [1, 7, view_order.NUMBERS_AT_ONCE])
def test_leaving_out_classes_that_cannot_win_changes_no_order(
    monkeypatch: pytest.MonkeyPatch, kind: type, classifiers: int, numbers_at_once: int
) -> None:
    """With sums that tie, zeros and equal views, which real probabilities have, too."""
    monkeypatch.setattr(view_order, "NUMBERS_AT_ONCE", numbers_at_once)
    generator = np.random.default_rng(0)
    for classes, views in product((1, 2, 5), (1, 3, 8)):
        drawn = generator.integers(0, 3, (9, classifiers, views, classes)) / 4
        drawn[:, :, views // 2] = drawn[:, :, 0]
        smooth = generator.dirichlet(np.ones(classes), (9, classifiers, views))
        labels = generator.integers(0, classes, 9)
        for probabilities in (drawn.astype(kind), smooth.astype(kind)):
            found = greedy_order(probabilities, labels).tolist()
            assert found == full_greedy_order(probabilities, labels)


def test_of_views_with_equal_errors_the_one_with_the_likeliest_labels_is_next() -> None:
    of_labels = np.array([0.6, 0.9, 0.7])
    probabilities = np.broadcast_to(np.stack([of_labels, 1 - of_labels], axis=1), (4, 1, 3, 2))
    assert greedy_order(probabilities, np.zeros(4, int)).tolist() == [1, 2, 0]


def test_errors_along_an_order_are_those_of_its_first_views() -> None:
    probabilities, labels = some_probabilities(8, 3, 4)
    order = np.array([2, 0, 3, 1])
    errors = errors_along(probabilities, labels, order)
    for views in range(1, 5):
        expected = np.mean(wrong_with(probabilities, labels, order[:views].tolist()), axis=1)
        assert errors[:, views - 1] == pytest.approx(expected)


def test_the_windows_of_the_first_views_are_counted_once() -> None:
    order, views = tuple(np.random.default_rng(3).permutation(144).tolist()), views_of(144, 84)
    expected = []
    for width, height in ((100, 100), (101, 100), (100, 300)):
        boxes = [box_of(views[place], width, height, 84) for place in order]
        expected.append([len(set(boxes[:number])) for number in range(1, 145)])
        assert windows_along(width, height, 84, order).tolist() == expected[-1]
    assert [last[-1] for last in expected][::2] == [48, 144]
    means = mean_windows_along([(100, 100), (101, 100), (100, 300)], 84, order)
    np.testing.assert_allclose(means, np.mean(expected, axis=0))
    assert mean_windows_along([], 84, order).tolist() == list(range(1, 145))
