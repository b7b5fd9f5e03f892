"""Stores and run directories that were moved or copied find their artifacts, and write nothing to the old place."""

import json
import shutil
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from threading import Semaphore

import mlflow
import pytest
from mlflow import MlflowClient

from pipelines import compare_runs
from pipelines.review import bring_up_to_date
from pipelines.run.dataset import read_manifest
from pipelines.run.directory import run_id
from pipelines.run.lock import only_job_on
from pipelines.run.sheet import SheetAnswers, write_sheets
from pipelines.run.storage import Storage
from pipelines.tracking.evaluation import send_evaluation
from pipelines.tracking.moved import COLUMNS, correct_artifact_places
from pipelines.tracking.publish import PublishSettings
from pipelines.tracking.replay import replay
from pipelines.tracking.runs import Experiment
from pipelines.tracking.store import connect, find_parent, tracking_uri_for
from tests.pipelines.tracking.followed_runs import JOB, copy_result, tracker_of

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def forget_places(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Forget the folders of artifacts that MLflow remembers for as long as a process lasts."""
    name = "mlflow.tracking._tracking_service.utils._artifact_repos_cache"
    return lambda: monkeypatch.setattr(name, OrderedDict())


@pytest.fixture
def runs(tmp_path: Path, empty_store: Path, reported_run: Path) -> Path:
    """A folder with a finished run and its store, which has the report and a registered model."""
    folder = tmp_path / "with space" / "runs"
    run = finished(reported_run, folder / "a")
    shutil.copy(empty_store, folder / "mlflow.db")
    replay(run, PublishSettings(tracking_uri_for(run), models="none"))
    register_model(run)
    return folder


def finished(reported_run: Path, folder: Path) -> Storage:
    run = Storage.at(str(shutil.copytree(reported_run, folder)))
    run.write_json("jobs/1.json", JOB)
    return run


def register_model(run: Storage) -> None:
    client, parent = parent_of(run)
    mlflow.set_tracking_uri(tracking_uri_for(run))  # MLflow looks up what a version is made of in its global store
    try:
        model = client.create_logged_model(parent.info.experiment_id, "model", parent.info.run_id)
        client.log_model_artifact(model.model_id, __file__)
        client.create_registered_model("model")
        client.create_model_version("model", f"models:/{model.model_id}", model_id=model.model_id)
    finally:
        mlflow.set_tracking_uri(None)


def parent_of(run: Storage) -> tuple[MlflowClient, mlflow.entities.Run]:
    client = connect(tracking_uri_for(run))
    return client, find_parent(client, run)


def places(folder: Path) -> list[str]:
    """All texts in a store that begin like a path in this test's folder."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as store:
        tables = [name for (name,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        values = [value for table in tables for row in store.execute(f"SELECT * FROM {table}") for value in row]  # noqa: S608
    return [value for value in values if isinstance(value, str) and value.startswith(("file:///", "/"))]


def files(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_moved_store_is_compared_by_id_and_replayed_where_it_is(
    runs: Path,
    forget_places: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mlflow_run = parent_of(Storage.at(str(runs / "a")))[1].info.run_id
    moved = runs.rename(runs.parent / "else where")
    forget_places()
    uri = tracking_uri_for(Storage.at(str(moved / "a")))
    monkeypatch.setattr("sys.argv", ["compare_runs.py", mlflow_run, str(moved / "a"), "--tracking-uri", uri])
    compare_runs._main()
    assert "errors on 6 images evaluated by both runs" in capsys.readouterr().out
    replay(Storage.at(str(moved / "a")), PublishSettings(uri, models="none"))
    assert not runs.exists()
    client, parent = parent_of(Storage.at(str(moved / "a")))
    assert (parent.info.run_id, parent.data.tags["run_directory"]) == (mlflow_run, str(moved / "a"))
    [model] = client.search_logged_models([parent.info.experiment_id])
    for place in (model.artifact_location, client.get_model_version_download_uri("model", "1")):
        assert place.startswith((moved / "mlartifacts").as_uri())
    own = [place for place in places(moved) if "mlruns" not in place]  # that of MLflow's unused default experiment
    assert own
    assert not [place for place in own if not place.startswith((str(moved), moved.as_uri()))]


def test_a_copied_store_has_its_own_artifacts_and_leaves_the_original_alone(
    runs: Path, forget_places: Callable[[], None]
) -> None:
    copy = shutil.copytree(runs, runs.parent / "copy")
    before = files(runs)
    forget_places()
    client, parent = parent_of(Storage.at(str(copy / "a")))
    client.log_text(parent.info.run_id, "new", "new.txt")
    assert files(runs) == before
    assert (copy / "mlartifacts" / parent.info.run_id / "artifacts/new.txt").read_text() == "new"


def test_a_database_that_was_copied_without_its_artifacts_still_finds_them(
    runs: Path, forget_places: Callable[[], None]
) -> None:
    alone = runs.parent / "alone"
    alone.mkdir()
    shutil.copy(runs / "mlflow.db", alone)
    parent = parent_of(Storage.at(str(runs / "a")))[1].info.run_id
    forget_places()
    away = runs.rename(runs.parent / "on a disk that is away")
    connect(f"sqlite:///{alone}/mlflow.db")
    (alone / "mlartifacts/of a new run").mkdir(parents=True)
    connect(f"sqlite:///{alone}/mlflow.db")
    away.rename(runs)
    found = connect(f"sqlite:///{alone}/mlflow.db").download_artifacts(parent, "report/report.json")
    assert Path(found).read_bytes() == (runs / "a/report/report.json").read_bytes()


def test_a_store_that_is_moved_before_it_has_artifacts_keeps_them_where_it_is_then(
    tmp_path: Path, empty_store: Path, forget_places: Callable[[], None]
) -> None:
    (tmp_path / "old").mkdir()
    shutil.copy(empty_store, tmp_path / "old/mlflow.db")
    first = Experiment(f"sqlite:///{tmp_path}/old/mlflow.db")
    run = first.client.create_run(first.experiment).info.run_id
    (tmp_path / "old").rename(tmp_path / "new")
    forget_places()
    connect(f"sqlite:///{tmp_path}/new/mlflow.db").log_text(run, "new", "new.txt")
    assert (tmp_path / "new/mlartifacts" / run / "artifacts/new.txt").read_text() == "new"
    assert not (tmp_path / "old").exists()


def test_a_store_that_another_machine_has_by_another_path_gets_the_result_where_it_is(
    run: Storage, reported_run: Path, forget_places: Callable[[], None], tmp_path: Path, attempts: Semaphore
) -> None:
    write_sheets(run, 0, [SheetAnswers(1, 1, (4, 1), (4, 0), (0.9, 0.3))])
    uri, elsewhere = f"sqlite:///{run.root}/mlflow.db", f"file://{tmp_path}/mnt/mlartifacts"
    with tracker_of(run, uri) as tracker:
        tracker.update({0: "training"})
        while not list(Path(run.root).glob("mlartifacts/*/artifacts/images/*")):
            time.sleep(0.1)
        while attempts.acquire(blocking=False):
            pass  # earlier turns
        attempts.acquire()  # the turn that sent the picture is over: it remembered the folder for the rest of it
        # As `make ui` does on a machine where the folder of the run is mounted there.
        with closing(sqlite3.connect(f"{run.root}/mlflow.db")) as store, store:
            here = f"file://{run.root}/mlartifacts"
            store.execute("UPDATE runs SET artifact_uri = replace(artifact_uri, ?, ?)", (here, elsewhere))
        forget_places()
        copy_result(reported_run, run)
        tracker.update({0: "done", 1: "done"})
        tracker.finish(succeeded=True)
    assert tracker.in_step
    assert len(list(Path(run.root).glob("mlartifacts/*/artifacts/report/report.json"))) == 1
    assert not (tmp_path / "mnt").exists()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("file:///gone/mlartifacts/1/artifacts", "{here}/mlartifacts/1/artifacts"),
        ("/gone/mlartifacts/1/artifacts", "{here}/mlartifacts/1/artifacts"),  # as MLflow 1 kept them
        ("file:///gone%20it/mlartifacts/x/mlartifacts/1/artifacts", "{here}/mlartifacts/1/artifacts"),
        ("file:///gone/elsewhere/1/artifacts", "file:///gone/elsewhere/1/artifacts"),
        ("mlflow-artifacts:/1/mlartifacts/artifacts", "mlflow-artifacts:/1/mlartifacts/artifacts"),
        ("s3://bucket/mlartifacts/1", "s3://bucket/mlartifacts/1"),
        (None, None),
    ],
)
def test_only_places_in_a_folder_of_artifacts_on_this_machine_are_corrected(
    tmp_path: Path, old: str | None, new: str | None
) -> None:
    database = tmp_path / "a b.db"
    (tmp_path / "mlartifacts/1/artifacts").mkdir(parents=True)
    with closing(sqlite3.connect(database)) as store, store:
        for table in ("experiments", "runs", "logged_models", "model_versions"):
            store.execute(f"CREATE TABLE {table} (artifact_location, artifact_uri, storage_location, source)")
            store.execute(f"INSERT INTO {table} VALUES (?, ?, ?, ?)", [old] * 4)  # noqa: S608
    correct_artifact_places(database)
    expected = new and new.format(here=tmp_path.as_uri())
    with closing(sqlite3.connect(database)) as store:
        kept = [store.execute(f"SELECT {column} FROM {table}").fetchall() for table, column in COLUMNS]  # noqa: S608
    assert kept == [[(expected,)]] * len(COLUMNS)


def test_a_killed_job_is_told_to_mlflow_after_its_run_was_moved_and_renamed(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client, parent = parent_of(Storage.at(str(runs / "a")))
    client.update_run(parent.info.run_id, status="RUNNING")
    moved = runs.rename(runs.parent / "moved")
    (moved / "a").rename(moved / "b")
    database, uri = moved / "mlflow.db", f"sqlite:///{moved}/mlflow.db"
    of_others = {"0": {"id": "x", "evaluation": {"run": run_id(Storage.at(str(moved / "b")))}}, "00": "{"}
    for name, content in of_others.items():  # an evaluation of the run, and a damaged file
        (moved / name).mkdir()
        (moved / name / "run.json").write_text(json.dumps(content))
    bring_up_to_date(uri, database)
    assert client_status(uri, parent.info.run_id) == "FINISHED"
    connect(uri).update_run(parent.info.run_id, status="RUNNING")
    shutil.rmtree(moved / "b")
    bring_up_to_date(uri, database)
    told = capsys.readouterr().out
    assert f"{moved}/b no longer exists, so MLflow keeps showing its run as running\n" in told
    assert "model" not in told  # one is registered, and none was asked for


def test_a_copy_of_the_directory_of_a_run_at_work_is_not_taken_for_it(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client, parent = parent_of(Storage.at(str(runs / "a")))
    client.update_run(parent.info.run_id, status="RUNNING")
    shutil.copytree(runs / "a", runs / "0 a backup")
    uri = f"sqlite:///{runs}/mlflow.db"
    with only_job_on(Storage.at(str(runs / "a"))):
        bring_up_to_date(uri, runs / "mlflow.db")
    assert f"{runs}/a is still running\n" in capsys.readouterr().out
    assert client_status(uri, parent.info.run_id) == "RUNNING"
    assert parent_of(Storage.at(str(runs / "a")))[1].data.tags["run_directory"] == f"{runs}/a"


def client_status(uri: str, run_id: str) -> str:
    return str(connect(uri).get_run(run_id).info.status)


def test_an_evaluation_of_weights_is_sent_to_the_same_run_after_its_directory_was_renamed(
    tmp_path: Path, empty_store: Path, reported_run: Path
) -> None:
    run = finished(reported_run, tmp_path / "first")
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = tracking_uri_for(run)
    send_evaluation(run, run, read_manifest(run), uri)
    renamed = Storage.at(str((tmp_path / "first").rename(tmp_path / "second")))
    send_evaluation(renamed, renamed, read_manifest(renamed), uri)
    client = connect(uri)
    [experiment] = client.search_experiments(filter_string="name = 'googlenet-ensemble'")
    [sent] = client.search_runs([experiment.experiment_id])
    assert sent.data.tags["run_directory"] == renamed.root
