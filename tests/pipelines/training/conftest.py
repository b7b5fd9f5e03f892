"""A run directory to train a replica in, one in which it was trained, and a cluster of two nodes that is not there."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
import torch

import pipelines.training.replica
from pipelines.run.dataset import read_manifest
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training.resources import Resources
from pipelines.training.stage import train_run
from tests.pipelines.training.ray_nodes import CPU_NODE, DRAINING, GPU_NODE, node


@pytest.fixture
def dataset(prepared_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pipelines.training.replica, "use_own_cpus", lambda: None)
    return Path(shutil.copytree(prepared_run, tmp_path / "run"))


@pytest.fixture(scope="session")
def undisturbed(trained_run: Path) -> Path:
    """Replicas that were trained without a cluster, each from its beginning to its end; to read and to copy."""
    return trained_run


@pytest.fixture
def threads() -> None:
    """Use one thread, as a Ray worker of one CPU does."""
    torch.set_num_threads(1)


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """The nodes of the cluster, one with GPUs and one without, beside one that died; tests replace them."""
    found = [node(GPU_NODE), node(CPU_NODE), {**node(GPU_NODE), "Alive": False}]
    monkeypatch.setattr(ray, "nodes", lambda: found)
    monkeypatch.setattr(DRAINING, dict)
    return found


@pytest.fixture
def begin(
    prepared_run: Path, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Resources], Resources]:
    """Begin the training stage, in which nothing is trained; return the resources that it would train with."""
    given: list[Resources] = []
    monkeypatch.setattr("pipelines.training.scheduler.train_replicas", lambda *of_run: given.append(of_run[2]) or [])
    run, manifest = Storage.at(str(tmp_path)), read_manifest(Storage.at(str(prepared_run)))

    def begun(resources: Resources) -> Resources:
        train_run(run, tiny_recipe, resources, manifest, lambda _: None, str)
        return given.pop()

    return begun
