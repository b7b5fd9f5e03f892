"""A training step as one CUDA graph: a GPU repeats hundreds of kernels without waiting for Python to queue each one.

A graph repeats the same kernels on the same memory. What changes from step to step is therefore copied into tensors
that stay where they are: the batch, the masks, and the learning rate.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from googlenet.network.arithmetic import first_line
from googlenet.network.layers import DropoutMasks
from googlenet.shapes import Float32, Int64, UInt8
from googlenet.training.optim import MomentumSGD

# Steps before the capture: they choose cuDNN's algorithms, compile what is compiled, and create the momentum.
WARM_UP_STEPS = 3


class StepInputs(NamedTuple):
    """Tensors on the device from which a step computes; all that differs between steps but the learning rate."""

    images: UInt8[Tensor, "n 3 h w"]
    labels: Int64[Tensor, " n"]
    masks: DropoutMasks
    targets: Float32[Tensor, "n c"] | None = None


class StepFigures(NamedTuple):
    """Names of the classifiers, and on the device the loss of each."""

    heads: tuple[str, ...]
    losses: Float32[Tensor, " heads"]
    gradient_norm: Float32[Tensor, ""]


Work = Callable[[], StepFigures]
Compute = Callable[[StepInputs], StepFigures]


@runtime_checkable
class Recorder(Protocol):
    """Records the kernels of some work and repeats them."""

    def warm_up(self, work: Work) -> StepFigures:
        """Do ``work`` as before a capture."""

    def capture(self, work: Work) -> StepFigures:
        """Record ``work`` without doing it; return the tensors into which each replay writes."""

    def replay(self) -> None:
        """Do the recorded work."""

    def forget(self) -> None:
        """Free what was recorded, so that other work can be."""


class CudaRecorder:
    """Recorder of CUDA graphs, on the current device."""

    def __init__(self) -> None:
        self._graph = torch.cuda.CUDAGraph()
        self._side = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def warm_up(self, work: Work) -> StepFigures:
        """Do ``work`` on another stream, as a capture does."""
        current = torch.cuda.current_stream()
        self._side.wait_stream(current)
        with torch.cuda.stream(self._side):
            figures = work()
        current.wait_stream(self._side)
        return figures

    def capture(self, work: Work) -> StepFigures:
        """Record ``work``."""
        current = torch.cuda.current_stream()
        try:
            # A thread that pins memory may call CUDA meanwhile: only calls of this thread can spoil the capture.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                return work()
        finally:  # a capture that fails leaves its own stream
            torch.cuda.set_stream(current)

    def replay(self) -> None:
        """Queue the recorded kernels."""
        self._graph.replay()

    def forget(self) -> None:
        """Free the recorded kernels and their memory, once they have run."""
        torch.cuda.synchronize()
        self._graph.reset()


class StepGraph:
    """Steps for batches of one size: a few as they come, then one that is recorded, and from then on its replays.

    Crops of another side begin anew: a recorded step has one shape.

    Args:
        optimizer: optimiser of the steps; its learning rates become tensors on ``device``.
        batch_size: images of the batches that are replayed; other batches are computed without a graph.
        device: device of the step.
        recorder: records and repeats a step.
        on_failure: called with one line if the step cannot be recorded; steps are then computed without a graph.
    """

    def __init__(
        self,
        optimizer: MomentumSGD,
        batch_size: int,
        device: torch.device,
        recorder: Recorder,
        on_failure: Callable[[str], None],
    ) -> None:
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(group["lr"], dtype=torch.float32, device=device)
        self._optimizer, self._batch_size = optimizer, batch_size
        self._recorder, self._on_failure = recorder, on_failure
        self._warmed_up = 0
        self._inputs: StepInputs | None = None
        self._figures: StepFigures | None = None
        self._has_failed = False

    def __call__(self, inputs: StepInputs, compute: Compute) -> StepFigures:
        """Take a step with ``inputs``, as ``compute`` does; ``compute`` must be the same each time."""
        if self._has_failed or len(inputs.labels) != self._batch_size:
            return compute(inputs)
        if self._inputs is not None and self._inputs.images.shape != inputs.images.shape:
            self._begin_anew()
        fixed = self._fixed(inputs)
        if self._warmed_up < WARM_UP_STEPS:
            figures = _copied(self._recorder.warm_up(lambda: compute(fixed)))
            self._warmed_up += 1
            return figures
        if self._figures is None and not self._capture(fixed, compute):
            return compute(inputs)
        self._recorder.replay()
        assert self._figures is not None  # noqa: S101  # for mypy
        return _copied(self._figures)

    def _begin_anew(self) -> None:
        if self._figures is not None:
            self._optimizer.zero_grad()  # the gradients lie in the memory of the recorded step
            self._recorder.forget()
        self._warmed_up, self._inputs, self._figures = 0, None, None

    def _capture(self, fixed: StepInputs, compute: Compute) -> bool:
        """Record a step; return whether that worked."""
        # Gradients that the recorded step creates stay at the same place.
        self._optimizer.zero_grad()
        try:
            self._figures = self._recorder.capture(lambda: compute(fixed))
        except Exception as error:  # noqa: BLE001  # CUDA, cuDNN and a compiler may raise anything
            self._has_failed = True
            self._optimizer.zero_grad()
            self._on_failure(first_line(error))
        return not self._has_failed

    def _fixed(self, inputs: StepInputs) -> StepInputs:
        """Copy ``inputs`` to where the recorded step reads them."""
        if self._inputs is None:
            masks = DropoutMasks(*(None if mask is None else mask.clone() for mask in inputs.masks))
            targets = None if inputs.targets is None else inputs.targets.clone()
            self._inputs = StepInputs(inputs.images.clone(), inputs.labels.clone(), masks, targets)
            return self._inputs
        own = self._inputs
        own.images.copy_(inputs.images, non_blocking=True)
        own.labels.copy_(inputs.labels, non_blocking=True)
        for kept, given in zip((*own.masks, own.targets), (*inputs.masks, inputs.targets), strict=True):
            if kept is not None and given is not None:
                kept.copy_(given, non_blocking=True)
        return own


def _copied(figures: StepFigures) -> StepFigures:
    """Return figures that the next step does not overwrite."""
    return StepFigures(figures.heads, figures.losses.clone(), figures.gradient_norm.clone())
