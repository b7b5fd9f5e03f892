"""Claims: tests check the types of all functions in googlenet/, also of those that jaxtyping leaves to beartype."""

import jaxtyping
import pytest
import torch
from beartype.roar import BeartypeCallHintViolation

from googlenet.evaluation.cascade import Stop, stages_of
from googlenet.network.layers import Conv
from googlenet.network.model import GoogLeNet, scaled_channels


def test_a_wrong_argument_is_refused_with_and_without_axes() -> None:
    network = GoogLeNet(3, "bn", False, 0.05)
    with pytest.raises(jaxtyping.TypeCheckError, match="images"):
        network(torch.zeros(1, 4, 35, 35))
    for call in (
        lambda: scaled_channels("64", 1.0),
        lambda: stages_of(1.5, 2),
        lambda: Conv(3, 8, 1, variant="bn")([0.5]),
        lambda: Stop("0.5", 1),
    ):
        with pytest.raises(BeartypeCallHintViolation, match="violates type hint"):
            call()
