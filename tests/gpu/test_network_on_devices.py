"""The network on each device against a CPU and against formulas: outputs, gradients, normalisation, compiled code."""

from typing import Any

import pytest
import torch
from torch import Tensor

from googlenet.network.arithmetic import FP32, Arithmetic, can_compile, compile_network
from googlenet.network.choices import Variant
from googlenet.network.layers import (
    LRN_CONSTANTS,
    LocalResponseNorm,
    LRNConstants,
    _fused_normalisation,
    _normalised,
)
from googlenet.network.model import Inception, fold_batch_norm
from googlenet.network.own_operations import own_operations
from googlenet.network.table1 import InceptionChannels
from googlenet.training.loop import head_losses, total_loss
from tests.gpu.small_training import CLASSES, CROP_PX, assert_close, network


def images(device: str, *, channels_last: bool) -> Tensor:
    drawn = torch.randn(8, 3, CROP_PX, CROP_PX, generator=torch.Generator().manual_seed(0))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return drawn.to(device).contiguous(memory_format=layout)


def outputs_and_gradients(
    variant: Variant, device: str, dtype: torch.dtype, *, channels_last: bool
) -> tuple[list[Tensor], dict[str, Tensor]]:
    model = network(variant, device, dtype=dtype)
    if not channels_last:
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    labels = torch.arange(8, device=device) % CLASSES
    with FP32.in_force(device), own_operations():
        outputs = model.train()(images(device, channels_last=channels_last).to(dtype))
        total_loss(head_losses(outputs, labels)).backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in model.parameters())
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return [output.detach().cpu() for output in outputs], gradients


# Of gradients in single precision, the bound leaves room for those that jump.
@pytest.mark.parametrize(
    ("dtype", "of_outputs", "of_gradients"), [(torch.float64, 1e-9, 1e-5), (torch.float32, 1e-3, 0.1)]
)
@pytest.mark.parametrize("variant", ["paper", "bn"])
def test_outputs_and_gradients_are_those_of_a_cpu(
    variant: Variant, dtype: torch.dtype, of_outputs: float, of_gradients: float, device: str
) -> None:
    """On a CPU itself, those of the other memory layout, for which it has other code."""
    outputs, gradients = outputs_and_gradients(variant, device, dtype, channels_last=True)
    expected, exact = outputs_and_gradients(variant, "cpu", dtype, channels_last=False)
    torch.testing.assert_close(outputs, expected, rtol=of_outputs, atol=of_outputs)
    assert_close(gradients, exact, of_gradients)


@pytest.mark.parametrize("variant", ["paper", "bn"])
def test_folding_batch_normalisation_changes_no_output(variant: Variant, device: str) -> None:
    model = network(variant, device).eval()
    with torch.inference_mode(), FP32.in_force(device):
        inputs = images(device, channels_last=True)
        torch.testing.assert_close(fold_batch_norm(model)(inputs).logits, model(inputs).logits, rtol=1e-4, atol=1e-4)


def normalised_by_formula(x: Tensor, constants: LRNConstants) -> Tensor:
    """Return x / (k + alpha / size * the sum of squares over neighbouring channels) ** beta, channel by channel."""
    size, alpha, beta, k = constants
    x = x.double().cpu()
    channels = []
    for channel in range(x.shape[1]):
        first, last = channel - size // 2, channel - size // 2 + size
        total = (x[:, max(first, 0) : last] ** 2).sum(dim=1)
        channels.append(x[:, channel] / (k + alpha / size * total) ** beta)
    return torch.stack(channels, dim=1)


@pytest.mark.parametrize("lrn", LRN_CONSTANTS)
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(
    ("dtype", "scale", "tolerance"),
    # Squares of the last are beyond the largest number of its dtype.
    [(torch.float32, 20, 1e-5), (torch.bfloat16, 20, 2e-2), (torch.float16, 300, 2e-3)],
)
def test_local_response_normalisation_is_its_formula(
    lrn: str, dtype: torch.dtype, scale: int, tolerance: float, fused: bool, device: str
) -> None:
    """On a GPU it can be compiled by itself."""
    if fused and device == "cuda" and not can_compile(device):
        pytest.skip("torch.compile finds no C compiler for Triton")
    x = (scale * torch.randn(2, 24, 7, 7, generator=torch.Generator().manual_seed(0))).to(device, dtype)
    layer = LocalResponseNorm(LRN_CONSTANTS[lrn])
    layer.fused = fused
    found = layer(x.contiguous(memory_format=torch.channels_last))
    assert not (fused and x.is_cuda) or _fused_normalisation(x.device) is not _normalised, "the compiler failed"
    assert (found.dtype, found.stride()) == (dtype, x.contiguous(memory_format=torch.channels_last).stride())
    expected = normalised_by_formula(x, LRN_CONSTANTS[lrn])
    torch.testing.assert_close(found.double().cpu(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.processes
@pytest.mark.timeout(280)
def test_compiled_code_computes_the_same(device: str) -> None:
    """One inception module, forwards and backwards."""
    if not can_compile(device):
        pytest.skip(f"torch.compile finds no compiler for {device}")

    def outcome(run: Any, module: Inception, inputs: Tensor) -> dict[str, Tensor]:
        module.zero_grad()
        with FP32.in_force(device):
            outputs = run(inputs)
            outputs.square().mean().backward()
        gradients = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
        return {"outputs": outputs.detach(), **gradients}

    module = Inception(16, InceptionChannels(8, 8, 16, 8, 8, 8), "paper").to(device)
    inputs = torch.randn(4, 16, 14, 14, generator=torch.Generator().manual_seed(0)).to(device)
    assert_close(outcome(compile_network(module), module, inputs), outcome(module, module, inputs), 1e-4)


def test_tf32_is_used_where_it_is_chosen_and_nowhere_else(device: str) -> None:
    """A product of two matrices of ones and a little more, which 10 bits cannot tell from ones."""
    if device == "cuda" and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this GPU has no TF32")
    matrix = torch.full((256, 256), 1 + 2.0**-13, device=device)
    with FP32.in_force(device):
        assert float((matrix @ matrix)[0, 0]) != 256.0
    with Arithmetic("tf32").in_force(device):
        assert (float((matrix @ matrix)[0, 0]) == 256.0) == (device == "cuda")
