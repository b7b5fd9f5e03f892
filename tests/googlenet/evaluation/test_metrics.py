"""Errors of ensembles and their intervals, against brute force and closed forms."""

from fractions import Fraction
from itertools import combinations

import jaxtyping
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from googlenet.evaluation.metrics import (
    EnsembleTally,
    bootstrap_interval,
    ensemble_errors,
    image_draws,
    label_rank,
    resampled_means,
    subsets,
    top_k_errors,
)
from googlenet.randomness import numpy_generator


@given(
    hnp.arrays(np.float64, (6, 9), elements=st.sampled_from([0.0, 0.1, 0.2, 0.3])),
    hnp.arrays(np.int64, 6, elements=st.integers(0, 8)),
)
def test_rank_is_the_position_in_a_stable_sort(probabilities: np.ndarray, labels: np.ndarray) -> None:
    order = np.argsort(-probabilities, axis=1, kind="stable")
    expected = [list(row).index(label) for row, label in zip(order, labels, strict=True)]
    assert label_rank(probabilities, labels).tolist() == expected


def test_top_1_and_top_5() -> None:
    probabilities = np.array([[6, 5, 4, 3, 2, 1.0]] * 3)
    assert top_k_errors(probabilities, np.array([0, 4, 5])).tolist() == [[False, False], [True, False], [True, True]]


def test_a_probability_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        label_rank(np.array([[np.nan, 1.0]]), np.array([0]))


def test_every_ensemble_of_seven_averages_its_own_members() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(10), size=(40, 7)).astype(np.float32)
    labels = generator.integers(0, 10, 40)
    found = dict(ensemble_errors(probabilities, labels))
    assert len(found) == 127 == sum(map(len, subsets(7).values()))
    for size in range(1, 8):
        for members in combinations(range(7), size):
            wrong = []
            for image in range(40):
                mean = sum(probabilities[image, k].astype(float) for k in members) / size
                ranking = sorted(range(10), key=lambda c: -mean[c])
                wrong.append([ranking[0] != labels[image], labels[image] not in ranking[:5]])
            assert found[members].tolist() == wrong


def test_a_tally_is_the_same_whole_or_in_parts_and_by_image_or_by_ensemble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("googlenet.evaluation.metrics.JUDGED_AT_ONCE", 80)  # two parts at once, and the last one alone
    generator = np.random.default_rng(1)
    probabilities = generator.dirichlet(np.ones(6), size=(30, 4, 2)).astype(np.float32)
    labels = generator.integers(0, 6, 30)
    whole, parts = EnsembleTally(4, 2), EnsembleTally(4, 2)
    whole.update(probabilities, labels)
    for first in range(0, 30, 7):
        parts.update(probabilities[first : first + 7], labels[first : first + 7])
    assert np.array_equal(whole.wrong, parts.wrong)
    assert np.array_equal(whole.by_image(), parts.by_image())
    expected = {}
    for policy in range(2):
        for members, wrong in ensemble_errors(probabilities[:, :, policy], labels):
            expected[members, policy] = wrong
            assert whole.wrong[whole.number_of(*members), policy].tolist() == wrong.sum(axis=0).tolist()
    for size, group in subsets(4).items():
        for policy in range(2):
            mean = np.mean([expected[members, policy] for members in group], axis=0)
            assert np.allclose(whole.by_image()[:, size - 1, policy], mean)


def test_bootstrap_interval_is_the_normal_one_for_many_images() -> None:
    wrong = (np.random.default_rng(0).random((2000, 2)) < [0.3, 0.05]).astype(float)
    low, high = bootstrap_interval(wrong)
    mean = wrong.mean(axis=0)
    half = 1.96 * np.sqrt(mean * (1 - mean) / len(wrong))
    assert np.allclose(low, mean - half, atol=0.15 * half.max())
    assert np.allclose(high, mean + half, atol=0.15 * half.max())


def test_bootstrap_is_repeatable_and_exact_where_nothing_varies() -> None:
    values = np.array([[1.0, 0.0]] * 50)
    low, high = bootstrap_interval(values)
    assert low.tolist() == high.tolist() == [1.0, 0.0]


def test_differences_are_paired() -> None:
    base = (np.random.default_rng(0).random(400) < 0.5).astype(float)
    better = base.copy()
    better[np.flatnonzero(base)[:20]] = 0  # right wherever the base is, and on 20 more of the 400 images
    low, high = bootstrap_interval(np.stack([base, better, better - base], axis=1))
    assert high[1] > low[0]  # the two intervals overlap
    assert high[2] < 0  # the difference is significant nevertheless
    assert low[2] < -0.05 < high[2]


@pytest.mark.parametrize("images", [1, 255, 256])
def test_draws_are_the_same_new_kept_and_too_many_to_be_kept(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    new, kept = (np.concatenate(list(image_draws(images, 0, 120))) for _ in range(2))
    monkeypatch.setattr("googlenet.evaluation.metrics.KEPT_DRAWS", 0)
    assert np.array_equal(new, kept)
    assert np.array_equal(new, np.concatenate(list(image_draws(images, 0, 120))))
    assert (new.sum(axis=1) == images).all()


def test_an_interval_is_the_same_to_the_last_bit_in_whatever_order_its_images_are_added() -> None:
    """Compare with exact rational arithmetic, on values that a matrix product would round differently each time."""
    values = 100 * np.random.default_rng(0).integers(0, 8, (60, 3)) / 7
    low, high = bootstrap_interval(values, resamples=200)
    generator = numpy_generator(0, "bootstrap")
    counts = generator.multinomial(60, np.full(60, 1 / 60), size=200)
    fractions = [[Fraction(value) for value in column] for column in values.T]
    means = np.array(
        [
            [float(sum(int(n) * v for n, v in zip(row, column, strict=True)) / 60) for column in fractions]
            for row in counts
        ]
    )
    expected = np.percentile(means, [2.5, 97.5], axis=0)
    assert np.allclose([low, high], expected, rtol=0, atol=1e-11)
    backwards = bootstrap_interval(np.asfortranarray(values)[:, ::-1], resamples=200)
    assert np.array_equal(backwards[0][::-1], low)
    assert np.array_equal(backwards[1][::-1], high)
    each = np.concatenate(list(resampled_means(values[:, :, None], resamples=200)))
    assert np.array_equal(np.percentile(each[:, :, 0], [2.5, 97.5], axis=0), [low, high])


SOME = hnp.arrays(np.float64, (8, 3, 6), elements=st.floats(0, 1, width=16))
LABELS = hnp.arrays(np.int64, 8, elements=st.integers(0, 5))


@given(SOME, LABELS, st.permutations(range(8)), st.permutations(range(3)))
def test_neither_the_order_of_images_nor_of_replicas_matters(
    probabilities: np.ndarray, labels: np.ndarray, images: list[int], replicas: list[int]
) -> None:
    first, second = EnsembleTally(3, 1), EnsembleTally(3, 1)
    first.update(probabilities[:, :, None], labels)
    second.update(probabilities[images][:, replicas][:, :, None], labels[images])
    for members in first.ensembles:
        renamed = tuple(sorted(replicas.index(member) for member in members))
        # Binary fractions add up without rounding, so ties remain ties in any order.
        assert first.wrong[first.number_of(*members)].tolist() == second.wrong[second.number_of(*renamed)].tolist()


@given(hnp.arrays(np.float64, (8, 1, 6), elements=st.floats(0, 1, width=16)), LABELS)
def test_an_ensemble_of_one_replica_many_times_errs_like_that_one(
    probabilities: np.ndarray, labels: np.ndarray
) -> None:
    tally = EnsembleTally(3, 1)
    tally.update(np.repeat(probabilities, 3, axis=1)[:, :, None], labels)
    assert (tally.wrong == tally.wrong[0]).all()


@given(hnp.arrays(np.float64, (12, 2), elements=st.floats(-100, 100)))
def test_an_interval_lies_between_the_smallest_and_the_largest_value(values: np.ndarray) -> None:
    low, high = bootstrap_interval(values, resamples=50)
    rounding = 1e-9
    assert (values.min(axis=0) - rounding <= low).all()
    assert (low <= high).all()
    assert (high <= values.max(axis=0) + rounding).all()


def test_shapes_that_do_not_fit_are_found_at_the_call() -> None:
    """Annotated shapes are checked throughout the suite."""
    with pytest.raises(jaxtyping.TypeCheckError, match="labels"):
        label_rank(np.zeros((4, 3)), np.zeros(5, np.int64))
