"""A run directory to follow, beside an MLflow store that exists already, and the models of a finished run."""

import shutil
from pathlib import Path
from threading import Semaphore

import pytest

from pipelines.run.claims import claim
from pipelines.run.dataset import read_manifest
from pipelines.run.storage import Storage
from pipelines.tracking.follower import Tracker
from pipelines.tracking.models import registered_name
from pipelines.tracking.store import tracking_uri_for
from tests.pipelines.report.made_runs import made_run
from tests.pipelines.tracking.followed_runs import RECIPE, TURN_SECONDS


@pytest.fixture
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.tracking.follower.FOLLOW_SECONDS", TURN_SECONDS)


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what failed be tried again at once."""
    monkeypatch.setattr("pipelines.tracking.failures.PAUSES_SECONDS", (0.1, 0.1, 0.1))


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> Semaphore:
    """Count the attempts to send what is new, ten in a second: released at the end of each."""
    ended, send = Semaphore(0), Tracker._send

    def counted(tracker: Tracker, final: str | None) -> None:
        try:
            send(tracker, final)
        finally:
            ended.release()

    monkeypatch.setattr("pipelines.tracking.follower.FOLLOW_SECONDS", 0.1)
    monkeypatch.setattr(Tracker, "_send", counted)
    return ended


@pytest.fixture
def run(tmp_path: Path, empty_store: Path) -> Storage:
    (tmp_path / "run").mkdir()
    claim(Storage.at(str(tmp_path / "run")), "recipe", RECIPE.to_dict())
    shutil.copy(empty_store, tmp_path / "run/mlflow.db")
    return made_run(tmp_path / "run")


@pytest.fixture(scope="session")
def store(finished_run: Path) -> str:
    return tracking_uri_for(Storage.at(str(finished_run)))


@pytest.fixture(scope="session")
def name(finished_run: Path) -> str:
    """The registered model of the finished run's data set."""
    return registered_name(read_manifest(Storage.at(str(finished_run))))


@pytest.fixture(scope="session")
def champion(name: str) -> str:
    return f"models:/{name}@champion"
