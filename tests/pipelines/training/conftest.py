"""A prepared run directory to train one replica in, and one in which it was trained without interruption."""

import shutil
from pathlib import Path

import pytest
import torch

import pipelines.training.replica


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
