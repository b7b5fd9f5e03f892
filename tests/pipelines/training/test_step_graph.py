"""Tests of --cuda-graphs: refused without GPUs before anything starts, and taken over by the worker that is asked."""

from dataclasses import replace
from pathlib import Path

import pytest

from googlenet.network.model import GoogLeNet
from googlenet.training.graphs import StepFigures, StepGraph, Work
from googlenet.training.loop import TrainState
from googlenet.training.optim import PolyakAverage, build_sgd
from pipelines.errors import UserError
from pipelines.run.named_recipes import demo
from pipelines.run.storage import Storage
from pipelines.train_ensemble import Arguments, run_job
from pipelines.training.compilation import step_graph
from pipelines.training.options import WorkerOptions
from pipelines.training.task import ReplicaTask


def test_the_option_is_refused_without_gpus_before_the_run_begins(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--cuda-graphs takes training steps on GPUs: add --gpus-per-worker 1"):
        run_job(Arguments(fields=demo(), run_dir=str(tmp_path / "run"), workers=WorkerOptions(cuda_graphs=True)))
    assert not (tmp_path / "run").exists()


class NoRecorder:
    """A recorder that repeats nothing."""

    def warm_up(self, work: Work) -> StepFigures:
        return work()

    def capture(self, work: Work) -> StepFigures:
        return work()

    def replay(self) -> None:
        """Do nothing."""

    def forget(self) -> None:
        """Do nothing."""


def test_a_worker_records_its_steps_only_if_it_is_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.training.compilation.CudaRecorder", NoRecorder)  # the other one needs a GPU
    model = GoogLeNet(3, width=0.125)
    optimizer = build_sgd(model, momentum=0.9, weight_decay=0.0, decay_biases=True)
    state = TrainState(model, optimizer, PolyakAverage(model, 5))
    task = ReplicaTask(Storage.at("anywhere"), demo(), 1)
    assert step_graph(state, task) is None
    assert isinstance(step_graph(state, replace(task, cuda_graphs=True)), StepGraph)
