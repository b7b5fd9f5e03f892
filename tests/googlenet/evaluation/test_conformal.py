"""Prediction sets: the definition class by class, and the coverage that they promise on images never seen."""

import math

import numpy as np
import pytest

from googlenet.evaluation.conformal import (
    SetRule,
    fewest_scores,
    highest_coverage,
    label_scores,
    prediction_sets,
    threshold,
)


def draw(images: int, seed: int = 0, classes: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a poor classifier, which is surer than it should be, and labels."""
    generator = np.random.default_rng(seed)
    true = generator.dirichlet(np.full(classes, 0.5), images)
    cumulative = true.cumsum(axis=1)
    labels = (cumulative / cumulative[:, -1:] <= generator.random((images, 1))).sum(axis=1)
    sharpened = true**2
    return (sharpened / sharpened.sum(axis=1, keepdims=True)).astype(np.float32), labels


@pytest.mark.parametrize("rule", [SetRule(), SetRule(0.05, 2)])
def test_a_set_holds_the_classes_whose_score_is_at_most_the_threshold(rule: SetRule) -> None:
    probabilities, labels = draw(60)
    scores = label_scores(probabilities, labels, rule)
    limit = threshold(scores, 0.8)
    sets = prediction_sets(probabilities, limit, rule)
    for p, label, score, inside in zip(probabilities, labels, scores, sets, strict=True):
        by_class = []
        for own in range(6):
            before = [c for c in range(6) if p[c] > p[own] or (p[c] == p[own] and c < own)]
            penalty = rule.penalty * max(0, len(before) + 1 - rule.free_ranks)
            by_class.append(sum(float(p[c]) for c in before) + penalty)
        assert score == pytest.approx(by_class[label])
        assert inside[p.argmax()]
        assert [c for c in range(6) if inside[c]] == [c for c in range(6) if by_class[c] <= limit + 1e-12]


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_sets_hold_the_label_of_unseen_images_as_often_as_promised(coverage: float) -> None:
    held = []
    for seed in range(200):
        probabilities, labels = draw(200, seed)
        limit = threshold(label_scores(probabilities[:100], labels[:100]), coverage)
        held.append(prediction_sets(probabilities[100:], limit)[np.arange(100), labels[100:]].mean())
    assert coverage - 0.005 < np.mean(held) < coverage + 0.015
    answered = [draw(200, seed) for seed in range(200)]
    top1 = np.mean([(p[100:].argmax(axis=1) == y[100:]).mean() for p, y in answered])
    assert top1 < coverage - 0.05  # the likeliest class alone would not keep the promise


def test_a_penalty_makes_large_sets_smaller() -> None:
    probabilities, labels = draw(2000, classes=30)
    sizes = []
    for rule in (SetRule(), SetRule(0.1, 3)):
        limit = threshold(label_scores(probabilities[:1000], labels[:1000], rule), 0.9)
        sizes.append(prediction_sets(probabilities[1000:], limit, rule).sum(axis=1))
    assert sizes[1].max() < sizes[0].max()


def test_the_threshold_is_the_right_order_statistic() -> None:
    scores = np.arange(1.0, 10.0)  # 1 to 9
    assert threshold(scores, 0.5) == 5
    assert threshold(scores, 0.9) == 9
    assert threshold(scores, 0.91) == math.inf
    with pytest.raises(ValueError, match="between 0 and 1"):
        threshold(scores, 95)


def test_too_few_images_for_a_coverage_give_all_classes() -> None:
    probabilities, labels = draw(5)
    assert prediction_sets(probabilities, threshold(label_scores(probabilities, labels), 0.95)).all()


def test_the_fewest_images_for_a_coverage_are_those_with_a_finite_threshold() -> None:
    for images in (1, 9, 19, 42, 49, 98, 99, 400, 4998, 4999):
        for coverage in (0.5, 0.9, 0.95, 0.97, 0.98, 0.99, 0.9975, 0.9998):
            is_finite = math.isfinite(threshold(np.zeros(images), coverage))
            assert is_finite == (images >= fewest_scores(coverage)), (images, coverage)
        assert math.isfinite(threshold(np.zeros(images), highest_coverage(images)))
        assert math.isinf(threshold(np.zeros(images), highest_coverage(images) + 1e-4))
        assert fewest_scores(highest_coverage(images)) <= images
    assert fewest_scores(0.9999) == 9999


def test_a_sure_and_accurate_classifier_gets_single_answers() -> None:
    generator = np.random.default_rng(2)
    labels = generator.integers(0, 6, 1000)
    probabilities = np.full((1000, 6), 1e-5)
    probabilities[np.arange(1000), np.where(generator.random(1000) < 0.97, labels, (labels + 1) % 6)] = 1 - 5e-5
    limit = threshold(label_scores(probabilities[:500], labels[:500]), 0.95)
    assert (prediction_sets(probabilities[500:], limit).sum(axis=1) == 1).all()
