"""MLflow's pages of runs: which one is opened, what it lacks, and no killed job shown as running."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines import review
from pipelines.errors import UserError
from pipelines.review import Arguments, _store, bring_up_to_date, newest_run, page_to_open
from pipelines.run.claims import claim
from pipelines.run.lock import RunInUseError, only_job_on
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.tracking.publish import PublishSettings
from pipelines.tracking.replay import replay
from pipelines.tracking.runs import Experiment
from pipelines.tracking.store import connect, tracking_uri_for
from tests.others_files import somebody_elses
from tests.pipelines.report.made_runs import made_run
from tests.pipelines.tracking.followed_runs import RUNNING_JOB, runs_of, store_of
from tests.project import ROOT
from tests.servers import free_port

pytestmark = pytest.mark.timeout(300)

# What a job does until its replicas train, as long as it is let.
JOB = """
import sys, time
from pipelines.run.dataset import read_manifest
from pipelines.run.directory import read_recipe
from pipelines.run.lock import only_job_on
from pipelines.run.storage import Storage
from pipelines.tracking.follower import Tracker
from pipelines.tracking.publish import PublishSettings
run = Storage.at(sys.argv[1])
with only_job_on(run), Tracker(
    run, read_recipe(run), read_manifest(run), PublishSettings(sys.argv[2])
) as tracker:
    tracker.update({0: "training"})
    time.sleep(300)
"""


@pytest.mark.processes
def test_a_killed_job_is_told_to_mlflow_by_who_opens_the_store(tmp_path: Path, empty_store: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    claim(Storage.at(str(run)), "recipe", Recipe(replicas=1).to_dict())
    uri = tracking_uri_for(made_run(run))
    Storage.at(str(run)).write_json("jobs/1.json", RUNNING_JOB)
    job = subprocess.Popen([sys.executable, "-c", JOB, str(run), uri], cwd=ROOT)
    try:
        # Until MLflow shows replica 0 as running.
        while _status(uri, run, "replica_0") != "RUNNING":
            assert job.poll() is None
            time.sleep(0.2)
        bring_up_to_date(uri, tmp_path / "mlflow.db")
        assert _status(uri, run, "replica_0") == "RUNNING"  # it is running, so it is left alone
    finally:
        job.kill()
        job.wait()
    assert _status(uri, run, "replica_0") == "RUNNING"
    assert newest_run(tmp_path) == run
    bring_up_to_date(uri, tmp_path / "mlflow.db")
    assert _status(uri, run, "replica_0") == "KILLED"
    assert _status(uri, run, "ensemble") == "KILLED"


def test_a_run_that_the_store_lacks_is_told_beside_the_list_of_runs(
    run: Storage, reported_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Storage.at(str(reported_run))
    replay(other, PublishSettings(store_of(run), models="none"))
    assert "/runs/" in page_to_open(store_of(run), other.root)
    assert "warning" not in capsys.readouterr().out
    assert page_to_open(store_of(run), run.root) == page_to_open(store_of(run), "")
    told = capsys.readouterr().out
    assert told.startswith(f"warning: {run} is not in this MLflow store; to send it: python pipelines/replay_to")
    with only_job_on(run):
        page_to_open(store_of(run), run.root)
    assert (
        capsys.readouterr().out == f"warning: {run} is not in this MLflow store; it is in use by another command now\n"
    )
    with only_job_on(run), pytest.raises(RunInUseError):
        replay(run, PublishSettings(store_of(run), models="none"))
    assert capsys.readouterr().out == ""  # nothing is sent
    with somebody_elses(Path(run.root)) as folder:
        theirs = Storage.at(str(folder))
        page_to_open(store_of(theirs), theirs.root)
    assert capsys.readouterr().out == f"warning: {theirs} is not in this MLflow store, which is read-only\n"
    run.delete("dataset/manifest.json")
    page_to_open(store_of(run), run.root)
    assert capsys.readouterr().out.endswith("; without its dataset/manifest.json, it cannot be sent\n")


def _status(uri: str, run: Path, role: str) -> str:
    try:
        connect(uri)  # the job may be creating the store right now
        return str(runs_of(uri, run)[role].info.status)
    except (AttributeError, KeyError):  # not created yet
        return ""


def test_a_store_of_runs_is_refused_before_it_is_taken_for_a_local_folder() -> None:
    with pytest.raises(UserError, match=r"--runs s3://bucket/runs: no local folder; .* with --run-dir"):
        _store(Arguments(runs="s3://bucket/runs"))


def test_the_newest_run_is_the_one_that_was_worked_on_last(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run in"):
        newest_run(tmp_path)
    for name in ("a", "b"):
        claim(Storage.at(str(tmp_path / name)), "recipe", Recipe().to_dict())
    for file, time_ in ((tmp_path / "a/run.json", 100), (tmp_path / "b/run.json", 200)):
        os.utime(file, (time_, time_))
    for name in ("a", "b"):
        os.utime(tmp_path / name, (100, 100))
    assert newest_run(tmp_path) == tmp_path / "b"
    Storage.at(str(tmp_path / "a")).write_json("jobs/1.json", {})
    (tmp_path / "a/jobs/2.json").symlink_to("removed")  # a file that is gone once it is looked at
    (tmp_path / "a/jobs/1.json.partial-1").symlink_to("renamed")
    assert newest_run(tmp_path) == tmp_path / "a"


def test_a_database_other_than_a_file_of_sqlite_is_opened_with_mlflows_page(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    # As a PostgreSQL server's, its URI names no file to this project.
    uri, executed = f"sqlite+pysqlite:///{tmp_path}/mlflow.db", []
    Experiment(uri)
    monkeypatch.setattr(os, "execve", lambda *command: executed.append(command))
    monkeypatch.setattr("sys.argv", ["review.py", "--tracking-uri", uri, "--port", str(free_port())])
    review._main()
    [(_, words, _)] = executed
    assert words[-2:] == ["--backend-store-uri", uri]
    assert re.search(r"MLflow: http://127.0.0.1:\d+/#/experiments/\d+/runs", capsys.readouterr().out)


def test_the_address_of_a_server_that_does_not_answer_is_printed_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setattr("sys.argv", ["review.py", "--tracking-uri", uri])
    review._main()
    told = capsys.readouterr()
    assert told.out == f"MLflow: {uri}\n"
    assert " ".join(told.err.split()).startswith(
        f"asking the MLflow server for the run's page ... warning: MLflow at {uri}: "
    )
