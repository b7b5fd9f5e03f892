"""A training small enough for a CPU, and a comparison of states after a few steps.

Networks are compared in double precision. In single precision, devices round differently by 1e-6 or so. Where that
changes the sign before a rectifier, or the larger of two values in a pooling window, a gradient jumps by percents.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from googlenet.network.arithmetic import FP32
from googlenet.network.choices import Variant
from googlenet.network.initialisation import initialise
from googlenet.network.model import GoogLeNet, Outputs
from googlenet.network.preprocessing import SCRATCH_PREPROCESSING
from googlenet.randomness import torch_generator
from googlenet.training.data_parallel import ALONE, Share
from googlenet.training.learning_rate import LearningRate
from googlenet.training.loader import Batch
from googlenet.training.loop import LoopSettings, TrainState, train_step
from googlenet.training.optim import PolyakAverage, build_sgd

CLASSES, CROP_PX, BATCH_SIZE = 5, 64, 8


def network(variant: Variant, device: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> GoogLeNet:
    """Return the network that this seed gives on every device; without dropout, whose masks a device draws itself."""
    model = GoogLeNet(CLASSES, variant, width=0.25, dropout=(0.0, 0.0))
    initialise(model, "he", torch_generator(seed, "initial_weights"))
    return model.to(device, dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def shallow(model: GoogLeNet) -> GoogLeNet:
    """Take out the inception modules that do not change the number of channels, and return the same network.

    To trace and compile each takes seconds. At a width of 0.03 the first one is left, at 0.05 three are.
    """
    modules: dict[str, Any] = dict(model.inception.items())
    stem: Any = model.conv2
    channels = stem.conv.out_channels
    for name, module in modules.items():
        branches = module.conv_1x1, module.conv_3x3, module.conv_5x5, module.pool_proj
        before, channels = channels, sum(branch.conv.out_channels for branch in branches)
        if before == channels:
            model.inception[name] = nn.Identity()
    return model


def in_double(model: nn.Module) -> Callable[[int], Callable[..., Outputs]]:
    """Return for ``TrainState.network_for`` what gives ``model``, whose weights are float64, its images as float64."""

    def forward(images: Tensor, masks: object) -> Outputs:
        outputs: Outputs = model(images.double(), masks)
        return outputs

    return lambda _: forward


def state_on(device: str, variant: Variant, seed: int = 0, dtype: torch.dtype = torch.float64) -> TrainState:
    """Return the state before the first step."""
    model = network(variant, device, seed, dtype)
    optimizer = build_sgd(model, momentum=0.9, weight_decay=1e-3, decay_biases=False)
    network_for = in_double(model) if dtype == torch.float64 else None
    return TrainState(model, optimizer, PolyakAverage(model, 5), network_for=network_for)


def settings_on(device: str, share: Share = ALONE) -> LoopSettings:
    """Return settings with a rate that differs in every step, and with clipped gradients."""
    preprocessing = SCRATCH_PREPROCESSING.on(torch.device(device))
    rate = LearningRate(0.02, "cosine", 1, 3)
    return LoopSettings(rate, 4, preprocessing, 0, max_gradient_norm=5.0, share=share)


def batches(sizes: Sequence[int]) -> list[Batch]:
    """Return different batches of these sizes."""
    generator = torch.Generator().manual_seed(1)
    shape = 3, CROP_PX, CROP_PX
    return [
        Batch.whole(
            torch.randint(0, 256, (size, *shape), dtype=torch.uint8, generator=generator),
            torch.randint(0, CLASSES, (size,), generator=generator),
        )
        for size in sizes
    ]


def train(state: TrainState, device: str, sizes: Sequence[int], share: Share = ALONE) -> list[float]:
    """Take a step for each size in exact fp32; return the loss of the classifier in each."""
    settings = settings_on(device, share)
    with FP32.in_force(device):
        taken = [train_step(state, _shared(batch, share), settings) for batch in batches(sizes)]
    return [step.result().losses["logits"] for step in taken]


def _shared(batch: Batch, share: Share) -> Batch:
    return Batch(share.of(batch.images), share.of(batch.labels), batch.num_images)


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], share_of_norm: float) -> None:
    """Compare tensors by the norm of their difference, as a share of the larger of their own and the mean norm."""
    assert found.keys() == expected.keys()
    pairs = {name: (found[name].cpu().double(), value.cpu().double()) for name, value in expected.items()}
    typical = sum(float(value.norm()) for _, value in pairs.values()) / len(pairs)
    for name, (ours, theirs) in pairs.items():
        difference = float((ours - theirs).norm())
        assert difference <= share_of_norm * max(float(theirs.norm()), typical), f"{name}: {difference}"
