"""Tests of the precision of products on a GPU, as PyTorch's switches show it without one."""

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
