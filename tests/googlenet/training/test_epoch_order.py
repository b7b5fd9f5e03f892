"""Order of an epoch: every record once, like a shuffle, in memory and time that do not grow with their number."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from googlenet.randomness import numpy_generator
from googlenet.training.epoch_order import SHUFFLED_IMAGES, ComputedPermutation, EpochOrder


def whole(order: EpochOrder | ComputedPermutation) -> np.ndarray:
    return order[slice(None)]


@pytest.mark.parametrize("number", [0, 1, 2, 31, 1000, SHUFFLED_IMAGES, SHUFFLED_IMAGES + 1, 300_007])
def test_an_epoch_visits_every_record_once(number: int) -> None:
    order = EpochOrder(number, 0, 0)
    assert len(order) == number
    assert np.array_equal(np.sort(whole(order)), np.arange(number))


@pytest.mark.parametrize("length", [2, 3, 5, 12, 13, 64, 97, 100, 4095, 4097])
def test_a_computed_permutation_of_any_length_is_one(length: int) -> None:
    order = whole(ComputedPermutation(length, numpy_generator(0, "order", 0)))
    assert np.array_equal(np.sort(order), np.arange(length))


@pytest.mark.parametrize("number", [1000, 100_000])
def test_seeds_and_epochs_have_orders_of_their_own_and_slices_are_parts_of_them(number: int) -> None:
    first, again, *others = (EpochOrder(number, *key) for key in [(0, 0), (0, 0), (0, 1), (1, 0)])
    assert np.array_equal(whole(first), whole(again))
    for other in others:
        assert (whole(first) == whole(other)).mean() < 0.01
    assert np.array_equal(first[number - 100 : number + 50], whole(first)[-100:])
    assert np.array_equal(first[7:8], whole(first)[7:8])


def test_a_computed_permutation_has_the_statistics_of_a_shuffle() -> None:
    length, blocks = 200_000, 20
    order = whole(ComputedPermutation(length, numpy_generator(3, "order", 0)))
    # Destinations of each twentieth of the records: chi-square with 19^2 degrees of freedom, mean 361 and deviation 27.
    counts = np.zeros((blocks, blocks))
    np.add.at(counts, (np.arange(length) * blocks // length, order * blocks // length), 1)
    expected = length / blocks**2
    assert 361 - 4 * 27 < ((counts - expected) ** 2 / expected).sum() < 361 + 4 * 27
    # Neighbours in the order are unrelated in the data: the mean distance of two random points is a third.
    assert np.abs(np.diff(order)).mean() == pytest.approx(length / 3, rel=0.01)
    # Fixed points, and neighbours that stay neighbours: Poisson with mean 1 and 2.
    assert (order == np.arange(length)).sum() <= 8
    assert (np.abs(np.diff(order)) == 1).sum() <= 11


def test_a_batch_of_a_million_records_costs_no_memory_that_grows_with_them() -> None:
    peaks = []
    for number in (100_000, 1_000_000_000):
        tracemalloc.start()
        order = EpochOrder(number, 0, 0)
        assert len(set(order[number // 2 : number // 2 + 256].tolist())) == 256
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] < 1_000_000


# Batches, not their size, are drawn: a batch of one record takes as long as one of thousands.
@given(st.integers(0, 70_000), st.integers(0, 2**31), st.integers(0, 300), st.integers(1, 500))
def test_the_batches_of_any_epoch_hold_every_record_once(number: int, seed: int, epoch: int, most_batches: int) -> None:
    order, batch_size = EpochOrder(number, seed, epoch), max(1, -(-number // most_batches))
    batches = [order[first : first + batch_size] for first in range(0, number, batch_size)]
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert np.array_equal(np.sort(np.concatenate([np.empty(0, int), *batches])), np.arange(number))
