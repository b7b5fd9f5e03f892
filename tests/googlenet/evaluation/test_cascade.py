"""The cascade against its definition in plain loops; what is judged on an image was not fitted on it."""

import tracemalloc

import numpy as np
import pytest
import scipy.special

from googlenet.evaluation import cascade, view_order
from googlenet.evaluation.cascade import (
    NEVER,
    JudgedCascade,
    Stop,
    ViewedImages,
    fit,
    fit_for_use,
    judge,
    judge_by_folds,
    passes_of,
    stages_of,
)
from googlenet.evaluation.temperature import fit_temperature, with_temperature
from googlenet.evaluation.view_order import greedy_order

REPLICAS, VIEWS, CLASSES = 3, 5, 3


def made(images: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Easy images, on which every pass is right, and hard ones, on which most are."""
    generator = np.random.default_rng(3)
    labels = generator.integers(0, CLASSES, images)
    logits = generator.normal(size=(images, REPLICAS, VIEWS, CLASSES))
    logits[np.arange(images), :, :, labels] += np.where(generator.random(images) < 0.7, 6.0, 1.0)[:, None, None]
    values = np.exp(logits)
    return (values / values.sum(axis=3, keepdims=True)).astype(np.float16), labels


def test_stages_add_replicas_first_and_views_after() -> None:
    assert stages_of(7, 144) == (
        (1, 1), (2, 1), (4, 1), (7, 1), (7, 2), (7, 4), (7, 8), (7, 16), (7, 32), (7, 64), (7, 128), (7, 144),
    )  # fmt: skip
    assert stages_of(1, 1) == ((1, 1),)
    assert passes_of(stages_of(2, 3)).tolist() == [1, 2, 4, 6]


def test_a_stage_averages_its_replicas_and_the_first_views_of_the_order() -> None:
    probabilities, labels = made(7)
    order, stages = np.array([3, 0, 4, 1, 2]), stages_of(REPLICAS, VIEWS)
    averages = ViewedImages.of(probabilities, labels).where(np.arange(1, 6)).running_averages(order)
    probabilities = probabilities[1:6]
    for place, (models, views) in enumerate(stages):
        for image in range(5):
            passes = [probabilities[image, k, v].astype(float) for k in range(models) for v in order[:views]]
            assert averages[image, place] == pytest.approx(np.mean(passes, axis=0), abs=1e-6)


@pytest.mark.parametrize(("replicas", "most"), [(1, 4.0), (7, 3.2)])
def test_fits_and_judgements_take_little_memory_beside_the_kept_probabilities(
    monkeypatch: pytest.MonkeyPatch, replicas: int, most: float
) -> None:
    """In multiples of these: a copy in float64 would take four."""
    for module in (cascade, view_order):
        monkeypatch.setattr(module, "NUMBERS_AT_ONCE", 50_000)  # blocks of work are small beside so few images, too
    many_classes = np.random.default_rng(0).random((60, replicas, 12, 2000), np.float32).astype(np.float16)
    tracemalloc.start()
    images = ViewedImages.of(many_classes, np.arange(60))
    judge_by_folds(images, np.arange(60) % 5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < most * many_classes.nbytes


def test_images_that_are_judged_a_few_at_a_time_are_judged_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    images = ViewedImages.of(*made()).where(np.arange(0, 60, 2)).where(np.arange(30) > 3)
    at_once = images.errors_along(np.array([3, 0, 4, 1, 2]))
    monkeypatch.setattr(cascade, "NUMBERS_AT_ONCE", 1)
    assert images.errors_along(np.array([3, 0, 4, 1, 2])).tolist() == at_once.tolist()


def test_an_image_stops_at_the_first_stage_that_is_sure_enough() -> None:
    confidence = np.array([[0.95, 0.2, 0.2, 0.2], [0.5, 0.91, 0.99, 0.1], [0.1, 0.2, 0.3, 0.4]])
    wrong = np.array([[False] * 4, [True, False, True, True], [True, True, True, False]])
    judged = JudgedCascade(stages_of(2, 3), confidence, wrong, np.zeros((3, 3)))
    for stop, passes, errors in (
        (Stop(0.9, 3), [1, 2, 6], [False] * 3),
        (Stop(0.9, 2), [1, 2, 4], [False, False, True]),
        (Stop(NEVER, 3), [6] * 3, [False, True, False]),
    ):
        spent = judged.spent(stop)
        assert (spent[0].tolist(), spent[1].tolist()) == (passes, errors)


def test_what_float16_cannot_hold_changes_no_temperature_and_no_confidence() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 10, 300)
    logits = generator.normal(0, 2, (300, 1, 2, 10))
    logits[np.arange(300), :, :, labels] += 18
    labels[:2] = (labels[:2] + 1) % 10  # answers that are wrong, and very sure
    exact = scipy.special.softmax(logits, axis=3)
    kept = exact.astype(np.float16)
    of_both = [ViewedImages.of(probabilities, labels) for probabilities in (kept, exact)]
    fitted, of_exact = map(fit, of_both)
    assert fitted.temperatures == pytest.approx(of_exact.temperatures, rel=0.02)
    of_kept, of_exact = (judge(images, fitted).confidence for images in of_both)
    assert np.abs(of_kept - of_exact).max() < 0.01
    assert abs((of_kept > 0.99).mean() - (of_exact > 0.99).mean()) < 0.02


def test_the_label_of_an_image_has_no_say_in_its_own_answer_or_its_own_threshold() -> None:
    probabilities, labels = made()
    folds = np.arange(60) % 5
    before = judge_by_folds(ViewedImages.of(probabilities, labels), folds)
    changed = np.where(folds == 2, (labels + 1) % CLASSES, labels)
    after = judge_by_folds(ViewedImages.of(probabilities, changed), folds)
    inside = folds == 2
    assert before.confidence[inside].tolist() == after.confidence[inside].tolist()
    assert before.confidence[~inside].tolist() != after.confidence[~inside].tolist()


def test_what_is_fitted_is_the_greedy_order_and_the_temperature_of_each_average() -> None:
    probabilities, labels = made()
    images = ViewedImages.of(probabilities, labels)
    fitted = fit_for_use(images)
    everyone = probabilities.astype(np.float32).mean(axis=1)
    assert fitted.order.tolist() == greedy_order(everyone[:, None], labels).tolist()
    first_two = everyone[:, fitted.order[:2]].astype(np.float64).mean(axis=1)
    assert fitted.chosen_temperatures[1] == pytest.approx(fit_temperature(first_two[None], labels), rel=1e-4)
    judged = judge(images, fitted)
    one_pass = probabilities[:, 0, fitted.order[0]].astype(np.float64)
    expected = with_temperature(one_pass, fitted.temperatures[0]).max(axis=1)
    assert judged.confidence[:, 0] == pytest.approx(expected, abs=1e-6)
    assert fit(images).temperatures == fitted.temperatures
