"""The line on an interruption, which Ray's messages on what it ended do not follow."""

import signal

import pytest
from ray._private import worker

from pipelines.job import ray_session
from pipelines.job.interruption import _Ending, is_interrupted

MESSAGE = {"lines": ["Task failed. There are infinite retries remaining."], "pid": "raylet", "is_err": False}


def test_ray_prints_its_messages_until_the_command_is_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(worker, "print_worker_logs", worker.print_worker_logs)  # restored
    for _ in range(2):  # the second connection of a process changes nothing
        ray_session._quieten_ray_when_interrupted()
    worker.print_to_stdstream(MESSAGE, ignore_prefix=False)
    assert "infinite retries" in capsys.readouterr().out
    before = signal.signal(signal.SIGTERM, _Ending(0.0))
    try:
        assert is_interrupted()
        worker.print_to_stdstream({**MESSAGE, "lines": ["Task failed again."]}, ignore_prefix=False)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().out == ""
    assert not is_interrupted()


def test_another_ray_without_that_function_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(worker, "print_worker_logs")
    ray_session._quieten_ray_when_interrupted()
    assert not hasattr(worker, "print_worker_logs")
