"""The loss of a student against SciPy's divergence, and its step against PyTorch's own loss."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from torch import Tensor

from googlenet import GoogLeNet
from googlenet.network.initialisation import initialise
from googlenet.network.model import Outputs
from googlenet.network.preprocessing import SCRATCH_PREPROCESSING
from googlenet.randomness import torch_generator
from googlenet.training.data_parallel import Share
from googlenet.training.distillation import Distillation, softened
from googlenet.training.health import HeadMonitor, NotFiniteError
from googlenet.training.learning_rate import LearningRate
from googlenet.training.loader import Batch
from googlenet.training.loop import LoopSettings, StepResult, TrainState, head_losses, total_loss, train_step
from googlenet.training.optim import PolyakAverage, build_sgd

CLASSES, CROP_PX = 5, 35


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_divergence_is_scipys_of_both_softened() -> None:
    logits, answers = drawn(6, CLASSES), drawn(6, CLASSES, seed=1).softmax(dim=1)
    found = Distillation(3.0, 0.25).divergences(Outputs(logits), answers, num_images=6)
    wanted = softmax(np.log(answers.double().numpy()) / 3.0, axis=1)
    given = softmax(logits.double().numpy() / 3.0, axis=1)
    assert list(found) == ["teacher_logits"]
    assert found["teacher_logits"].item() == pytest.approx(entropy(wanted, given, axis=1).mean(), rel=1e-5)


def test_a_class_that_the_teacher_excludes_costs_nothing_but_stays_finite() -> None:
    answers = torch.tensor([[1.0, 0.0, 0.0]])
    assert torch.allclose(softened(answers, 1.0), answers)
    assert Distillation(1.0, 0.0).divergences(Outputs(drawn(1, 3)), answers, 1)["teacher_logits"].isfinite()


def test_every_classifier_gets_the_labels_and_the_teacher_by_the_weight() -> None:
    outputs = Outputs(drawn(4, CLASSES), drawn(4, CLASSES, seed=1), drawn(4, CLASSES, seed=2))
    labels, answers = torch.tensor([0, 1, 2, 3]), drawn(4, CLASSES, seed=3).softmax(dim=1)
    distillation = Distillation(2.0, 0.25)
    losses = head_losses(outputs, labels) | distillation.divergences(outputs, answers, 4)
    mean = torch.nn.KLDivLoss(reduction="batchmean")
    expected = torch.zeros(())
    for share, logits in zip((1.0, 0.3, 0.3), outputs, strict=True):
        soft = (answers.log() / 2).softmax(dim=1)
        of_teacher = 4 * mean((logits / 2).log_softmax(dim=1), soft)
        expected += share * (0.25 * torch.nn.functional.cross_entropy(logits, labels) + 0.75 * of_teacher)
    torch.testing.assert_close(total_loss(distillation.mixed(losses)), expected)


def a_state() -> TrainState:
    model = GoogLeNet(CLASSES, "bn", False, 0.03)
    initialise(model, "he", torch_generator(0, "initial_weights"))
    optimizer = build_sgd(model, momentum=0.9, weight_decay=0.0, decay_biases=False)
    return TrainState(model, optimizer, PolyakAverage(model, 1.0))


def a_batch(targets: Tensor | None) -> Batch:
    images = torch.randint(
        0, 256, (8, 3, CROP_PX, CROP_PX), dtype=torch.uint8, generator=torch_generator(0, "sampling")
    )
    return Batch(images, torch.zeros(8, dtype=torch.int64), 8, targets)


SETTINGS = LoopSettings(LearningRate(0.1, "cosine", 0, 10), 10, SCRATCH_PREPROCESSING, 0)


def test_a_student_without_labels_learns_the_teachers_answer_not_the_label() -> None:
    targets = torch.full((8, CLASSES), 0.01)
    targets[:, 3] = 0.96
    state, settings = a_state(), replace(SETTINGS, distillation=Distillation(1.0, 0.0))
    results = [train_step(state, a_batch(targets), settings).result() for _ in range(8)]
    assert list(results[0].losses) == ["logits", "teacher_logits"]
    assert results[-1].losses["teacher_logits"] < 0.5 * results[0].losses["teacher_logits"]
    assert results[-1].losses["logits"] > results[0].losses["logits"]


def test_teachers_answers_that_are_missing_are_an_error() -> None:
    with pytest.raises(ValueError, match="needs batches with targets"):
        train_step(a_state(), a_batch(None), replace(SETTINGS, distillation=Distillation(1.0, 0.5)))


def test_pinned_batches_keep_all_they_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)  # needs a GPU
    batch = a_batch(torch.ones(8, CLASSES))
    pinned = batch.pin_memory()
    assert all(getattr(pinned, held.name) is getattr(batch, held.name) for held in fields(batch))


def test_workers_sum_to_the_divergence_of_the_whole_batch() -> None:
    logits, answers = drawn(7, CLASSES), drawn(7, CLASSES, seed=1).softmax(dim=1)
    distillation = Distillation(2.0, 0.5)

    def divergence(share: Share) -> Tensor:
        return distillation.divergences(Outputs(share.of(logits)), share.of(answers), 7)["teacher_logits"]

    torch.testing.assert_close(divergence(Share(0, 3)) + divergence(Share(1, 3)) + divergence(Share(2, 3)),
                               divergence(Share()))  # fmt: skip


def test_the_alarm_watches_the_labels_and_names_a_teacher_whose_loss_is_not_finite() -> None:
    monitor = HeadMonitor(num_classes=CLASSES, patience_steps=4)
    for step in range(1, 5):
        monitor.observe(StepResult(step, 8, {"logits": 0.5, "teacher_logits": 9.0}, 0.1, 1.0))
    assert not monitor.dead
    with pytest.raises(NotFiniteError, match="the loss of the classifier against the teacher is nan"):
        monitor.observe(StepResult(5, 8, {"logits": 0.5, "teacher_logits": float("nan")}, 0.1, 1.0))
