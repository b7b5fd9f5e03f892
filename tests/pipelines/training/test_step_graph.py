"""Tests of the switch for CUDA graphs: passed to workers, and reported where it has no effect."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from googlenet.network.model import GoogLeNet
from googlenet.training.data_parallel import Share
from googlenet.training.loop import TrainState
from googlenet.training.optim import PolyakAverage, build_sgd
from pipelines.run.named_recipes import demo
from pipelines.run.storage import Storage
from pipelines.training.compilation import step_graph
from pipelines.training.resources import Resources
from pipelines.training.task import ReplicaTask


def test_workers_get_the_switch_from_the_command_and_say_where_it_has_no_effect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    warnings: list[str] = []
    board = SimpleNamespace(warn=SimpleNamespace(remote=warnings.append))
    model = GoogLeNet(3, width=0.125)
    optimizer = build_sgd(model, momentum=0.9, weight_decay=0.0, decay_biases=True)
    state = TrainState(model, optimizer, PolyakAverage(model, 5))
    on_cpu = ReplicaTask(Storage.at("anywhere"), demo(), 1, board=board)
    monkeypatch.delenv("GOOGLENET_CUDA_GRAPHS", raising=False)
    assert "GOOGLENET_CUDA_GRAPHS" not in Resources().environment
    assert step_graph(state, on_cpu) is None
    assert not warnings
    monkeypatch.setenv("GOOGLENET_CUDA_GRAPHS", "1")
    assert Resources().environment["GOOGLENET_CUDA_GRAPHS"] == "1"
    assert step_graph(state, on_cpu) is None
    assert step_graph(state, replace(on_cpu, device="cuda:0", share=Share(0, 2))) is None
    assert warnings == [
        "warning: replica 1: GOOGLENET_CUDA_GRAPHS=1 has no effect: there is no GPU",
        "warning: replica 1: GOOGLENET_CUDA_GRAPHS=1 has no effect: several workers share a batch",
    ]
