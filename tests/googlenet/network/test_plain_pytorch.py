"""A network outside of this project's training loop is plain PyTorch, whatever the number of its images."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from googlenet import GoogLeNet
from googlenet.network.choices import Variant
from googlenet.network.initialisation import initialise
from googlenet.network.layers import Conv
from googlenet.network.lean import FEW_IMAGES
from googlenet.randomness import torch_generator

CLASSES, WIDTH = 5, 0.125
MANY = FEW_IMAGES + 1


def network(variant: Variant = "paper", seed: int = 0) -> GoogLeNet:
    """Return a small network in float64, in evaluation."""
    model = GoogLeNet(CLASSES, variant, aux_heads=False, width=WIDTH)
    initialise(model, "he", torch_generator(seed, "initial_weights"))
    return model.double().eval()


def images(number: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(number, 3, 35, 35, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("number", [FEW_IMAGES, MANY])
def test_a_hook_on_a_convolution_sees_its_rectified_output(number: int) -> None:
    model, least = network(), {}
    for name, module in model.named_modules():
        if isinstance(module, Conv):
            module.register_forward_hook(lambda _m, _i, out, name=name: least.update({name: out.min().item()}))
    model(images(number))
    assert len(least) == 3 + 9 * 6
    assert set(least.values()) == {0.0}


@pytest.mark.parametrize("variant", ["paper", "bn"])
def test_one_vmap_computes_several_networks(variant: Variant) -> None:
    networks = [network(variant, seed) for seed in (0, 1)]
    parameters, buffers = torch.func.stack_module_state(networks)  # type: ignore[arg-type]
    base = copy.deepcopy(networks[0]).to("meta")

    def logits(parameters: Any, buffers: Any, inputs: Tensor) -> Tensor:
        outputs: Tensor = torch.func.functional_call(base, (parameters, buffers), (inputs,)).logits
        return outputs

    with torch.no_grad():
        found = torch.vmap(logits, in_dims=(0, 0, None))(parameters, buffers, images(2))
        expected = torch.stack([model(images(2)).logits for model in networks])
    torch.testing.assert_close(found, expected)


def test_gradients_by_torch_func_are_those_of_backward() -> None:
    model, inputs = network(), images(MANY)

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        summed: Tensor = torch.func.functional_call(model, parameters, (inputs,)).logits.square().sum()
        return summed

    found = torch.func.grad(loss)({name: p.detach() for name, p in model.named_parameters()})
    for image in inputs:
        model(image[None]).logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, msg=name)


def test_second_derivatives_of_many_images_are_those_of_each() -> None:
    model = network()

    def penalty_gradient(inputs: Tensor) -> Tensor:
        inputs = inputs.clone().requires_grad_()
        [gradient] = torch.autograd.grad(model(inputs).logits.square().sum(), inputs, create_graph=True)
        [second] = torch.autograd.grad(gradient.square().sum(), inputs)
        return second

    found = penalty_gradient(images(MANY))
    assert found.abs().max() > 0
    torch.testing.assert_close(found, torch.cat([penalty_gradient(image[None]) for image in images(MANY)]))


def test_the_classifier_can_be_replaced() -> None:
    model = network()
    features = 8 * round(1024 * WIDTH / 8)
    head = nn.Linear(features, 7, dtype=torch.float64)
    model.classifier = nn.Identity()
    seen = model(images(2)).logits
    assert seen.shape == (2, features)
    model.classifier = nn.Sequential(nn.Dropout(0.2), head).eval()
    assert torch.equal(model(images(2)).logits, head(seen))
    # As exact as the head that reads them, also behind maps of half precision.
    model.to(torch.bfloat16)
    model.classifier = nn.Sequential(nn.Linear(features, 7))
    assert model(images(2).bfloat16()).logits.dtype == torch.float32


def test_outputs_and_masks_can_be_exported() -> None:
    model = GoogLeNet(CLASSES, width=WIDTH)
    masks = model.draw_masks(2, torch.Generator())
    for given in (masks, model.train()(images(2).float(), masks), model.eval()(images(2).float())):
        _, structure = pytree.tree_flatten(given)
        assert pytree.treespec_loads(pytree.treespec_dumps(structure)) == structure


@pytest.mark.parametrize("variant", ["paper", "bn"])
def test_shapes_are_computed_without_numbers(variant: Variant) -> None:
    with torch.device("meta"):
        model = GoogLeNet(CLASSES, variant, width=WIDTH).eval()
        assert model(torch.empty(2, 3, 64, 64)).logits.shape == (2, CLASSES)
