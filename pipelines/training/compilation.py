"""Compilation of a replica's network and CUDA graphs of its steps, and training without what is missing or broken."""

from collections.abc import Callable
from typing import TypeVar

import torch

from googlenet.network.arithmetic import (
    can_compile,
    compile_network,
    compiler_failure,
    compiler_name,
    first_line,
    is_of_compiler,
)
from googlenet.network.model import Outputs
from googlenet.training.data_parallel import parallel_network
from googlenet.training.graphs import CudaRecorder, StepGraph
from googlenet.training.loop import TrainState
from pipelines.job.progress import warn
from pipelines.training.task import ReplicaTask

T = TypeVar("T")


class TrainedNetwork:
    """The network that the steps of one worker call: compiled, as long as that works, if the task says so.

    Create it once ``state`` has its weights: with several workers, the first one's weights are sent to the others.

    Attributes:
        state: state of the training, which the steps change.
    """

    def __init__(self, state: TrainState, task: ReplicaTask) -> None:
        self.state, self._task = state, task
        self._network: Callable[..., Outputs] = parallel_network(state.model, task.share)
        # The same network, if it is not compiled.
        self._compiled = compile_network(self._network) if task.arithmetic.compiled and self._works() else self._network
        # Sides of crops with which the compiled network has taken a step: each is compiled anew.
        self._tried_px: set[int] = set()

    def for_batch(self, images: int) -> Callable[..., Outputs]:
        """Return the network for a batch of ``images`` images, those of all workers together."""
        # A smaller batch at the end of an epoch is one step among many, not worth another compilation.
        return self._compiled if images == self._task.recipe.batch_size else self._network

    def step(self, images: int, crop_px: int, take: Callable[[], T]) -> T:
        """Call ``take``, which takes a step with ``images`` crops; take it again, uncompiled, if the compiler fails.

        The compiler works during the first forward and backward pass with crops of this side, before anything but the
        statistics of batch normalisation has changed.
        """
        if self._task.share.workers > 1:
            return self._step_with_others(take)
        if crop_px in self._tried_px or self.for_batch(images) is self._network:
            return take()
        before = self.state.step
        statistics = {name: buffer.clone() for name, buffer in self.state.model.named_buffers()}
        try:
            result = take()
        except Exception as error:  # a compiler and its tools may raise anything
            if self.state.step != before:
                raise
            for name, buffer in self.state.model.named_buffers():
                buffer.copy_(statistics[name])
            self._compiled = self._network
            self._warn(f"the compiler failed ({first_line(error)})")
            return take()
        self._tried_px.add(crop_px)
        return result

    def _step_with_others(self, take: Callable[[], T]) -> T:
        """Take a step; if the compiler fails, leave word of it for the next attempt, which is then uncompiled.

        Workers that have exchanged gradients cannot take a step again one by one.
        """
        try:
            return take()
        except Exception as error:
            if self._compiled is not self._network and is_of_compiler(error):
                self._task.run.write(self._task.files.compiler_failure, first_line(error).encode())
            raise

    def _works(self) -> bool:
        """Return whether this node can compile; otherwise warn."""
        device = self._task.device
        if not can_compile(device):
            self._warn(f"this node has no {compiler_name(device)}, unlike the node of the trial")
            return False
        if self._task.share.workers == 1:
            return True
        if failed_before := self._failure_of_earlier_attempt():
            if self._task.leads:
                self._warn(failed_before)
            return False
        if failure := compiler_failure(device):
            self._warn(f"the compiler failed ({failure})")
            return False
        return True

    def _failure_of_earlier_attempt(self) -> str:
        run, name = self._task.run, self._task.files.compiler_failure
        if not run.exists(name):
            return ""
        return f"the compiler failed ({run.read(name).decode()}); to compile again, remove {run.below(name).root}"

    def _warn(self, reason: str) -> None:
        warn(self._task.board, self._task.replica, f"not compiled: {reason}; training goes on uncompiled")


def step_graph(state: TrainState, task: ReplicaTask) -> StepGraph | None:
    """Return what takes the steps of ``task`` as CUDA graphs; None if it does not ask for that."""
    if not task.cuda_graphs:
        return None

    def on_failure(reason: str) -> None:
        warn(task.board, task.replica, f"no CUDA graph: the capture failed ({reason}); training continues without")

    return StepGraph(state.optimizer, task.recipe.batch_size, torch.device(task.device), CudaRecorder(), on_failure)
