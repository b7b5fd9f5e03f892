"""MLflow follows the run directory: nothing lost, nothing twice."""

import re
from pathlib import Path
from threading import Semaphore
from typing import Any

import pytest
from mlflow import MlflowClient

from pipelines.run.lock import taken_over
from pipelines.run.sheet import SheetAnswers, write_sheets
from pipelines.run.storage import Storage
from pipelines.tracking.follower import _Connection
from pipelines.tracking.publish import Published
from pipelines.tracking.result import send_report
from tests.pipelines.tracking.followed_runs import (
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
    assert first["ensemble"].info.status == "FAILED"
    assert first["replica_0"].info.status == "KILLED"
    write_epochs(run, 0, 4)
    write_epochs(run, 1, 1, alarm="head logits is dead")
    run.write("replicas/1/failure.txt", b"Traceback\nValueError: of another kind")
    copy_result(reported_run, run)
    follow(run, uri, {0: "done", 1: "failed"}, succeeded=True)
    second = runs_of(uri)
    assert {n: r.info.run_id for n, r in first.items()} == {n: r.info.run_id for n, r in second.items()}
    # With the times at which they were measured, whenever they were sent.
    assert history(uri, "replica_0", "val_top1_error") == [(e, 50.0 - e, SINCE_MS + e) for e in (1, 2, 3, 4)]
    assert history(uri, "replica_0", "val_top1_error_raw_weights") == [
        (e, 60.0 - e, SINCE_MS + e) for e in (1, 2, 3, 4)
    ]
    assert errors(uri, 1) == [(1, 49.0)]
    tags = second["replica_1"].data.tags
    assert tags["alarm"] == "head logits is dead"
    assert tags["failure"] == "ValueError: of another kind"
    assert "of another kind" in tags["mlflow.note.content"]
    statuses = {name: r.info.status for name, r in second.items()}
    assert statuses == {"ensemble": "FINISHED", "replica_0": "FINISHED", "replica_1": "FAILED"}


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


def test_a_run_is_followed_over_one_connection_and_its_result_is_sent_once(
    run: Storage, reported_run: Path, short_pauses: None, attempts: Semaphore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new connection downloads all histories; a model that is lost on its way sends no report again."""
    made, reports = [], []
    lost = iter([ConnectionResetError("Connection reset by peer")])

    def counted_connection(*arguments: Any) -> _Connection:
        made.append(arguments)
        return _Connection(*arguments)

    def counted_report(*arguments: Any) -> None:
        reports.append(arguments)
        send_report(*arguments)

    def publish(*_: object) -> Published:
        if error := next(lost, None):
            raise error
        return Published("model: a", "b")

    monkeypatch.setattr("pipelines.tracking.follower._Connection", counted_connection)
    monkeypatch.setattr("pipelines.tracking.follower.publish", publish)
    monkeypatch.setattr("pipelines.tracking.result.send_report", counted_report)
    copy_result(reported_run, run)
    with tracker_of(run, store_of(run)) as tracker:
        for _ in range(2):
            attempts.acquire()
        tracker.finish(succeeded=True)
    assert tracker.model == "b"
    assert (len(made), len(reports)) == (1, 1)


@pytest.mark.parametrize("deleted", ["ensemble", "replica_0"])
def test_what_a_user_deletes_while_nothing_new_is_sent_is_there_again_at_the_end(
    run: Storage, reported_run: Path, attempts: Semaphore, deleted: str
) -> None:
    uri = store_of(run)
    copy_result(reported_run, run)
    write_epochs(run, 0, 3)
    with tracker_of(run, uri) as tracker:
        tracker.update({0: "done", 1: "done"})
        for _ in range(2):
            attempts.acquire()
        MlflowClient(uri).delete_run(runs_of(uri)[deleted].info.run_id)
        tracker.finish(succeeded=True)
    assert tracker.in_step
    statuses = {role: found.info.status for role, found in runs_of(uri).items()}
    assert statuses == dict.fromkeys(("ensemble", "replica_0", "replica_1"), "FINISHED")
    assert errors(uri, 0) == [(1, 49.0), (2, 48.0), (3, 47.0)]


def test_a_job_whose_run_another_one_has_taken_over_reports_no_end(run: Storage) -> None:
    uri = store_of(run)
    follow(run, uri, {0: "training", 1: "waiting"}, succeeded=False)
    taken_over.set()
    try:
        with pytest.raises(KeyboardInterrupt), tracker_of(run, uri):
            raise KeyboardInterrupt
    finally:
        taken_over.clear()
    assert runs_of(uri)["ensemble"].info.status == "FAILED"  # and not KILLED


def test_sheets_of_answers_are_pictures_by_epoch_and_are_sent_once(run: Storage) -> None:
    uri, client = store_of(run), MlflowClient(store_of(run))

    def pictures(role: str) -> list[str]:
        files = client.list_artifacts(runs_of(uri)[role].info.run_id, "images")
        return sorted(re.split("[+%]", file.path)[2] for file in files if file.path.endswith(".png"))

    sheets = [SheetAnswers(epoch, SINCE_MS + epoch, (4, 1), (4, 0), (0.9, 0.3)) for epoch in (1, 2)]
    write_sheets(run, 0, sheets[:1])
    follow(run, uri, {0: "training", 1: "waiting"})
    assert (pictures("replica_0"), pictures("replica_1")) == (["1"], [])
    write_sheets(run, 0, sheets)
    for _ in range(2):
        follow(run, uri, {0: "training", 1: "waiting"})
        assert pictures("replica_0") == ["1", "2"]
