"""Tests of a compiled replica: the weights of an uncompiled one, resumed exactly, and training without a compiler."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch

import pipelines.training.compilation
import pipelines.training.notice
import pipelines.training.replica
from googlenet.network.arithmetic import Arithmetic, can_compile, compile_network
from pipelines.run.recipe import Recipe
from pipelines.training.replica import train_replica
from tests.commands import run_python
from tests.gpu.small_training import shallow
from tests.pipelines.training.interrupted import Killed, interrupt_after, task

pytestmark = pytest.mark.timeout(500)


@pytest.mark.processes
@pytest.mark.skipif(not can_compile("cpu"), reason="there is no C++ compiler")
def test_a_compiled_replica_learns_what_another_does_and_is_resumed_exactly(
    dataset: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch, threads: None
) -> None:
    # Batch normalisation amplifies differences of rounding. To compile nine inception modules, which differ in their
    # sizes alone, takes two minutes.
    recipe, whole = replace(tiny_recipe, variant="paper", width=0.03), pipelines.training.replica.network_of
    monkeypatch.setattr(pipelines.training.replica, "network_of", lambda *of_replica: shallow(whole(*of_replica)))
    weights = dataset / "replicas/1/weights.safetensors"
    train_replica(task(dataset, recipe, float("inf")))
    plain = safetensors.torch.load(weights.read_bytes())
    shutil.rmtree(dataset / "replicas")
    compiled: list[object] = []

    def compile_and_tell(network: torch.nn.Module) -> Any:
        compiled.append(network)
        return compile_network(network)

    monkeypatch.setattr(pipelines.training.compilation, "compile_network", compile_and_tell)
    fast = replace(task(dataset, recipe, float("inf")), arithmetic=Arithmetic(compiled=True))
    train_replica(fast)
    uninterrupted = weights.read_bytes()
    shutil.rmtree(dataset / "replicas")
    with monkeypatch.context() as patched:
        interrupt_after(patched, 4)
        with pytest.raises(Killed):
            train_replica(fast)
    train_replica(fast)
    assert weights.read_bytes() == uninterrupted
    assert len(compiled) == 3
    for name, value in safetensors.torch.load(uninterrupted).items():
        torch.testing.assert_close(value, plain[name], rtol=1e-4, atol=1e-5, msg=name)


class Board:
    """Stands for the board of a job: keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.warn = SimpleNamespace(remote=self.warnings.append)
        self.post = SimpleNamespace(remote=lambda *_: None)


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Board:
    """A board without Ray, which nobody asks for notices."""
    monkeypatch.setattr(pipelines.training.notice, "ASK_SECONDS", 3600.0)
    monkeypatch.setattr(pipelines.training.compilation, "can_compile", lambda _device: True)
    return Board()


def test_a_first_step_whose_compilation_fails_is_taken_again_uncompiled(
    dataset: Path,
    undisturbed: Path,
    tiny_recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch,
    board: Board,
    threads: None,
) -> None:
    """The backward pass is compiled when the forward pass has changed the statistics of batch normalisation."""
    assert tiny_recipe.variant == "bn"
    calls: list[object] = []

    def compile_what_fails(network: torch.nn.Module) -> Any:
        def forward(*arguments: Any) -> Any:
            calls.append(network(*arguments))
            raise RuntimeError("g++ is broken\nCommand: g++")

        return forward

    monkeypatch.setattr(pipelines.training.compilation, "compile_network", compile_what_fails)
    compiled = replace(task(dataset, tiny_recipe, float("inf")), arithmetic=Arithmetic(compiled=True), board=board)
    train_replica(compiled)
    assert len(calls) == 1
    assert board.warnings == [
        "warning: replica 1: not compiled: the compiler failed (g++ is broken); training goes on uncompiled"
    ]
    files = [run / "replicas/1/weights.safetensors" for run in (dataset, undisturbed)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_compiler_that_fails_when_crops_have_grown_costs_no_attempt_and_changes_no_bit(
    dataset: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch, board: Board, threads: None
) -> None:
    growing = replace(tiny_recipe, first_crop_px=35, crop_px=42)
    weights = dataset / "replicas/1/weights.safetensors"
    train_replica(task(dataset, growing, float("inf")))
    plain = weights.read_bytes()
    shutil.rmtree(dataset / "replicas")
    sides: list[int] = []

    def compile_small_crops(network: torch.nn.Module) -> Any:
        def forward(images: torch.Tensor, *arguments: Any) -> Any:
            sides.append(images.shape[-1])
            answered = network(images, *arguments)
            if images.shape[-1] > 35:
                raise RuntimeError("no space left on device")
            return answered

        return forward

    monkeypatch.setattr(pipelines.training.compilation, "compile_network", compile_small_crops)
    fast = replace(task(dataset, growing, float("inf")), arithmetic=Arithmetic(compiled=True), board=board)
    train_replica(fast)
    assert sides == [35, 35, 35, 42]
    assert board.warnings == [
        "warning: replica 1: not compiled: the compiler failed (no space left on device); training goes on uncompiled"
    ]
    assert weights.read_bytes() == plain


# Steps of a network that is small enough to be compiled in seconds; prints the warning, whether the state is that of
# steps that were never compiled, and what workers that cannot take a step again find out beforehand.
STEP = """
from copy import deepcopy
from functools import partial
from types import SimpleNamespace
import torch
from googlenet.network.arithmetic import Arithmetic, compiler_failure
from pipelines.training.compilation import TrainedNetwork
from pipelines.training.task import ReplicaTask
def step(state, network_for, inputs):
    state.optimizer.zero_grad()
    network_for(len(inputs))(inputs).square().sum().backward()
    state.optimizer.step()
    state.step += 1
def state_of(model):
    return SimpleNamespace(model=model, optimizer=torch.optim.SGD(model.parameters(), 0.1), step=0)
model, inputs = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3)), torch.randn(4, 3)
plain, compiled = state_of(deepcopy(model)), state_of(model)
board = SimpleNamespace(warn=SimpleNamespace(remote=print))
recipe = SimpleNamespace(batch_size=4)
network = TrainedNetwork(compiled, ReplicaTask(None, recipe, 1, arithmetic=Arithmetic(compiled=True), board=board))
for _ in range(2):
    step(plain, lambda _: plain.model, inputs)
    network.step(4, 35, partial(step, compiled, network.for_batch, inputs))
expected = plain.model.state_dict()
print(compiled.step, all(torch.equal(value, expected[name]) for name, value in model.state_dict().items()))
print(compiler_failure("cpu"))
"""

# Two starts of a replica that has several workers, on a node whose compiler works for a small layer alone; prints
# the error of the first start, its trace in the run, the second start's warning and the number of its steps.
TOGETHER = """
import torch.distributed
import pipelines.training.compilation
from googlenet.training.data_parallel import Share
from pipelines.run.storage import Storage
pipelines.training.compilation.compiler_failure = lambda device: ""
torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
class Network(torch.nn.Module):  # inside that of several workers, layers of PyTorch alone would not be compiled
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 3)
    def forward(self, inputs):
        return self.layer(inputs)
arithmetic, run = Arithmetic(compiled=True), Storage.at(sys.argv[2])
task = ReplicaTask(run, recipe, 1, arithmetic=arithmetic, board=board, share=Share(0, 2))
def start():
    state = state_of(Network())
    network = TrainedNetwork(state, task)
    network.step(4, 35, partial(step, state, network.for_batch, inputs))
    return state.step
try:
    start()
except RuntimeError:
    print(run.read(task.files.compiler_failure).decode())
print(start())
"""


# A trial whose network is small enough to be compiled in seconds; prints what the trial found.
TRIAL = """
import sys
import torch
from googlenet.network.arithmetic import compile_network
from pipelines.run.named_recipes import load_recipe
from pipelines.training import trial
def step_of(recipe, classes, device, arithmetic):
    network = torch.nn.Linear(3, 3)
    used = compile_network(network) if arithmetic.compiled else network
    return lambda: used(torch.ones(1, 3)).sum().item()
trial._step = step_of
print(trial._try(load_recipe(sys.argv[1]), 3, ("fp32",), "cpu"))
"""


@pytest.fixture(scope="module")
def without_a_compiler(tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The lines of the three programs, one after the other in a process whose compiler is broken."""
    folder = tmp_path_factory.mktemp("broken_compiler")
    (folder / "recipe.json").write_text(json.dumps(tiny_recipe.to_dict()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXX", "/bin/false")
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder / "compiled"))
        ended = run_python("-c", TRIAL + STEP + TOGETHER, str(folder / "recipe.json"), str(folder / "run"))
    assert ended.code == 0, ended.stderr
    return ended.stdout.splitlines()


@pytest.mark.processes
@pytest.mark.skipif(not can_compile("cpu"), reason="there is no C++ compiler")
def test_a_trial_does_without_a_compiler_that_is_there_and_does_not_work(without_a_compiler: list[str]) -> None:
    assert "arithmetics=(Arithmetic(precision='fp32', compiled=False),)" in without_a_compiler[0]
    assert "uncompiled=''" not in without_a_compiler[0]


@pytest.mark.processes
def test_a_broken_compiler_is_done_without_and_changes_no_bit(without_a_compiler: list[str]) -> None:
    _, warning, outcome, failure, *_ = without_a_compiler
    assert warning == f"warning: replica 1: not compiled: the compiler failed ({failure}); training goes on uncompiled"
    assert "/bin/false" in failure
    assert outcome == "2 True"


@pytest.mark.processes
def test_several_workers_go_on_uncompiled_after_one_restart_and_say_how_to_compile_again(
    without_a_compiler: list[str],
) -> None:
    failure, warning, steps = without_a_compiler[-3:]
    assert "/bin/false" in failure
    assert warning.startswith(f"warning: replica 1: not compiled: the compiler failed ({failure}); to compile again, ")
    assert warning.endswith("/run/replicas/1/compiler_failure.txt; training goes on uncompiled")
    assert steps == "1"
