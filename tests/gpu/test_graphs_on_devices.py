"""Steps that are recorded and replayed, against steps taken one by one: CUDA graphs, and on a CPU a stand-in."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from googlenet.network.arithmetic import FP32, Precision, profits_from_bf16
from googlenet.network.choices import Variant
from googlenet.network.initialisation import initialise
from googlenet.network.model import GoogLeNet
from googlenet.network.preprocessing import SCRATCH_PREPROCESSING
from googlenet.randomness import torch_generator
from googlenet.training.distillation import Distillation
from googlenet.training.graphs import WARM_UP_STEPS, CudaRecorder, Recorder, StepFigures, StepGraph, Work
from googlenet.training.learning_rate import LearningRate
from googlenet.training.loader import Batch
from googlenet.training.loop import LoopSettings, StepResult, TrainState, train_step
from googlenet.training.optim import PolyakAverage, build_sgd
from tests.gpu.small_training import assert_close, in_double


class RecorderOfOperations:
    """Records PyTorch's operations, and repeats them with the same numbers on the same memory, like a CUDA graph.

    Everything that Python computes between two operations is lost, as it is there. ``state`` lists the tensors that a
    capture must leave alone, since it does nothing yet.
    """

    def __init__(self, state: Callable[[], Iterable[Tensor]]) -> None:
        self._state = state
        self._calls: list[tuple[Any, Any, Any, Any]] = []

    def warm_up(self, work: Work) -> StepFigures:
        return work()

    def capture(self, work: Work) -> StepFigures:
        before = [(tensor, tensor.clone()) for tensor in self._state()]
        calls = self._calls

        class Mode(TorchDispatchMode):
            def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                result = function(*args, **(kwargs or {}))
                calls.append((function, args, kwargs or {}, result))
                return result

        with Mode():
            figures = work()
        with torch.no_grad():
            for tensor, value in before:
                tensor.copy_(value)
        return figures

    @torch.no_grad()
    def replay(self) -> None:
        for function, args, kwargs, recorded in self._calls:
            results = function(*args, **kwargs)
            for own, new in zip(tree_leaves(recorded), tree_leaves(results), strict=True):
                if isinstance(own, Tensor) and own.data_ptr() != new.data_ptr():
                    own.copy_(new)

    def forget(self) -> None:
        self._calls.clear()


def recorder_on(device: str, state: TrainState) -> Recorder:
    return CudaRecorder() if device == "cuda" else RecorderOfOperations(lambda: state.tensors().values())


class Refusing:
    """Recorder whose capture fails: on a GPU because the step reads a number from it."""

    def __init__(self, recorder: Recorder, device: str) -> None:
        self._recorder, self._device = recorder, device
        self.warm_up, self.replay, self.forget = recorder.warm_up, recorder.replay, recorder.forget

    def capture(self, work: Work) -> StepFigures:
        def work_that_waits() -> StepFigures:
            figures = work()
            figures.gradient_norm.item()
            return figures

        self._recorder.capture(work_that_waits)
        raise RuntimeError("no capture\nsecond line")


class SinglePrecisionRate(LearningRate):
    """The rates that a graph can have: its rate is a float32. A few steps enlarge this rounding a thousandfold."""

    def at(self, epoch: float) -> float:
        return float(torch.tensor(super().at(epoch), dtype=torch.float32))


def batches(count: int, small: int = 0) -> list[Batch]:
    """Different batches of four images; every fifth has fewer, like the last of an epoch; crops of the first are small.

    ``small`` is how many these are.
    """
    generator = torch.Generator().manual_seed(1)
    sizes = [3 if number % 5 == 4 else 4 for number in range(count)]
    crops_px = [42 if small and number >= small else 35 for number in range(count)]
    return [
        Batch.whole(
            torch.randint(0, 256, (size, 3, crop_px, crop_px), dtype=torch.uint8, generator=generator),
            torch.randint(0, 4, (size,), generator=generator),
        )
        for size, crop_px in zip(sizes, crops_px, strict=True)
    ]


def trained(
    device: str,
    variant: Variant,
    count: int,
    kind: str,
    distillation: Distillation | None = None,
    precision: Precision | None = None,
    small: int = 0,
) -> tuple[TrainState, list[StepResult], list[str]]:
    """Return the state after ``count`` steps, the figures of each, and the failures of the capture.

    Without a ``precision``, in double precision.
    """
    model = GoogLeNet(4, variant, width=0.125)
    initialise(model, "he", torch_generator(0, "initial_weights"))
    model.to(device, torch.float32 if precision else torch.float64)
    optimizer = build_sgd(model, momentum=0.9, weight_decay=1e-3, decay_biases=False)
    state = TrainState(model, optimizer, PolyakAverage(model, 5), network_for=None if precision else in_double(model))
    failures: list[str] = []
    if kind != "one by one":
        recorder = recorder_on(device, state)
        recorder = Refusing(recorder, device) if kind == "refused" else recorder
        state.graph = StepGraph(optimizer, 4, torch.device(device), recorder, failures.append)
    rate = SinglePrecisionRate(0.05, "cosine", 1, 3)
    settings = LoopSettings(rate, 4, SCRATCH_PREPROCESSING.on(torch.device(device)), 0, max_gradient_norm=5.0)
    settings, given = replace(settings, distillation=distillation, precision=precision or "fp32"), batches(count, small)
    if distillation:
        answers = torch.randn(count, 4, 4, generator=torch.Generator().manual_seed(2)).softmax(dim=2)
        given = [replace(batch, targets=own[: batch.num_images]) for batch, own in zip(given, answers, strict=True)]
    with FP32.in_force(device):
        taken = [train_step(state, batch, settings) for batch in given]
    return state, [step.result() for step in taken], failures


@cache
def one_by_one(device: str, variant: Variant, count: int) -> tuple[TrainState, list[StepResult], list[str]]:
    """What ``trained`` returns without a graph, to compare with."""
    return trained(device, variant, count, "one by one")


@pytest.mark.parametrize("variant", ["paper", "bn"])
@pytest.mark.parametrize("kind", ["recorded", "refused"])
def test_recorded_steps_are_those_taken_one_by_one(kind: str, variant: Variant, device: str) -> None:
    """Each with its own batch, masks and rate, also after a smaller batch; and so if the step cannot be recorded."""
    count = WARM_UP_STEPS + 5
    expected, figures, _ = one_by_one(device, variant, count)
    state, replayed, failures = trained(device, variant, count, kind)
    assert len(failures) == (kind == "refused")
    assert all("\n" not in line for line in failures)
    for one, other in zip(figures, replayed, strict=True):
        assert one.losses == pytest.approx(other.losses, rel=1e-5)
        assert one.gradient_norm == pytest.approx(other.gradient_norm, rel=1e-5)
        assert replace(one, losses={}, gradient_norm=0.0) == replace(other, losses={}, gradient_norm=0.0)
    assert_close(state.tensors(), expected.tensors(), 1e-5)
    # A replay overwrites the figures of the one before.
    assert len({result.gradient_norm for result in replayed}) == count


@pytest.mark.parametrize("small", [2, WARM_UP_STEPS + 3, 5])  # before the capture, after it, at a smaller batch
def test_steps_on_crops_that_grow_are_recorded_anew(small: int, device: str) -> None:
    count = small + WARM_UP_STEPS + 4
    expected, figures, _ = trained(device, "paper", count, "one by one", small=small)
    state, replayed, failures = trained(device, "paper", count, "recorded", small=small)
    assert failures == []
    for one, other in zip(figures, replayed, strict=True):
        assert one.losses == pytest.approx(other.losses, rel=1e-5)
    assert_close(state.tensors(), expected.tensors(), 1e-5)


@pytest.mark.parametrize(("variant", "precision"), [("paper", "fp32"), ("bn", "bf16")])
def test_steps_in_the_arithmetic_of_training_are_recorded_too(
    variant: Variant, precision: Precision, device: str
) -> None:
    """Rounding differs a little between two such trainings even without a graph, and batches of four enlarge that."""
    if precision == "bf16" and not profits_from_bf16(device):
        pytest.skip(f"this {device} has no bfloat16 in hardware")
    count = WARM_UP_STEPS + 2
    _, figures, _ = trained(device, variant, count, "one by one", precision=precision)
    _, replayed, failures = trained(device, variant, count, "recorded", precision=precision)
    assert failures == []
    for one, other in zip(figures, replayed, strict=True):
        assert one.losses == pytest.approx(other.losses, rel=0.1)


def test_a_recorded_step_learns_the_teachers_answers_to_its_own_batch(device: str) -> None:
    count, distillation = WARM_UP_STEPS + 3, Distillation(2.0, 0.0)
    _, figures, _ = trained(device, "paper", count, "one by one", distillation)
    _, replayed, _ = trained(device, "paper", count, "recorded", distillation)
    for one, other in zip(figures, replayed, strict=True):
        assert one.losses == pytest.approx(other.losses, rel=1e-5)


def test_steps_after_the_warm_up_are_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    replays: list[int] = []
    replay = RecorderOfOperations.replay
    monkeypatch.setattr(RecorderOfOperations, "replay", lambda self: (replays.append(1), replay(self)))
    trained("cpu", "paper", WARM_UP_STEPS + 3, "recorded")
    assert len(replays) == 2  # without the smaller batch
    replays.clear()
    trained("cpu", "paper", 2 * (WARM_UP_STEPS + 3), "recorded", small=WARM_UP_STEPS + 3)
    assert len(replays) == 2 + 2
