"""A step in parts is the step of the whole batch, apart from rounding; which batches are computed in parts."""

from dataclasses import replace

import pytest
import torch

from googlenet.network.initialisation import initialise
from googlenet.network.model import GoogLeNet
from googlenet.randomness import torch_generator
from googlenet.training.distillation import Distillation
from googlenet.training.loader import Batch
from googlenet.training.loop import LoopSettings, TrainState, train_step
from googlenet.training.micro_batch import micro_batch_images
from googlenet.training.optim import PolyakAverage, build_sgd
from tests.googlenet.training.test_loop import SETTINGS, new_state
from tests.gpu.small_training import in_double

IMAGES, CLASSES = 5, 4


def batch() -> Batch:
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (IMAGES, 3, 35, 35), dtype=torch.uint8, generator=generator)
    targets = torch.rand(IMAGES, CLASSES, generator=generator).softmax(dim=1)
    return replace(Batch.whole(images, torch.arange(IMAGES) % CLASSES), targets=targets)


def double_state() -> TrainState:
    """Return a state in float64: in fp32, a rectifier may turn a difference in the last digit into a whole gradient."""
    model = GoogLeNet(CLASSES, "paper", width=0.125)
    initialise(model, "he", torch_generator(0, "initial_weights"))
    optimizer = build_sgd(model.double(), momentum=0.9, weight_decay=1e-3, decay_biases=False)
    return TrainState(model, optimizer, PolyakAverage(model, 5), network_for=in_double(model))


@pytest.mark.parametrize("distillation", [None, Distillation(2.0, 0.5)], ids=["labels", "teacher"])
@pytest.mark.parametrize(("micro_batch", "parts_images"), [(1, [1, 1, 1, 1, 1]), (2, [1, 2, 2]), (4, [2, 3])])
def test_parts_of_a_batch_take_the_step_of_the_whole(
    micro_batch: int, parts_images: list[int], distillation: Distillation | None
) -> None:
    whole, parts = double_state(), double_state()
    settings: LoopSettings = replace(SETTINGS, distillation=distillation)
    seen: list[int] = []
    parts.model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    for _ in range(2):
        expected = train_step(whole, batch(), settings).result()
        found = train_step(parts, batch(), replace(settings, micro_batch=micro_batch)).result()
        assert found.losses == pytest.approx(expected.losses, rel=1e-5)
        assert found.gradient_norm == pytest.approx(expected.gradient_norm, rel=1e-5)
    assert seen == 2 * parts_images
    of_parts = parts.tensors()
    for name, value in whole.tensors().items():
        torch.testing.assert_close(of_parts[name], value, rtol=1e-5, atol=1e-8, msg=name)


def test_a_batch_that_fits_is_computed_at_once_to_the_last_bit() -> None:
    whole, same = new_state("bn"), new_state("bn")
    train_step(whole, batch(), SETTINGS)
    train_step(same, batch(), replace(SETTINGS, micro_batch=IMAGES))
    expected, found = whole.tensors(), same.tensors()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_batch_normalisation_gpus_and_several_workers_need_the_whole_batch() -> None:
    with torch.device("meta"):
        paper, bn = (GoogLeNet(1000, variant, width=1.0) for variant in ("paper", "bn"))
    assert micro_batch_images(paper, 224, 1, on_gpu=False) == 8
    assert micro_batch_images(paper, 700, 1, on_gpu=False) == 1  # more than a part may hold
    assert micro_batch_images(bn, 224, 1, on_gpu=False) is None
    assert micro_batch_images(paper, 224, 1, on_gpu=True) is None
    assert micro_batch_images(paper, 224, 2, on_gpu=False) is None
