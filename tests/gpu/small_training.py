"""A training small enough for a CPU, and a comparison of states after a few steps."""

from collections.abc import Sequence

import torch
from torch import Tensor

from googlenet.network.arithmetic import FP32
from googlenet.network.choices import Variant
from googlenet.network.initialisation import initialise
from googlenet.network.model import GoogLeNet
from googlenet.network.preprocessing import SCRATCH_PREPROCESSING
from googlenet.randomness import torch_generator
from googlenet.training.data_parallel import ALONE, Share
from googlenet.training.learning_rate import LearningRate
from googlenet.training.loader import Batch
from googlenet.training.loop import LoopSettings, TrainState, train_step
from googlenet.training.optim import PolyakAverage, build_sgd

CLASSES, CROP_PX, BATCH_SIZE = 5, 64, 8


def network(variant: Variant, device: str, seed: int = 0) -> GoogLeNet:
    """Return the network that this seed gives on every device; without dropout, whose masks a device draws itself."""
    model = GoogLeNet(CLASSES, variant, width=0.25, dropout=(0.0, 0.0))
    initialise(model, "he", torch_generator(seed, "initial_weights"))
    return model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def state_on(device: str, variant: Variant, seed: int = 0) -> TrainState:
    """Return the state before the first step."""
    model = network(variant, device, seed)
    optimizer = build_sgd(model, momentum=0.9, weight_decay=1e-3, decay_biases=False)
    return TrainState(model, optimizer, PolyakAverage(model, 5))


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
