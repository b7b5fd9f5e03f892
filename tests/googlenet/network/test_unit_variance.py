"""Layer-sequential unit-variance initialisation, against its definition."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from googlenet import GoogLeNet
from googlenet.network.initialisation import initialise
from googlenet.network.unit_variance import scale_to_unit_variance
from googlenet.randomness import torch_generator


def images() -> torch.Tensor:
    return torch.randn(16, 3, 64, 64, generator=torch_generator(3, "sampling"))


def scaled(seed: int = 0, width: float = 0.25, of: torch.Tensor | None = None) -> GoogLeNet:
    model = GoogLeNet(10, width=width)
    initialise(model, "lsuv", torch_generator(seed, "initial_weights"))
    scale_to_unit_variance(model, images() if of is None else of, torch_generator(seed, "dropout"))
    return model


@cache
def scaled_once() -> GoogLeNet:
    """A network for tests that change no weight."""
    return scaled()


def layers(model: GoogLeNet) -> dict[str, Any]:
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}


@torch.no_grad()
def test_every_layer_of_all_three_classifiers_puts_out_variance_one() -> None:
    model = scaled_once()
    variances: dict[str, float] = {}
    for name, layer in layers(model).items():
        layer.register_forward_hook(lambda _, __, y, name=name: variances.update({name: y.var(correction=0).item()}))
    model.train()(images(), model.draw_masks(16, torch_generator(0, "dropout")))
    assert set(variances) == set(layers(model))
    assert len(variances) == 57 + 1 + 2 * 3  # convolutions, the classifier, and three layers of each auxiliary one
    assert all(variance == pytest.approx(1, abs=1e-3) for variance in variances.values()), variances


def test_weights_are_orthonormal_but_for_their_scale() -> None:
    for name, layer in layers(scaled_once()).items():
        matrix = layer.weight.flatten(1).double()
        gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
        scale = gram.diagonal().mean()
        assert torch.allclose(gram / scale, torch.eye(len(gram), dtype=torch.float64), atol=1e-4), name


def test_biases_stay_zero_and_the_mode_of_the_network_is_kept() -> None:
    model = scaled()
    assert all(not layer.bias.any() for layer in layers(model).values())
    model.eval()
    scale_to_unit_variance(model, images(), torch_generator(0, "dropout"))
    assert not model.training


def test_the_same_seed_and_images_give_the_same_weights() -> None:
    first, again, other = (model.state_dict() for model in (scaled_once(), scaled(), scaled(seed=1)))
    assert all(torch.equal(first[name], tensor) for name, tensor in again.items())
    assert not torch.equal(first["conv1.conv.weight"], other["conv1.conv.weight"])


def test_images_without_contrast_are_refused_by_the_layer_that_cannot_be_scaled() -> None:
    with pytest.raises(ValueError, match=r"the output of conv1\.conv has variance"):
        scaled(of=torch.zeros(4, 3, 64, 64))


def test_batch_normalisation_is_refused() -> None:
    with pytest.raises(ValueError, match="variant paper"):
        scale_to_unit_variance(GoogLeNet(10, "bn", width=0.125), images(), torch_generator(0, "dropout"))
