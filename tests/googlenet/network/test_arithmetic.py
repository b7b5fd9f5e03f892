"""Tests of the precision of products on a GPU, as PyTorch's switches show it without one."""

import threading

import pytest
import torch

from googlenet.network.arithmetic import FP32, Arithmetic, Precision


def switches() -> list[str]:
    return [torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision]


@pytest.mark.parametrize(("precision", "expected"), [("fp32", "ieee"), ("tf32", "tf32"), ("bf16", "ieee")])
def test_only_tf32_rounds_the_products_of_fp32_numbers(precision: Precision, expected: str) -> None:
    before = switches()
    with Arithmetic(precision).in_force("cuda"):
        assert switches() == [expected, expected]
        with FP32.in_force("cuda"):  # the reference of a comparison
            assert switches() == ["ieee", "ieee"]
        assert switches() == [expected, expected]
    assert switches() == before
    with Arithmetic(precision).in_force("cpu"):
        assert switches() == before


def test_a_thread_that_ends_does_not_turn_the_switches_of_one_that_is_at_work() -> None:
    before, seen = switches(), []
    first_is_in, first_may_end, second_is_in = (threading.Event() for _ in range(3))

    def first() -> None:
        with FP32.in_force("cuda"):
            first_is_in.set()
            first_may_end.wait(10)

    def second() -> None:
        first_is_in.wait(10)
        with FP32.in_force("cuda"):
            second_is_in.set()
            threads[0].join(10)
            seen.extend(switches())

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    second_is_in.wait(0.2)  # without a lock it is in at once
    first_may_end.set()
    for thread in threads:
        thread.join(10)
    assert seen == ["ieee", "ieee"]
    assert switches() == before
