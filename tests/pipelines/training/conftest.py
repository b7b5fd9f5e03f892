"""A prepared run directory to train one replica in, and one in which it was trained without interruption."""

import shutil
from pathlib import Path

import pytest
import torch

import pipelines.training.replica
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training.replica import train_replica
from pipelines.training.task import ReplicaTask


@pytest.fixture
def dataset(prepared_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pipelines.training.replica, "use_own_cpus", lambda: None)
    return Path(shutil.copytree(prepared_run, tmp_path / "run"))


@pytest.fixture(scope="session")
def undisturbed(prepared_run: Path, tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Replica 1, trained in this process from its beginning to its end."""
    run = Path(shutil.copytree(prepared_run, tmp_path_factory.mktemp("undisturbed") / "run"))
    train_replica(ReplicaTask(Storage.at(str(run)), tiny_recipe, 1))
    return run


@pytest.fixture
def threads() -> None:
    """Use one thread, as a Ray worker of one CPU does."""
    torch.set_num_threads(1)
