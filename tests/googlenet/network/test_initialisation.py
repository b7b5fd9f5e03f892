"""Initial weights: scales as stated by their sources, and no randomness but the generator's."""

import math
from functools import cache

import pytest
import torch

from googlenet import GoogLeNet
from googlenet.network.initialisation import initialise
from googlenet.randomness import torch_generator


def drawn(scheme: str, model: GoogLeNet, seed: int = 0) -> dict[str, torch.Tensor]:
    initialise(model, scheme, torch_generator(seed, "initial_weights"))  # type: ignore[arg-type]
    return model.state_dict()


@cache
def full_width(scheme: str) -> dict[str, torch.Tensor]:
    """Weights whose layers are wide enough to estimate a deviation from; drawn once, to read."""
    return drawn(scheme, GoogLeNet(100))


def test_the_same_seed_gives_the_same_weights_whatever_the_global_state() -> None:
    torch.manual_seed(1)
    first = drawn("xavier", GoogLeNet(10, width=0.25))
    torch.manual_seed(2)
    second, other = (drawn("xavier", GoogLeNet(10, width=0.25), seed) for seed in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["conv1.conv.weight"], other["conv1.conv.weight"])


@pytest.mark.parametrize(
    ("scheme", "layer", "std"),
    [
        ("xavier", "conv2.conv", 1 / math.sqrt(64 * 9)),  # uniform within sqrt(3 / fan_in)
        ("he", "conv2.conv", math.sqrt(2 / (64 * 9))),
        ("gaussian", "inception.4d.conv_5x5_reduce.conv", 0.2),
        ("gaussian", "aux.4a.conv.conv", 0.08),
        ("gaussian", "aux.4d.hidden", 0.02),
        ("gaussian", "aux.4d.classifier", 1 / 1024),
        ("gaussian", "conv1.conv", 0.1),
    ],
)
def test_scales(scheme: str, layer: str, std: float) -> None:
    weight = full_width(scheme)[f"{layer}.weight"]
    assert weight.std().item() == pytest.approx(std, rel=0.05)
    assert abs(weight.mean().item()) < 4 * std / math.sqrt(weight.numel())


def test_biases_are_caffes() -> None:
    weights = full_width("xavier")
    assert (weights["conv1.conv.bias"] == torch.tensor(0.2)).all()
    assert (weights["aux.4a.hidden.bias"] == torch.tensor(0.2)).all()
    assert (weights["classifier.bias"] == 0).all()
    assert (weights["aux.4d.classifier.bias"] == 0).all()


def test_without_it_the_answers_hardly_depend_on_the_image() -> None:
    """What the network's docstring warns of."""
    images = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    model = GoogLeNet(10, aux_heads=False, width=0.25).eval()
    shares = []
    for scheme in (None, "he"):
        if scheme:
            initialise(model, scheme, torch_generator(0, "initial_weights"))  # type: ignore[arg-type]
        with torch.no_grad():
            logits = model(images).logits
        shares.append((logits.std(dim=0).mean() / logits.abs().mean()).item())
    assert shares[0] < 1e-4
    assert shares[1] > 1e-2


def test_an_unknown_scheme_is_refused(unchecked_types: None) -> None:
    with pytest.raises(ValueError, match="orthogonal"):
        drawn("orthogonal", GoogLeNet(2, width=0.125))
