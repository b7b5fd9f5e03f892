"""Measures of telling something else apart, against SciPy's rank statistic and the definition in loops."""

import numpy as np
import pytest
from scipy import stats

from googlenet.evaluation.out_of_distribution import area_under_roc, false_positive_interval, false_positives


def made(seed: int, inside: int = 120, outside: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Rounded, so that many are equal."""
    generator = np.random.default_rng(seed)
    return generator.normal(0, 1, inside).round(1), generator.normal(1, 1, outside).round(1)


def test_the_area_is_the_rank_statistic_of_mann_and_whitney() -> None:
    inside, outside = made(0)
    expected = stats.mannwhitneyu(outside, inside).statistic / (len(inside) * len(outside))
    area, (low, high) = area_under_roc(inside, outside)
    assert area == pytest.approx(expected)
    assert low < area < high
    assert area_under_roc(inside, inside)[0] == pytest.approx(0.5)
    assert area_under_roc(np.zeros(3), np.ones(2)) == (1.0, (1.0, 1.0))


def test_a_single_image_does_not_show_how_others_spread() -> None:
    inside = made(0)[0]
    area, interval = area_under_roc(inside, np.array([0.5]))
    assert area == np.mean((inside < 0.5) + (inside == 0.5) / 2)
    assert interval == (0.0, 1.0)
    assert area_under_roc(np.array([0.5]), inside)[1] == (0.0, 1.0)


def test_its_interval_is_as_wide_as_areas_of_other_images_spread() -> None:
    areas = np.array([area_under_roc(*made(seed))[0] for seed in range(400)])
    widths = [high - low for _, (low, high) in (area_under_roc(*made(seed)) for seed in range(20))]
    assert np.mean(widths) == pytest.approx(2 * 1.96 * areas.std(), rel=0.15)


def test_false_positives_are_as_sure_as_95_percent_of_the_images_of_the_classes() -> None:
    inside, outside = np.arange(100.0), np.array([3.0, 94.0, 94.5, 200.0])
    assert false_positives(inside, outside).tolist() == [True, True, False, False]  # 0 to 94 are 95 of the 100
    for seed in range(5):
        inside, outside = made(seed)
        limit = min(value for value in inside if np.mean(inside <= value) >= 0.95)
        rate = false_positives(inside, outside).mean()
        assert rate == np.mean([value <= limit for value in outside])
        low, high = false_positive_interval(inside, outside, resamples=200)
        assert low <= rate <= high
