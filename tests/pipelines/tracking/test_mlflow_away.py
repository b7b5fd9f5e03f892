"""MLflow that does not answer, is too slow or loses requests: the job goes on, says why, and loses no data."""

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Semaphore, Thread

import pytest
from mlflow.exceptions import MlflowException

from pipelines.errors import TryAgainError
from pipelines.run.storage import Storage
from pipelines.tracking.commands import replay_command
from pipelines.tracking.follower import Tracker
from pipelines.tracking.publish import Published, PublishSettings
from pipelines.tracking.replay import replay
from pipelines.tracking.result import send_report
from tests.pipelines.tracking.followed_runs import (
    copy_result,
    errors,
    follow,
    runs_of,
    store_of,
    tracker_of,
    write_epochs,
)

pytestmark = pytest.mark.timeout(120)


def test_a_server_that_is_away_stops_nothing_and_is_told_once(
    run: Storage, short_pauses: None, attempts: Semaphore, capsys: pytest.CaptureFixture[str]
) -> None:
    write_epochs(run, 0, 3)
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


def test_a_replay_that_no_server_answers_may_be_tried_again_as_it_is(run: Storage, short_pauses: None) -> None:
    with pytest.raises(TryAgainError, match=r"^MLflow at http://127.0.0.1:9: it does not answer"):
        replay(run, PublishSettings("http://127.0.0.1:9", models="none"))


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
    assert runs_of(store_of(run))["ensemble"].info.status == "FINISHED"
    if lost == 1:
        assert (tracker.outcome, tracker.model) == ("model: a", "b")
    else:  # more often than it is tried
        assert tracker.model == ""
        assert "lacks data of the models (it cannot be used: API request failed" in tracker.outcome
        assert tracker.outcome.endswith(f"to send it: {replay_command(run, store_of(run))}")


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


def test_models_are_not_begun_once_the_job_has_given_mlflow_up(
    run: Storage, reported_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_result(reported_run, run)
    monkeypatch.setattr("pipelines.tracking.follower.CLOSE_SECONDS", 0.1)
    given_up, send = Event(), Tracker._send
    begun: list[object] = []

    def send_late(tracker: Tracker, final: str | None) -> None:
        given_up.wait()
        send(tracker, final)

    monkeypatch.setattr(Tracker, "_send", send_late)
    monkeypatch.setattr("pipelines.tracking.follower.publish", lambda *models: begun.append(models))
    with tracker_of(run, store_of(run)) as tracker:
        tracker.finish(succeeded=True)
    assert "lacks data (it is too slow)" in tracker.outcome
    given_up.set()
    tracker._thread.join()
    assert tracker.in_step
    assert begun == []
    assert "lacks data of the models" in tracker.outcome


@contextmanager
def silent_after_one_loss() -> Iterator[tuple[str, Event]]:
    """A server that drops its first connection and answers nothing on the next; whether that one has been made."""
    is_asked_again, ended = Event(), Event()

    def serve() -> None:
        server.accept()[0].close()
        with server.accept()[0]:
            is_asked_again.set()
            ended.wait()

    with socket.create_server(("127.0.0.1", 0)) as server:
        Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", is_asked_again
        ended.set()


def test_the_reason_that_was_told_is_the_one_if_there_is_no_time_for_the_next_attempt(
    run: Storage, short_pauses: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with silent_after_one_loss() as (uri, is_asked_again):
        with tracker_of(run, uri) as tracker:
            tracker.finish(succeeded=True)
            # The time is over in the second attempt, however slow the machine is.
            monkeypatch.setattr(tracker._thread, "join", lambda _: is_asked_again.wait())
        assert re.search(r"lacks data \(it cannot be used: .*Connection aborted", tracker.outcome)
    Thread.join(tracker._thread)


def test_the_reason_that_was_told_while_the_run_went_on_is_the_one_if_the_end_waits_for_it_too(
    run: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a database that refuses the password, which MLflow asks for minutes each time."""
    monkeypatch.setattr("pipelines.tracking.follower.FOLLOW_SECONDS", 0.01)
    monkeypatch.setattr("pipelines.tracking.follower.CLOSE_SECONDS", 0.2)
    with silent_after_one_loss() as (uri, is_asked_again):
        with tracker_of(run, uri) as tracker:
            is_asked_again.wait()
            tracker.finish(succeeded=True)
        assert re.search(r"lacks data \(it cannot be used: .*Connection aborted", tracker.outcome)
    tracker._thread.join()
