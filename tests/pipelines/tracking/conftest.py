"""A run directory to follow, beside an MLflow store that exists already."""

import shutil
from pathlib import Path

import pytest

from pipelines.run.directory import claim
from pipelines.run.storage import Storage
from pipelines.tracking.store import connect
from tests.pipelines.report.made_runs import made_run
from tests.pipelines.tracking.followed_runs import RECIPE, TURN_SECONDS


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of a new MLflow store. To copy it takes no time; to create one takes two seconds."""
    database = tmp_path_factory.mktemp("store") / "mlflow.db"
    connect(f"sqlite:///{database}")
    return database


@pytest.fixture
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.tracking.follower.FOLLOW_SECONDS", TURN_SECONDS)


@pytest.fixture
def run(tmp_path: Path, empty_store: Path) -> Storage:
    (tmp_path / "run").mkdir()
    claim(Storage.at(str(tmp_path / "run")), "recipe", RECIPE.to_dict())
    shutil.copy(empty_store, tmp_path / "run/mlflow.db")
    return made_run(tmp_path / "run")
