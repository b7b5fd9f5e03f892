"""Operations that keep little: the numbers of the plain definitions, from less memory."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from googlenet.network import lean
from googlenet.network.choices import Variant
from googlenet.network.layers import Conv
from googlenet.network.lean import max_pool
from googlenet.network.model import GoogLeNet, Inception


@pytest.fixture(autouse=True)
def _small_maps_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean, "SMALL_MAPS", 0)


LAYOUTS = {"channels last": torch.channels_last, "channels first": torch.contiguous_format}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 0), (2, 2, 0), (3, 1, 1)])
@pytest.mark.parametrize("height_width", [(14, 14), (15, 9), (7, 30), (2, 2)])
def test_pooling_and_its_gradient_equal_pytorchs(
    kernel: int,
    stride: int,
    padding: int,
    height_width: tuple[int, int],
    dtype: torch.dtype,
    layout: torch.memory_format,
) -> None:
    values = torch.randn(9, 8, *height_width, generator=torch.Generator().manual_seed(3)).to(dtype)
    values = (4 * values).round().to(memory_format=layout)  # many ties
    found, expected = (values.clone().requires_grad_() for _ in range(2))
    pooled = max_pool(found, kernel, stride, padding)
    reference = functional.max_pool2d(expected, kernel, stride, padding, ceil_mode=stride > 1)
    assert torch.equal(pooled, reference)
    assert pooled.stride() == reference.stride()
    gradient = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(4)).to(dtype)
    pooled.backward(gradient)
    reference.backward(gradient)
    assert torch.equal(found.grad, expected.grad)
    assert found.grad.stride() == expected.grad.stride()


def test_maps_of_more_than_sixteen_bits_are_pooled_too() -> None:
    values = torch.randn(9, 1, 3, 40_000, generator=torch.Generator().manual_seed(0))
    found, expected = (values.clone().requires_grad_() for _ in range(2))
    max_pool(found).sum().backward()
    functional.max_pool2d(expected, 3, 2, ceil_mode=True).sum().backward()
    assert torch.equal(found.grad, expected.grad)


def test_maps_that_repeat_or_are_parts_of_others_are_pooled_too() -> None:
    whole = torch.randn(9, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    for part in (lambda x: x[:, ::2], lambda x: x[:, :, 1:, 1:], lambda x: x[:1].expand(12, 8, 6, 6), lambda x: x[:0]):
        found, expected = (whole.clone().requires_grad_() for _ in range(2))
        max_pool(part(found)).square().sum().backward()
        functional.max_pool2d(part(expected), 3, 2, ceil_mode=True).square().sum().backward()
        assert torch.equal(found.grad, expected.grad)


class Plain(GoogLeNet):
    """The network with each operation where figure 3 of the paper draws it."""

    def stem(self, images: Tensor) -> Tensor:
        x = self.lrn(functional.max_pool2d(_plain(self.conv1, images), 3, 2, ceil_mode=True))
        x = self.lrn(_plain(self.conv2, _plain(self.conv2_reduce, x)))
        return functional.max_pool2d(x, 3, 2, ceil_mode=True)


def _plain(conv: Conv, x: Tensor) -> Tensor:
    return functional.relu(conv.bn(conv.conv(x)))


def _plain_inception(module: Inception, x: Tensor) -> Tensor:
    branches = (
        _plain(module.conv_1x1, x),
        _plain(module.conv_3x3, _plain(module.conv_3x3_reduce, x)),
        _plain(module.conv_5x5, _plain(module.conv_5x5_reduce, x)),
        _plain(module.pool_proj, functional.max_pool2d(x, 3, 1, 1)),
    )
    return torch.cat(branches, 1)


def _trained(network: type[GoogLeNet], variant: Variant, crop_px: int) -> tuple[dict[str, Tensor], int]:
    """Return gradients and running statistics after one backward pass, and the bytes that were kept for it."""
    torch.manual_seed(1)
    model = network(5, variant, width=0.25).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(9, 3, crop_px, crop_px, generator=generator).contiguous(memory_format=torch.channels_last)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = model.train()(images, model.draw_masks(9, generator))
    weights = sum(parameter.nbytes for parameter in model.parameters())
    sum(logits.square().sum() for logits in outputs).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {**gradients, **dict(model.named_buffers())}, sum(kept.values()) - weights


@pytest.mark.parametrize("variant", ["bn", "paper"])
# The last maps of 35 px have one position, whose layout is ambiguous.
@pytest.mark.parametrize(("crop_px", "most"), [(112, 0.7), (35, 0.8)])
def test_training_keeps_less_than_the_plain_network_and_finds_its_gradients(
    variant: Variant, crop_px: int, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, kept = _trained(GoogLeNet, variant, crop_px)
    with monkeypatch.context() as plain:
        plain.setattr(Inception, "forward", _plain_inception)
        expected, kept_by_plain = _trained(Plain, variant, crop_px)
    assert found.keys() == expected.keys()
    different = [name for name in found if not torch.equal(found[name], expected[name])]
    assert different == []
    assert kept < most * kept_by_plain, f"{kept / kept_by_plain:.3f}"


@pytest.mark.parametrize("evaluate", [GoogLeNet.eval, GoogLeNet.train], ids=["evaluation", "training"])
def test_what_needs_no_gradient_is_computed_by_pytorch(
    evaluate: Callable[[GoogLeNet], GoogLeNet], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Tensor:
        raise AssertionError("an operation for backward passes ran")

    for name in ("_MaxPool", "_JoinedReLU"):
        monkeypatch.setattr(f"googlenet.network.lean.{name}.apply", refuse)
    model = evaluate(GoogLeNet(5, "bn", aux_heads=False, width=0.25, dropout=(0.0, 0.0)))
    with torch.no_grad():
        assert model(torch.zeros(9, 3, 64, 64)).logits.shape == (9, 5)


# Channels and side of what is pooled, from Table 1: after two convolutions, in nine modules, and between them.
POOLED = [(64, 112), (192, 56), (192, 28), (256, 28), (480, 28), (480, 14), *3 * [(512, 14)], (528, 14), (832, 14)]
POOLED += 2 * [(832, 7)]


def test_nearly_all_maps_of_full_size_count_and_none_of_a_quarter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    def is_lean(channels: int, side: int) -> bool:
        return lean.is_lean(torch.empty(32, channels, side, side, requires_grad=True))

    numbers = {size: size[0] * size[1] ** 2 for size in POOLED}
    assert sum(numbers[size] for size in POOLED if is_lean(*size)) > 0.95 * sum(numbers[size] for size in POOLED)
    assert not any(is_lean(channels // 4, side // 4) for channels, side in POOLED)
