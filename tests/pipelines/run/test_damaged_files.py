"""Damaged files of a run directory: one line with the file's name and what to do, from whatever reads them."""

import shutil
from pathlib import Path

import pytest

from pipelines.errors import UserError
from pipelines.job.log import read_jobs
from pipelines.report.comparison import read_finished
from pipelines.run.calibration import read_calibration
from pipelines.run.claims import claim
from pipelines.run.dataset import read_manifest
from pipelines.run.directory import read_recipe, run_id
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.run.view_probabilities import read_views
from pipelines.tracking.publish import PublishSettings
from pipelines.tracking.replay import replay
from tests.pipelines.report.made_runs import ENSEMBLE
from tests.pipelines.tracking.followed_runs import JOB


@pytest.fixture
def run(reported_run: Path, tmp_path: Path) -> Storage:
    """A finished run."""
    run = Storage.at(str(shutil.copytree(reported_run, tmp_path / "run")))
    run.write_json("jobs/1.json", {**JOB, "outcome": "ended"})
    run.write_json("calibration.json", {})
    return run


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> str:
    """A new MLflow store."""
    return f"sqlite:///{shutil.copy(empty_store, tmp_path)}"


READERS = {
    "run.json": [read_recipe, run_id, lambda run: claim(run, "recipe", Recipe().to_dict())],
    "dataset/manifest.json": [read_manifest],
    "jobs/1.json": [read_jobs],
    "calibration.json": [lambda run: read_calibration(run, ENSEMBLE.weights_digests)],
    "report/report.json": [lambda run: read_finished(run, "mine")],
    "report/outcomes.parquet": [lambda run: read_finished(run, "mine")],
    "view_probabilities/000000.parquet": [lambda run: read_views(run, ENSEMBLE)],
}


@pytest.mark.parametrize("content", [b"", b'{"half": [1, ', b"\0\0\0\0"])
@pytest.mark.parametrize("file", READERS)
def test_a_damaged_file_is_named_with_what_to_do(run: Storage, file: str, content: bytes) -> None:
    run.write(file, content)
    for read in READERS[file]:
        with pytest.raises(UserError) as refused:
            read(run)
        assert str(refused.value).startswith(f"{run.below(file)} is damaged")
        assert "restore it, or " in str(refused.value)
        assert "\n" not in str(refused.value)


def test_run_json_is_the_one_that_nothing_makes_again(run: Storage) -> None:
    run.write("run.json", b"")
    with pytest.raises(UserError, match="start again in a new --run-dir"):
        read_recipe(run)


def test_a_replay_names_the_damaged_file_and_not_mlflow(run: Storage, store: str) -> None:
    run.write("report/report.json", b"")
    with pytest.raises(UserError, match=r"report\.json is damaged") as refused:
        replay(run, PublishSettings(store, "none"))
    assert "MLflow" not in str(refused.value)


def test_a_replay_without_the_models_that_were_asked_for_has_failed(run: Storage, store: str) -> None:
    run.write("replicas/0/weights.safetensors", b"half")
    run.write("replicas/1/weights.safetensors", b"half")
    with pytest.raises(UserError, match=r"models not logged .*replicas/0/weights\.safetensors: .*delete it") as refused:
        replay(run, PublishSettings(store, "all"))
    assert "warning" not in str(refused.value)
