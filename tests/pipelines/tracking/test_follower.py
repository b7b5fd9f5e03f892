"""MLflow follows the run directory: nothing lost, nothing twice."""

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Event, Semaphore, Thread
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from pipelines.errors import UserError
from pipelines.run.recipe import Recipe
from pipelines.run.sheet import SheetAnswers, write_sheets
from pipelines.run.storage import Storage
from pipelines.tracking.commands import replay_command
from pipelines.tracking.follower import Tracker, _Connection
from pipelines.tracking.publish import Published
from pipelines.tracking.result import send_report
from pipelines.tracking.store import page_of_experiment, tracking_uri_for
from tests.pipelines.tracking.followed_runs import (
    JOB,
    SINCE_MS,
    copy_result,
    errors,
    follow,
    history,
    runs_of,
    store_of,
    tracker_of,
    write_epochs,
    write_load,
)

pytestmark = pytest.mark.timeout(120)


def test_an_interrupted_run_goes_on_in_the_same_mlflow_runs_without_doubled_epochs(
    run: Storage, reported_run: Path
) -> None:
    uri = store_of(run)
    write_epochs(run, 0, 2)
    follow(run, uri, {0: "training", 1: "waiting"})
    first = runs_of(uri)
    assert first["ensemble"].info.status == "FAILED"  # type: ignore[attr-defined]
    assert first["replica_0"].info.status == "KILLED"  # type: ignore[attr-defined]
    write_epochs(run, 0, 4)
    write_epochs(run, 1, 1, alarm="head logits is dead")
    run.write("replicas/1/failure.txt", b"Traceback\nValueError: of another kind")
    copy_result(reported_run, run)
    follow(run, uri, {0: "done", 1: "failed"}, succeeded=True)
    second = runs_of(uri)
    assert {n: r.info.run_id for n, r in first.items()} == {n: r.info.run_id for n, r in second.items()}  # type: ignore[attr-defined]
    # With the times at which they were measured, whenever they were sent.
    assert history(uri, "replica_0", "val_top1_error") == [(e, 50.0 - e, SINCE_MS + e) for e in (1, 2, 3, 4)]
    assert history(uri, "replica_0", "val_top1_error_raw_weights") == [
        (e, 60.0 - e, SINCE_MS + e) for e in (1, 2, 3, 4)
    ]
    assert errors(uri, 1) == [(1, 49.0)]
    tags = second["replica_1"].data.tags  # type: ignore[attr-defined]
    assert tags["alarm"] == "head logits is dead"
    assert tags["failure"] == "ValueError: of another kind"
    assert "of another kind" in tags["mlflow.note.content"]
    statuses = {name: r.info.status for name, r in second.items()}  # type: ignore[attr-defined]
    assert statuses == {"ensemble": "FINISHED", "replica_0": "FINISHED", "replica_1": "FAILED"}


def test_the_parent_holds_the_tables_cells_the_report_and_a_note_that_fits(run: Storage, reported_run: Path) -> None:
    copy_result(reported_run, run)
    follow(run, store_of(run), {0: "done", 1: "done"}, succeeded=True)
    parent = runs_of(store_of(run))["ensemble"]
    metrics = parent.data.metrics  # type: ignore[attr-defined]
    # Replica 0 is wrong on one image of six, replica 1 on three, their average on one.
    assert metrics["top1_error/1x1"] == 33.333
    assert metrics["top1_error/2x144"] == 16.667
    assert {f"top5_error/{models}x{crops}" for models in (1, 2) for crops in (1, 10, 144)} < metrics.keys()
    assert {"brier_score/2x144", "evaluation/predictor_seconds"} < metrics.keys()
    note = parent.data.tags["mlflow.note.content"]  # type: ignore[attr-defined]
    assert "2 models with 144 crops err on 16.7 % (0.0 to 50.0) of 6 images" in note
    # A table in Markdown, surrounded by empty lines, and none of top-5 errors of seven classes.
    table = next(section for section in note.split("\n\n") if section.startswith("| top-1 error"))
    assert [line.count("|") for line in table.splitlines()] == [5, 5, 5, 5]
    assert "top-5" not in note
    assert "6 validation images of 7 classes: a, b, c" in note
    assert len(note) < 8000
    [train, val] = parent.inputs.dataset_inputs  # type: ignore[attr-defined]
    assert (train.tags[0].value, val.tags[0].value) == ("training", "evaluation")
    assert json.loads(val.dataset.profile)["images"] == 6
    client = MlflowClient(store_of(run))
    artifacts = client.list_artifacts(parent.info.run_id, "report")  # type: ignore[attr-defined]
    assert {artifact.path for artifact in artifacts} == {f"report/{name}" for name in run.files("report")}
    page = Path(client.download_artifacts(parent.info.run_id, "report/report.md")).read_text()  # type: ignore[attr-defined]
    pictures = re.findall(r"!\[[^]]*\]\(([^)]*)\)", page)
    assert f"http:get-artifact?path=report%2Fviews.png&run_uuid={parent.info.run_id}" in pictures  # type: ignore[attr-defined]
    assert all(picture.startswith("http:get-artifact?") for picture in pictures)


def test_the_list_of_runs_shows_errors_data_set_and_images(run: Storage, reported_run: Path) -> None:
    copy_result(reported_run, run)
    follow(run, store_of(run), {0: "done", 1: "done"}, succeeded=True)
    [(_, key)] = parse_qsl(page_of_experiment(store_of(run)).partition("&")[2])
    experiment = MlflowClient(store_of(run)).get_experiment_by_name("googlenet-ensemble")
    columns = json.loads(experiment.tags[f"mlflow.sharedViewState.{key}"])["selectedColumns"]
    parent = runs_of(store_of(run))["ensemble"].data  # type: ignore[attr-defined]
    shown = {}
    for column in columns:
        kind, _, name = column.replace("`", "").partition(".")
        shown[name] = getattr(parent, kind)[name]
    expected = {"top1_error/2x144": 16.667, "top1_error/1x1": 33.333, "val_images": "6", "classes": "7"}
    assert shown.items() >= expected.items()
    assert "dataset" in shown


def test_the_load_of_each_node_is_sent_once(run: Storage) -> None:
    uri = store_of(run)
    write_load(run, "replicas/0/system", "a", 3)
    write_load(run, "replicas/0/system", "b", 2)
    write_load(run, "system", "head", 4)
    follow(run, uri, {0: "training", 1: "waiting"})
    write_load(run, "replicas/0/system", "a", 5)
    follow(run, uri, {0: "training", 1: "waiting"})
    seen = [
        history(uri, role, f"system/{host}/system_memory_usage_percentage")
        for role, host in (("replica_0", "a"), ("replica_0", "b"), ("ensemble", "head"))
    ]
    for samples, found in zip((5, 2, 4), seen, strict=True):
        assert [(value, time) for _, value, time in found] == [
            (40.0 + n, SINCE_MS + 10_000 * n) for n in range(samples)
        ]


def test_a_server_that_is_away_stops_nothing_and_is_told_once(
    run: Storage, short_pauses: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipelines.tracking.follower.FOLLOW_SECONDS", 0.1)
    write_epochs(run, 0, 3)
    attempts, send = Semaphore(0), Tracker._send

    def counted(tracker: Tracker, final: str | None) -> object:
        attempts.release()
        return send(tracker, final)

    monkeypatch.setattr(Tracker, "_send", counted)
    with tracker_of(run, "http://127.0.0.1:9") as tracker:
        tracker.update({0: "done", 1: "training"})
        for _ in range(3):
            attempts.acquire()
    assert not tracker.in_step
    store = "warning: MLflow at http://127.0.0.1:9"
    told = capsys.readouterr().out
    assert told.splitlines() == [
        f"{store}: it does not answer (Connection refused); will try again",
        "sending the results to MLflow at http://127.0.0.1:9 ...",  # which may take a minute
    ]
    assert tracker.outcome == (
        f"{store} lacks data (it does not answer (Connection refused)); run the same command again to send it"
    )
    assert follow(run, store_of(run), {0: "done", 1: "training"}).in_step
    assert errors(store_of(run), 0) == [(1, 49.0), (2, 48.0), (3, 47.0)]


@pytest.mark.parametrize("lost", [1, 9])
def test_a_lost_request_at_the_end_loses_neither_the_end_of_the_run_nor_its_models(
    run: Storage, reported_run: Path, short_pauses: None, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    """Requests are lost where a result is sent and where models are logged, once, or again and again."""
    copy_result(reported_run, run)

    def losing(function: Callable[..., object], times: int) -> Callable[..., object]:
        failures = iter(range(times))

        def called(*arguments: object) -> object:
            if next(failures, None) is not None:
                raise MlflowException("API request failed with error code 502")
            return function(*arguments)

        return called

    monkeypatch.setattr("pipelines.tracking.result.send_report", losing(send_report, 1))
    monkeypatch.setattr("pipelines.tracking.follower.publish", losing(lambda *_: Published("model: a", "b"), lost))
    tracker = follow(run, store_of(run), {0: "done", 1: "done"}, succeeded=True)
    assert tracker.in_step
    assert runs_of(store_of(run))["ensemble"].info.status == "FINISHED"  # type: ignore[attr-defined]
    if lost == 1:
        assert (tracker.outcome, tracker.model) == ("model: a", "b")
    else:  # more often than it is tried
        assert tracker.model == ""
        assert "lacks data of the models (it cannot be used: API request failed" in tracker.outcome
        assert tracker.outcome.endswith(f"to send it: {replay_command(run, store_of(run))}")


def test_a_run_is_followed_over_one_connection_and_its_result_is_sent_once(
    run: Storage, reported_run: Path, short_pauses: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new connection downloads all histories; a model that is lost on its way sends no report again."""
    turns, made, reports = Semaphore(0), [], []
    lost = iter([ConnectionResetError("Connection reset by peer")])

    class Counted(_Connection):
        def __init__(self, *arguments: Any) -> None:
            made.append(self)
            super().__init__(*arguments)

        def send(self, *arguments: Any) -> None:
            super().send(*arguments)
            turns.release()

    def counted_report(*arguments: Any) -> None:
        reports.append(arguments)
        send_report(*arguments)

    def publish(*_: object) -> Published:
        if error := next(lost, None):
            raise error
        return Published("model: a", "b")

    monkeypatch.setattr("pipelines.tracking.follower.FOLLOW_SECONDS", 0.1)
    monkeypatch.setattr("pipelines.tracking.follower._Connection", Counted)
    monkeypatch.setattr("pipelines.tracking.follower.publish", publish)
    monkeypatch.setattr("pipelines.tracking.result.send_report", counted_report)
    copy_result(reported_run, run)
    with tracker_of(run, store_of(run)) as tracker:
        for _ in range(2):
            turns.acquire()
        tracker.finish(succeeded=True)
    assert tracker.model == "b"
    assert (len(made), len(reports)) == (1, 1)


@pytest.mark.parametrize("deleted", ["ensemble", "replica_0"])
def test_what_a_user_deletes_while_nothing_new_is_sent_is_there_again_at_the_end(
    run: Storage, reported_run: Path, monkeypatch: pytest.MonkeyPatch, deleted: str
) -> None:
    uri, turns, send = store_of(run), Semaphore(0), Tracker._send

    def counted(tracker: Tracker, final: str | None) -> None:
        send(tracker, final)
        turns.release()

    monkeypatch.setattr("pipelines.tracking.follower.FOLLOW_SECONDS", 0.1)
    monkeypatch.setattr(Tracker, "_send", counted)
    copy_result(reported_run, run)
    write_epochs(run, 0, 3)
    with tracker_of(run, uri) as tracker:
        tracker.update({0: "done", 1: "done"})
        for _ in range(2):
            turns.acquire()
        MlflowClient(uri).delete_run(runs_of(uri)[deleted].info.run_id)  # type: ignore[attr-defined]
        tracker.finish(succeeded=True)
    assert tracker.in_step
    statuses = {role: found.info.status for role, found in runs_of(uri).items()}  # type: ignore[attr-defined]
    assert statuses == dict.fromkeys(("ensemble", "replica_0", "replica_1"), "FINISHED")
    assert errors(uri, 0) == [(1, 49.0), (2, 48.0), (3, 47.0)]


def test_a_failed_request_is_noticed_where_a_site_lets_mlflow_send_in_the_background(
    run: Storage, short_pauses: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "true")
    follow(run, store_of(run), {0: "training", 1: "waiting"})
    write_epochs(run, 0, 3)

    def full(*_: object, **__: object) -> None:
        raise MlflowException("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore.log_batch", full)
        patch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "true")
        tracker = follow(run, store_of(run), {0: "training", 1: "waiting"})
    assert not tracker.in_step
    assert "the disk is full" in tracker.outcome
    assert follow(run, store_of(run), {0: "training", 1: "waiting"}).in_step
    assert errors(store_of(run), 0) == [(1, 49.0), (2, 48.0), (3, 47.0)]


def test_models_are_not_begun_once_the_job_has_given_mlflow_up(run: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.tracking.follower.CLOSE_SECONDS", 0.1)
    answered = Event()
    begun: list[object] = []

    def send(tracker: Tracker, _: object) -> None:
        answered.wait()
        tracker._connection = SimpleNamespace(runs=None)  # type: ignore[assignment]

    monkeypatch.setattr(Tracker, "_send", send)
    monkeypatch.setattr("pipelines.tracking.follower.publish", lambda *models: begun.append(models))
    with tracker_of(run, store_of(run)) as tracker:
        tracker.finish(succeeded=True)
    assert "lacks data (it is too slow)" in tracker.outcome
    answered.set()
    tracker._thread.join()
    assert tracker.in_step
    assert begun == []
    assert "lacks data of the models" in tracker.outcome


def test_the_reason_that_was_told_is_the_one_if_there_is_no_time_for_the_next_attempt(
    run: Storage, short_pauses: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures, begun, ended = iter([ConnectionResetError("Connection reset by peer")]), Event(), Event()

    def send(*_: object) -> None:
        if error := next(failures, None):
            raise error
        begun.set()
        ended.wait()

    monkeypatch.setattr(Tracker, "_send", send)
    with tracker_of(run, store_of(run)) as tracker:
        tracker.finish(succeeded=True)
        # The time is over in the second attempt, however slow the machine is.
        monkeypatch.setattr(tracker._thread, "join", begun.wait)
    assert "lacks data (it cannot be used: Connection reset by peer)" in tracker.outcome
    ended.set()
    Thread.join(tracker._thread)


def test_the_reason_that_was_told_while_the_run_went_on_is_the_one_if_the_end_waits_for_it_too(
    run: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a database that refuses the password, which MLflow asks for minutes each time."""
    monkeypatch.setattr("pipelines.tracking.follower.FOLLOW_SECONDS", 0.01)
    monkeypatch.setattr("pipelines.tracking.follower.CLOSE_SECONDS", 0.2)
    failures, waits, ended = iter([ConnectionResetError("Connection reset by peer")]), Event(), Event()

    def send(*_: object) -> None:
        if error := next(failures, None):
            raise error
        waits.set()
        ended.wait()

    monkeypatch.setattr(Tracker, "_send", send)
    with tracker_of(run, store_of(run)) as tracker:
        waits.wait()
        tracker.finish(succeeded=True)
    assert "lacks data (it cannot be used: Connection reset by peer)" in tracker.outcome
    ended.set()
    tracker._thread.join()


def test_a_failure_that_is_mended_is_not_told_any_more(run: Storage) -> None:
    run.write("replicas/1/failure.txt", b"ValueError: no")
    follow(run, store_of(run), {0: "done", 1: "failed"}, succeeded=False)
    assert runs_of(store_of(run))["replica_1"].data.tags["failure"] == "ValueError: no"  # type: ignore[attr-defined]
    run.delete("replicas/1/failure.txt")
    follow(run, store_of(run), {0: "done", 1: "done"}, succeeded=False)
    assert "failure" not in runs_of(store_of(run))["replica_1"].data.tags  # type: ignore[attr-defined]


def test_uris_are_made_absolute_and_those_with_passwords_refused(
    tmp_path: Path, run: Storage, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tracking_uri_for(run, "sqlite:///other.db") == f"sqlite:///{tmp_path}/other.db"
    assert tracking_uri_for(run) == f"sqlite:///{tmp_path}/mlflow.db"
    shutil.copy(empty_store, tmp_path / "other.db")
    assert follow(run, tracking_uri_for(run, "sqlite:///other.db"), {0: "done", 1: "done"}, succeeded=False).in_step
    assert "ensemble" in runs_of(f"sqlite:///{tmp_path}/other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert tracking_uri_for(run) == "http://server:5000"
    with pytest.raises(UserError, match="MLFLOW_TRACKING_PASSWORD") as refused:
        tracking_uri_for(run, "https://me:secret@server")
    assert "secret" not in str(refused.value)


def test_sheets_of_answers_are_pictures_by_epoch_and_are_sent_once(run: Storage) -> None:
    uri, client = store_of(run), MlflowClient(store_of(run))

    def pictures(role: str) -> list[str]:
        files = client.list_artifacts(runs_of(uri)[role].info.run_id, "images")  # type: ignore[attr-defined]
        return sorted(re.split("[+%]", file.path)[2] for file in files if file.path.endswith(".png"))

    sheets = [SheetAnswers(epoch, SINCE_MS + epoch, (4, 1), (4, 0), (0.9, 0.3)) for epoch in (1, 2)]
    write_sheets(run, 0, sheets[:1])
    follow(run, uri, {0: "training", 1: "waiting"})
    assert (pictures("replica_0"), pictures("replica_1")) == (["1"], [])
    write_sheets(run, 0, sheets)
    for _ in range(2):
        follow(run, uri, {0: "training", 1: "waiting"})
        assert pictures("replica_0") == ["1", "2"]


def test_parameters_are_fields_of_the_recipe_and_the_error_is_the_first_metric(
    run: Storage, reported_run: Path
) -> None:
    copy_result(reported_run, run)
    run.write_json("jobs/1.json", {**JOB, "stage_seconds": {"train": 5.0}})
    write_load(run, "system", "head", 2)
    follow(run, store_of(run), {0: "done", 1: "done"}, succeeded=True)
    found = runs_of(store_of(run))
    fields = {field.name for field in dataclasses.fields(Recipe)}
    for role in ("ensemble", "replica_0"):
        assert found[role].data.params.keys() <= fields  # type: ignore[attr-defined]
    data = found["ensemble"].data  # type: ignore[attr-defined]
    assert data.params.keys() == fields - {"name"}
    assert data.tags["dataset_digest"] == "digest"
    # MLflow opens a comparison of runs with the metric that they had first.
    assert next(iter(data.metrics)) == "top1_error/2x144"
    assert {"stage_seconds/train", "system/head/system_memory_usage_percentage"} < data.metrics.keys()
