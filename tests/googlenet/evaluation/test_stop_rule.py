"""The cascade's threshold: few answers are lost, on images that had no say in it, and the promise holds on average."""

import numpy as np
import pytest

from googlenet.evaluation.cascade import NEVER, THRESHOLDS, JudgedCascade, Stop, ViewedImages, judge_by_folds, stages_of
from googlenet.evaluation.stop_rule import (
    allowed_losses,
    cheapest_stop,
    lost_answers,
    promised_points,
    spent_by_folds,
    stops_by_folds,
)
from tests.googlenet.evaluation.test_cascade import CLASSES, made

STAGES = stages_of(1, 2)


def two_stages(generator: np.random.Generator, images: int) -> JudgedCascade:
    """One pass that is right as often as it is sure, and two that are right on nine of ten images."""
    confidence = generator.random((images, 2))
    wrong = np.stack([generator.random(images) > confidence[:, 0], generator.random(images) < 0.1], axis=1)
    return JudgedCascade(STAGES, confidence, wrong, np.zeros((images, 2)))


def test_few_images_promise_no_less_than_one_of_them_more() -> None:
    assert [promised_points(0.2, images) for images in (49, 399, 499, 4000)] == [2.0, 0.25, 0.2, 0.2]
    assert [allowed_losses(0.2, images) for images in (49, 399, 499, 999, 1000)] == [0, 0, 0, 1, 1]
    assert [allowed_losses(1.0, images) for images in (49, 199, 399, 400)] == [0, 1, 3, 3]


def test_the_stop_is_the_lowest_threshold_from_which_on_hardly_any_answer_is_lost() -> None:
    judged = two_stages(np.random.default_rng(0), 500)
    stop = cheapest_stop(judged, 1.0)

    def losses(threshold: float) -> int:
        used = judged.confidence[:, 0] > threshold
        return int((used & judged.wrong[:, 0] & ~judged.wrong[:, 1]).sum())

    assert losses(stop.threshold) <= allowed_losses(1.0, 500) == 4
    below = THRESHOLDS[THRESHOLDS.index(stop.threshold) - 1]
    assert losses(below) > 4
    assert lost_answers(judged).sum(axis=0).tolist() == [losses(threshold) for threshold in THRESHOLDS]


def test_gains_do_not_pay_for_losses() -> None:
    # The first stage is wrong on two images that both stages have right, and right on two others.
    wrong = np.zeros((500, 2), bool)
    wrong[:2, 0] = wrong[2:4, 1] = True
    judged = JudgedCascade(STAGES, np.full((500, 2), 0.9), wrong, np.zeros((500, 2)))
    assert cheapest_stop(judged, 0.2).threshold > 0.9
    assert cheapest_stop(judged, 1.0).threshold == 0.0


def test_a_lower_threshold_that_loses_less_by_luck_does_not_count() -> None:
    # At the second of three stages the answers of ten images are wrong, and only there.
    stages = stages_of(1, 3)
    wrong = np.zeros((200, 3), bool)
    wrong[:10, 1] = True
    confidence = np.tile([0.2, 0.6, 0.9], (200, 1))
    judged = JudgedCascade(stages, confidence, wrong, np.zeros((200, 3)))
    assert not judged.spent(Stop(0.0, 2))[1].any()
    assert cheapest_stop(judged, 1.0).threshold > 0.6


def test_new_images_lose_no_more_than_was_promised() -> None:
    generator = np.random.default_rng(1)
    for points in (1.0, 5.0):
        shares = []
        for _ in range(100):
            stop = cheapest_stop(two_stages(generator, 150), points)
            new = two_stages(generator, 2000)
            shares.append(100 * (new.spent(stop)[1] & ~new.all_wrong).mean())
        promised = promised_points(points, 150)
        assert promised / 3 < np.mean(shares) < promised + 2 * np.std(shares) / np.sqrt(100)


def test_images_have_no_say_in_the_threshold_of_their_fold() -> None:
    probabilities, labels = made()
    folds = np.arange(60) % 5
    before = stops_by_folds(ViewedImages.of(probabilities, labels), folds, (1.0, 20.0))
    assert sorted(before) == [0, 1, 2, 3, 4]
    assert all(strict.threshold >= loose.threshold for strict, loose in before.values())
    changed = np.where(folds == 2, (labels + 1) % CLASSES, labels)
    after = stops_by_folds(ViewedImages.of(probabilities, changed), folds, (1.0, 20.0))
    assert after[2] == before[2]
    assert after != before


def test_each_fold_is_spent_by_its_own_stop() -> None:
    probabilities, labels = made()
    folds = np.arange(60) % 5
    judged = judge_by_folds(ViewedImages.of(probabilities, labels), folds)
    last = len(judged.stages) - 1
    stops = {fold: Stop(0.0 if fold == 3 else NEVER, last) for fold in range(5)}
    passes, wrong = spent_by_folds(judged, folds, stops)
    assert passes.tolist() == np.where(folds == 3, 1, 15).tolist()
    assert wrong.tolist() == np.where(folds == 3, judged.wrong[:, 0], judged.all_wrong).tolist()


@pytest.mark.parametrize("points", [0.2, 1.0])
def test_a_cascade_whose_stages_are_all_wrong_makes_all_passes(points: float) -> None:
    wrong = np.tile([True, False], (50, 1))
    judged = JudgedCascade(STAGES, np.ones((50, 2)), wrong, np.zeros((50, 2)))
    assert cheapest_stop(judged, points) == Stop(NEVER, 1)
