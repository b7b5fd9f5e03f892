"""The optimiser against closed forms, and resumed training against uninterrupted training."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from googlenet import GoogLeNet
from googlenet.images.records import SCHEMA, WRITE_OPTIONS, Records, write_records
from googlenet.network.initialisation import initialise
from googlenet.network.model import Outputs
from googlenet.network.preprocessing import CAFFE_PREPROCESSING, SCRATCH_PREPROCESSING
from googlenet.randomness import torch_generator
from googlenet.training.augment import Sampling
from googlenet.training.batches import TrainingSamples, training_batches
from googlenet.training.learning_rate import LearningRate
from googlenet.training.loader import Batch
from googlenet.training.loop import (
    LoopSettings,
    StepResult,
    TrainState,
    count_errors,
    head_losses,
    total_loss,
    train_step,
)
from googlenet.training.optim import MomentumSGD, PolyakAverage, build_sgd, steps_at_a_time
from tests.googlenet.images.test_records import jpeg


def test_the_rate_loses_four_percent_every_eight_epochs() -> None:
    rate = LearningRate(0.01, "paper", warmup_epochs=0, total_epochs=250)
    assert [rate.at(epoch) for epoch in (0, 7.99)] == [0.01, 0.01]
    assert rate.at(8) == pytest.approx(0.0096)
    assert rate.at(249) == pytest.approx(0.01 * 0.96**31)


def test_cosine_with_warm_up_rises_and_falls_to_zero() -> None:
    rate = LearningRate(0.1, "cosine", warmup_epochs=2, total_epochs=12)
    assert rate.at(0) == 0
    assert rate.at(1) == pytest.approx(0.05)
    assert rate.at(2) == pytest.approx(0.1)
    assert rate.at(7) == pytest.approx(0.05)
    assert rate.at(12) == pytest.approx(0, abs=1e-12)


def test_the_average_of_weights_is_an_exponential_mean() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    average = PolyakAverage(layer, horizon_steps=4)
    expected = layer.weight.item()
    for step in range(1, 60):
        layer.weight.data.fill_(math.sin(step))
        average.update(step)
        expected += (math.sin(step) - expected) / min(4, 1 + step / 10)
    assert average.weights["weight"].item() == pytest.approx(expected, abs=1e-6)


def test_with_a_long_horizon_steps_are_averaged_several_at_a_time_to_the_same_mean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert [steps_at_a_time(horizon) for horizon in (1, 1999, 2000, 15_999, 16_000, 320_000)] == [1, 1, 2, 8, 16, 16]
    monkeypatch.setattr("googlenet.training.optim.HORIZON_PER_UPDATE", 10)
    layer = torch.nn.Linear(1, 1, bias=False)
    average, expected, updates = PolyakAverage(layer, horizon_steps=160), layer.weight.item(), set()
    for step in range(1, 3001):
        layer.weight.data.fill_(math.sin(step / 300))
        average.update(step)
        expected += (math.sin(step / 300) - expected) / min(160, 1 + step / 10)
        updates.add(average.weights["weight"].item())
        assert average.weights["weight"].item() == pytest.approx(expected, abs=0.05)
    assert len(updates) < 1000
    assert average.weights["weight"].item() == pytest.approx(expected, abs=0.02)


def test_the_loss_is_the_main_one_plus_three_tenths_of_each_auxiliary_one() -> None:
    main, aux_4a, aux_4d = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 0, 1])

    def cross_entropy(logits: Tensor) -> Tensor:
        return -(logits.log_softmax(1)[range(6), labels]).mean()

    expected = cross_entropy(main) + 0.3 * cross_entropy(aux_4a) + 0.3 * cross_entropy(aux_4d)
    torch.testing.assert_close(total_loss(head_losses(Outputs(main, aux_4a, aux_4d), labels)), expected)


def new_state(variant: str = "bn") -> TrainState:
    model = GoogLeNet(4, variant, width=0.125)  # type: ignore[arg-type]
    initialise(model, "he", torch_generator(0, "initial_weights"))
    optimizer = build_sgd(model, momentum=0.9, weight_decay=1e-3, decay_biases=False)
    return TrainState(model, optimizer, PolyakAverage(model, 5))


def some_batches(count: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    return [
        Batch.whole(torch.randint(0, 256, (4, 3, 35, 35), dtype=torch.uint8, generator=generator), torch.arange(4))
        for _ in range(count)
    ]


def train_epoch(
    state: TrainState, batches: list[Batch], settings: LoopSettings, on_step: Callable[[StepResult], object]
) -> None:
    for batch in batches:
        on_step(train_step(state, batch, settings).result())


SETTINGS = LoopSettings(LearningRate(0.01, "cosine", 1, 3), 4, SCRATCH_PREPROCESSING, seed=0)


@pytest.mark.parametrize("variant", ["paper", "bn"])
@pytest.mark.parametrize("stop", [1, 5])
def test_resumed_training_is_bit_identical_to_uninterrupted_training(variant: str, stop: int) -> None:
    batches = some_batches(8)
    whole, first, second = new_state(variant), new_state(variant), new_state(variant)
    train_epoch(whole, batches, SETTINGS, lambda _: None)
    train_epoch(first, batches[:stop], SETTINGS, lambda _: None)
    saved = {name: tensor.clone() for name, tensor in first.tensors().items()}
    second.load_tensors(saved, first.step)
    train_epoch(second, batches[stop:], SETTINGS, lambda _: None)
    expected, actual = whole.tensors(), second.tensors()
    assert expected.keys() == actual.keys()
    assert any(name.startswith("momentum/") for name in actual)
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


def test_weights_are_bit_identical_whether_images_are_read_by_row_group_or_one_by_one(tmp_path: Path) -> None:
    encoded = [jpeg(number) for number in range(19)]
    labels = [number % 4 for number in range(19)]
    columns = {"image_id": list(map(str, labels)), "image": encoded, "label": labels, "width": labels, "height": labels}
    table = pa.table(columns, SCHEMA)
    pq.write_table(table, tmp_path / "by_row_group.parquet", **WRITE_OPTIONS)
    with (tmp_path / "one_by_one.parquet").open("wb") as stream:
        write_records(stream, zip(*columns.values(), strict=True), {})
    trained = []
    for name in ("by_row_group", "one_by_one"):
        records = Records(pafs.LocalFileSystem(), [str(tmp_path / f"{name}.parquet")], [19])
        samples = TrainingSamples(records, 35, Sampling(), seed=5)
        state = new_state()
        train_epoch(state, list(training_batches(samples, 8, range(2))), SETTINGS, lambda _: None)
        trained.append(state.tensors())
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])
    assert not torch.equal(trained[0]["weights/classifier.weight"], new_state().tensors()["weights/classifier.weight"])


@pytest.mark.parametrize("variant", ["paper", "bn"])
def test_training_lowers_the_loss_of_all_three_heads(variant: str) -> None:
    state, seen = new_state(variant), []
    for head in state.model.aux.values():
        head.dropout.p = 0.0  # makes the losses of the last step comparable with those of the first
    constant = replace(SETTINGS, learning_rate=LearningRate(0.02, "paper", 0, 30))
    train_epoch(state, some_batches(1) * 30, constant, seen.append)
    assert seen[0].losses.keys() == {"logits", "aux_4a", "aux_4d"}
    for head in seen[0].losses:
        assert seen[-1].losses[head] < 0.7 * seen[0].losses[head]
    assert [result.step for result in seen] == list(range(1, 31))


def test_each_step_drops_others_and_the_same_step_the_same() -> None:
    still = replace(SETTINGS, learning_rate=LearningRate(0.0, "paper", 0, 3))
    [batch] = some_batches(1)
    first, second = new_state("paper"), new_state("paper")
    losses = [train_step(first, batch, still).result().losses["logits"] for _ in range(3)]
    assert losses == [train_step(second, batch, still).result().losses["logits"] for _ in range(3)]
    assert len(set(losses)) == 3  # the weights do not change


def test_errors_are_counted_with_the_weights_that_are_passed_and_with_the_models_own() -> None:
    state = new_state()
    constant = {"classifier.weight": torch.zeros_like(state.model.classifier.weight)}
    state.model.load_state_dict({**constant, "classifier.bias": torch.tensor([9.0, 0, 0, 0])}, strict=False)
    other = {**constant, "classifier.bias": torch.tensor([0.0, 0.0, 9.0, 0.0])}  # answers class 2, always
    batches = some_batches(3)
    labels = torch.cat([batch.labels for batch in batches])
    expected = [int((labels != 2).sum()), int((labels != 0).sum())]
    assert count_errors(state.model, [other, {}], batches, SETTINGS).tolist() == [*expected, 12]


def test_biases_and_normalisation_are_not_decayed() -> None:
    model = GoogLeNet(4, "bn", width=0.125)
    optimizer = build_sgd(model, momentum=0.9, weight_decay=0.1, decay_biases=False)
    decayed = {id(p) for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    kinds = {type(m): [id(p) in decayed for p in m.parameters(recurse=False)] for m in model.modules()}
    assert kinds[torch.nn.Conv2d] == [True]
    assert kinds[torch.nn.Linear] == [True, False]
    assert kinds[torch.nn.BatchNorm2d] == [False, False]


def test_the_steps_are_those_of_pytorchs_optimiser() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=generator) for shape in ((8, 4, 3, 3), (8,), (3,))]
    trained = []
    for build in (MomentumSGD, partial(torch.optim.SGD, lr=0.0, fused=True)):
        convolution, bias, unused = (torch.nn.Parameter(weight.clone()) for weight in weights)
        groups = [{"params": [convolution, unused], "weight_decay": 0.1}, {"params": [bias], "weight_decay": 0.0}]
        optimizer = build(groups, momentum=0.9)
        for step in range(3):
            for group in optimizer.param_groups:
                group["lr"] = 0.1 / (step + 1)
            optimizer.zero_grad()
            ((convolution * weights[0]).square().sum() + (bias - step).square().sum()).backward()
            optimizer.step()
        trained.append(
            [convolution, bias, unused, *(optimizer.state[p]["momentum_buffer"] for p in (convolution, bias))]
        )
    for ours, reference in zip(*trained, strict=True):
        assert torch.equal(ours, reference)


def test_preprocessing_is_caffes() -> None:
    red = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    red[:, 0] = 255
    assert CAFFE_PREPROCESSING(red)[0, :, 0, 0].tolist() == [0 - 104, 0 - 117, 255 - 123]


def test_pixels_on_another_scale_are_refused(unchecked_types: None) -> None:
    with pytest.raises(TypeError, match=r"must be uint8 from 0 to 255, got torch\.float32"):
        CAFFE_PREPROCESSING(torch.rand(1, 3, 2, 2))
