"""Selective answers against their definitions, image by image, and scipy's entropy."""

import numpy as np
import pytest
import scipy.stats

from googlenet.evaluation.metrics import percentile_bounds
from googlenet.evaluation.selective import area_interval, area_under_risk, remaining_errors, uncertainties
from googlenet.randomness import numpy_generator


def test_measures_are_those_of_the_definitions() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.full(5, 0.4), (40, 3)).astype(np.float32)
    probabilities[0, 0] = np.eye(5)[2]
    measured = uncertainties(probabilities)
    mean = probabilities.astype(float).mean(axis=1)
    mean /= mean.sum(axis=1, keepdims=True)
    entropy = scipy.stats.entropy(mean, axis=1)
    own = scipy.stats.entropy(probabilities.astype(float), axis=2).mean(axis=1)
    assert measured["maximum_probability"] == pytest.approx(1 - mean.max(axis=1), abs=1e-6)
    assert measured["entropy"] == pytest.approx(entropy, abs=1e-6)
    assert measured["mutual_information"] == pytest.approx(entropy - own, abs=1e-6)


def test_replicas_that_agree_have_no_mutual_information() -> None:
    probabilities = np.repeat(np.random.default_rng(0).dirichlet(np.ones(5), (20, 1)), 3, axis=1)
    assert uncertainties(probabilities)["mutual_information"] == pytest.approx(0, abs=1e-12)


def test_the_error_that_remains_counts_the_surest_images_first() -> None:
    uncertainty = np.array([0.3, 0.1, 0.2, 0.4])
    wrong = np.array([True, False, False, True])
    assert remaining_errors(uncertainty, wrong).tolist() == [0, 0, pytest.approx(1 / 3), 0.5]
    assert area_under_risk(uncertainty, wrong) == pytest.approx((1 / 3 + 1 / 2) / 4)


def test_equally_sure_images_have_no_order() -> None:
    uncertainty, wrong = np.array([0.1, 0.1, 0.1, 0.9]), np.array([True, False, False, False])
    for order in ([0, 1, 2, 3], [1, 2, 0, 3], [3, 1, 0, 2]):
        assert remaining_errors(uncertainty[order], wrong[order]) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1 / 4])


def test_a_measure_that_knows_the_mistakes_is_better_than_chance() -> None:
    generator = np.random.default_rng(4)
    wrong = generator.random(300) < 0.2
    knowing, guessing = wrong + 0.5 * generator.random(300), generator.random(300)
    low, high = area_interval(knowing, wrong, resamples=200)
    assert low < area_under_risk(knowing, wrong) < high < area_interval(guessing, wrong, resamples=200)[0]
    assert area_under_risk(guessing, wrong) == pytest.approx(wrong.mean(), abs=0.05)


@pytest.mark.parametrize(("images", "resamples"), [(1, 60), (40, 60), (41, 120)])
def test_the_interval_is_that_of_the_areas_of_images_drawn_one_resample_at_a_time(images: int, resamples: int) -> None:
    made, generator = np.random.default_rng(images), numpy_generator(0, "bootstrap")
    uncertainty, wrong = made.random(images).round(1), made.random(images) < 0.3  # rounded: many are equal
    areas = []
    for _ in range(resamples):
        drawn = generator.integers(0, images, images)
        areas.append(area_under_risk(uncertainty[drawn], wrong[drawn]))
    assert area_interval(uncertainty, wrong, resamples=resamples) == percentile_bounds(np.array(areas)).tolist()
