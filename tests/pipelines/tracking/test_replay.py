"""A run directory alone is enough to fill an MLflow store, with how its newest job ended."""

import os
import shutil
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from pipelines import replay_to_mlflow
from pipelines.errors import UserError
from pipelines.run.claims import claim
from pipelines.run.directory import read_recipe
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.tracking.publish import PublishSettings
from pipelines.tracking.replay import outcome_of, phases_of, replay
from pipelines.tracking.store import tracking_uri_for
from tests.others_files import unchanged
from tests.pipelines.report.made_runs import made_run
from tests.pipelines.tracking.followed_runs import RUNNING_JOB, copy_result, runs_of, store_of
from tests.project import ROOT

pytestmark = pytest.mark.timeout(300)


def curves(uri: str, runs: dict[str, Any]) -> dict[str, list[tuple[int, float, int]]]:
    client = MlflowClient(uri)
    return {
        f"{role}/{name}": [(m.step, m.value, m.timestamp) for m in client.get_metric_history(run.info.run_id, name)]
        for role, run in runs.items()
        for name in run.data.metrics
        if role != "ensemble"
    }


@pytest.mark.usefixtures("store_beside")
def test_a_new_store_gets_all_that_the_first_one_has_and_a_second_time_nothing(
    finished_run: Path, tmp_path: Path
) -> None:
    run, uri = Storage.at(str(finished_run)), f"sqlite:///{tmp_path}/mlflow.db"
    first = runs_of(tracking_uri_for(run), finished_run)
    # The replicas' errors are logged with their models, which this replay leaves out.
    of_models = {f"replica_{replica}/top1_error/{policy}" for replica in range(3) for policy in (1, 10, 144)}
    found = curves(tracking_uri_for(run), first)
    assert of_models <= set(found)
    expected = {name: values for name, values in found.items() if name not in of_models}
    assert any(name.startswith("replica_0/step/") for name in expected)
    for _ in range(2):
        replay(run, PublishSettings(uri, models="ensemble"))
        copy = runs_of(uri, finished_run)
        assert curves(uri, copy) == expected
        assert {role: found.info.status for role, found in copy.items()} == dict.fromkeys(first, "FINISHED")
        assert (
            copy["ensemble"].data.metrics.items()
            >= {name: value for name, value in first["ensemble"].data.metrics.items() if "error/" in name}.items()
        )
        assert len(MlflowClient(uri).search_model_versions()) == 1
    # Logging models leaves no store behind for what this process does next.
    assert not {"MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID"} & os.environ.keys()
    assert not mlflow.is_tracking_uri_set()


def ended_run(folder: Path, outcome: str, reported: Path | None) -> Storage:
    """A run of three replicas, of which one is finished and one failed, whose newest job ended in ``outcome``."""
    folder.mkdir()
    run = Storage.at(str(folder))
    claim(run, "recipe", Recipe(replicas=3).to_dict())
    run.write("replicas/0/weights.safetensors", b"")
    run.write("replicas/1/failure.txt", b"ValueError: no")
    run.write_json("jobs/1.json", {**RUNNING_JOB, "outcome": outcome})
    if reported:
        copy_result(reported, run)
    return run


@pytest.mark.parametrize(
    ("outcome", "with_report", "status"),
    [
        ("running", False, "KILLED"),
        ("interrupted", False, "KILLED"),
        ("ended", False, "FAILED"),
        ("ValueError: no", False, "FAILED"),
        ("ended", True, "FINISHED"),
        # Evaluated with fewer replicas, resumed, and killed in training.
        ("running", True, "KILLED"),
    ],
)
def test_the_outcome_of_a_run_is_how_its_newest_job_ended(
    tmp_path: Path, reported_run: Path, outcome: str, with_report: bool, status: str
) -> None:
    run = ended_run(tmp_path / "run", outcome, reported_run if with_report else None)
    phases = phases_of(run, read_recipe(run))
    assert phases == {0: "done", 1: "failed", 2: "stopped"}
    assert outcome_of(run, phases) == status
    if with_report:  # of an earlier job, with fewer replicas than are finished now
        run.write("replicas/2/weights.safetensors", b"")
        assert outcome_of(run, phases_of(run, read_recipe(run))) == {"FINISHED": "FAILED"}.get(status, status)


@pytest.mark.parametrize(
    ("outcome", "with_report", "status"),
    [("running", False, "KILLED"), ("ended", False, "FAILED"), ("ended", True, "FINISHED")],
)
def test_what_mlflow_is_told_is_that_outcome(
    tmp_path: Path, empty_store: Path, reported_run: Path, outcome: str, with_report: bool, status: str
) -> None:
    run = ended_run(tmp_path / "run", outcome, reported_run if with_report else None)
    made_run(tmp_path / "run")
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with unchanged(tmp_path / "run"):
        replay(run, PublishSettings(uri, models="none"))
    found = runs_of(uri, tmp_path / "run")
    assert {role: run.info.status for role, run in found.items()} == {
        "ensemble": status,
        "replica_0": "FINISHED",
        "replica_1": "FAILED",
        "replica_2": "KILLED",
    }
    assert found["ensemble"].data.metrics["stage_seconds/train"] == 5.0


def test_a_run_that_is_not_finished_is_not_told_to_log_its_model(
    run: Storage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run.write_json("jobs/1.json", RUNNING_JOB)
    words = ["replay_to_mlflow.py", "--run-dir", run.root, "--tracking-uri", store_of(run)]
    monkeypatch.setattr("sys.argv", words)
    replay_to_mlflow._main()
    [sending, sent, how_to_open] = capsys.readouterr().out.splitlines()
    assert sending == f"sending {run} to MLflow at {store_of(run)} ..."  # nothing is silent for seconds
    so_far = "to finish this run, repeat the command that started it"
    assert sent == f"{run} is in MLflow at {store_of(run)}; {so_far}"
    assert how_to_open.startswith("MLflow: python pipelines/review.py")


@pytest.mark.processes  # git, for MLflow
def test_a_finished_run_without_its_images_is_sent_with_its_model(
    tmp_path: Path, empty_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the manifest of its images is left."""
    run = Storage.at(str(shutil.copytree(ROOT / "tests/pipelines/old_run", tmp_path / "run")))
    for split in ("train", "val"):
        shutil.rmtree(tmp_path / "run/dataset" / split)
    uri = f"sqlite:///{shutil.copy(empty_store, tmp_path)}"
    sent = replay(run, PublishSettings(uri, models="ensemble"))
    sending, logging, model = capsys.readouterr().out.splitlines()
    assert (sending, logging) == (f"sending {run} to MLflow at {uri} ...", "logging the models in MLflow ...")
    assert model.startswith("model: ")
    assert [version.run_id for version in MlflowClient(uri).search_model_versions()] == [
        runs_of(uri, tmp_path / "run")["ensemble"].info.run_id
    ]
    assert sent.model.endswith("/1")
    (tmp_path / "run/dataset/manifest.json").unlink()
    with pytest.raises(UserError, match=r"/run lacks dataset/manifest\.json: .*the images are not needed"):
        replay(run, PublishSettings(uri))


@pytest.mark.parametrize(("reported", "status"), [(2, "KILLED"), (3, "FINISHED")])
def test_the_report_of_an_earlier_job_does_not_finish_one_that_trained_more_replicas(
    tmp_path: Path, reported: int, status: str
) -> None:
    run = Storage.at(str(tmp_path))
    run.write_json("jobs/1.json", RUNNING_JOB)
    names = [f"replica_{replica}" for replica in range(reported)]
    run.write_json("report/report.json", {"ensemble": {"replicas": names}})
    assert outcome_of(run, dict.fromkeys(range(3), "done")) == status


def test_nothing_to_send_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        replay(Storage.at(str(tmp_path)), PublishSettings("sqlite:///x.db"))
    claim(Storage.at(str(tmp_path / "run")), "recipe", Recipe().to_dict())
    with pytest.raises(UserError, match="nothing has been prepared"):
        replay(Storage.at(str(tmp_path / "run")), PublishSettings("sqlite:///x.db"))


def test_a_damaged_line_is_told_with_its_file(tmp_path: Path, empty_store: Path) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    run = Storage.at(str(tmp_path / "run"))
    claim(run, "recipe", Recipe(replicas=1).to_dict())
    made_run(tmp_path / "run")
    run.write("replicas/0/metrics.jsonl", b'{"epoch": 1')
    with pytest.raises(UserError, match=r"replicas/0/metrics.jsonl is damaged"):
        replay(run, PublishSettings(f"sqlite:///{tmp_path}/mlflow.db"))
