"""Output of a job that is followed: all of it is printed once, whatever happens to its streams."""

import asyncio
import errno
import io
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from ray.dashboard.modules.job.pydantic_models import JobDetails

from cluster import following
from cluster.following import Log, follow, prepare_standard_output
from pipelines.job.console import say


class Cluster:
    """A cluster as Ray's client shows it: the job runs until its last stream has begun.

    Each stream has the output from its beginning, and ends in good order.
    """

    def __init__(self, streams: Sequence[Sequence[str]], seconds_between: float) -> None:
        self._streams, self._seconds = list(streams), seconds_between

    def get_job_info(self, _job: str) -> JobDetails:
        status = "RUNNING" if self._streams else "SUCCEEDED"
        return JobDetails(type="SUBMISSION", entrypoint="", status=status)

    async def tail_job_logs(self, _job: str) -> AsyncIterator[str]:
        for text in self._streams.pop(0):
            await asyncio.sleep(self._seconds)
            yield text


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(following, "LAST_LINES_SECONDS", 1.0)


def printed(cluster: Any, log: Log, capsys: pytest.CaptureFixture[str]) -> str:
    details = follow(cluster, "job", log)
    assert details is not None
    assert details.status == "SUCCEEDED"
    return capsys.readouterr().out


def test_the_end_of_a_long_output_is_printed_although_the_job_has_ended(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"line {number}\n" for number in range(15)]
    # Some of it was printed before the connection was lost; all of it comes again, for longer than nothing may come.
    log = Log(printed=len(lines[0]))
    assert printed(Cluster([lines], seconds_between=0.1), log, capsys) == "".join(lines[1:])


class WithoutReader(io.StringIO):
    """A standard output whose reader, such as head, has gone."""

    encoding = "utf-8"

    def write(self, _text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


class Unread(Cluster):
    """A cluster whose job runs a while longer."""

    asked = 0

    def get_job_info(self, _job: str) -> JobDetails:
        self.asked += 1
        return JobDetails(type="SUBMISSION", entrypoint="", status="SUCCEEDED" if self.asked > 20 else "RUNNING")


def test_output_that_nobody_reads_is_asked_for_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = Unread([["one\n"]] * 9, seconds_between=0.0)
    monkeypatch.setattr(sys, "stdout", WithoutReader())
    details = follow(cluster, "job", Log())  # type: ignore[arg-type]
    assert details is not None
    assert len(cluster._streams) == 8
    assert "takes nothing any more (Broken pipe): a job's output is not shown from here" in capsys.readouterr().err
    say("größe")  # of the next attempt; it goes nowhere, and does not fail


def test_a_slow_reader_gets_all_of_it_through_a_pipe_that_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a line that is longer than nothing\n" * 10_000  # more than a pipe holds
    monkeypatch.setattr(following, "LAST_LINES_SECONDS", 0.1)
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    with os.fdopen(read_end) as reader, os.fdopen(write_end, "w") as writer, ThreadPoolExecutor() as threads:
        monkeypatch.setattr(sys, "stdout", writer)
        prepare_standard_output()
        following_it = threads.submit(follow, Cluster([[text]], seconds_between=0.0), "job", Log())  # type: ignore[arg-type]
        time.sleep(0.5)  # longer than output may stop coming after the job's end
        assert reader.read(len(text)) == text
        assert following_it.result() is not None


def test_a_standard_output_that_the_shell_has_closed_takes_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    prepare_standard_output()
    assert follow(Cluster([["one\n"]], seconds_between=0.0), "job", Log()) is not None  # type: ignore[arg-type]


def test_output_that_a_terminal_cannot_show_comes_as_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding="ascii"))
    prepare_standard_output()
    assert follow(Cluster([["größe\n"]], seconds_between=0.0), "job", Log()) is not None  # type: ignore[arg-type]
    assert content.getvalue() == rb"gr\xf6\xdfe" + b"\n"


def test_a_stream_that_ends_before_the_job_is_opened_again(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["one\n", "two\n", "three\n"]
    streams = [lines[:1], lines[:2], lines]
    assert printed(Cluster(streams, seconds_between=0.0), Log(), capsys) == "".join(lines)
