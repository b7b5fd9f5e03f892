"""Elements prepared by a thread: the same ones in order, one ahead, errors at their place."""

import threading

import pytest

from googlenet.evaluation.ahead import prepared_ahead


def test_elements_come_in_order_and_the_next_is_prepared_meanwhile() -> None:
    begun = [threading.Event() for _ in range(4)]

    def prepare(number: int) -> int:
        begun[number].set()
        return number * number

    results = prepared_ahead(prepare, range(4))
    assert next(results) == 0
    assert begun[1].wait(10)  # although nobody asked for it yet
    assert not begun[2].is_set()
    assert list(results) == [1, 4, 9]
    assert list(prepared_ahead(prepare, [])) == []


def test_an_error_is_raised_after_the_elements_before_it() -> None:
    results = prepared_ahead(lambda number: 6 // number, [3, 2, 0])
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)
