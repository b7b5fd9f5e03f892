"""A job on a Ray cluster as a client sees it: its state and its output, through connections that come and go."""

import asyncio
import io
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from ray.dashboard.modules.job.pydantic_models import JobDetails
from ray.dashboard.modules.job.sdk import JobSubmissionClient
from ray.exceptions import AuthenticationError

from pipelines.job.console import complain

LOOPBACK = ("127.0.0.1", "localhost", "::1")
REQUEST_SECONDS = 30.0
# The end of a job, and a head that can start it, are noticed this much later at most; its user waits for both.
POLL_SECONDS = 2.0
# Output that stops coming for this long after the job's end is complete, or out of reach.
LAST_LINES_SECONDS = 5.0
CANCEL_SECONDS = 1.0
# A head that does not answer for this long counts as lost; its cluster may come back under the same address.
LOST_SECONDS = 60.0
# Ray's answer for a job that this head has never had, since the cluster is a new one.
UNKNOWN_JOB = "status code 404"
# Failures of a request: no connection, no answer in time, an answer that is an error, and a token that is refused.
REQUEST_FAILURES = (ConnectionError, OSError, RuntimeError, AuthenticationError)


class Client(JobSubmissionClient):  # type: ignore[misc]  # Ray has no types here
    """Ray's client with a timeout on every request, and without the environment's proxy on loopback."""

    def _do_request(self, *args: Any, **kwargs: Any) -> Any:
        host = urlsplit(self._address).hostname
        # requests makes no exception of loopback by itself: the proxy would get the token.
        proxies = {"no_proxy": host} if host in LOOPBACK else None
        return super()._do_request(*args, **{"timeout": REQUEST_SECONDS, "proxies": proxies, **kwargs})


class UnknownJobError(Exception):
    """The cluster does not know the job: it is a new one."""


class OutputLostError(Exception):
    """Standard output takes nothing any more: its reader is gone, or its disk is full."""


@dataclass
class Log:
    """A job's output so far.

    Attributes:
        printed: characters that have been printed.
        received: characters that came, some of them more than once.
        writing: whether the reader of standard output is waited for.
    """

    printed: int = 0
    received: int = 0
    writing: bool = False


def follow(client: Client, job: str, log: Log) -> JobDetails | None:
    """Return the job's details at its end, or None if the cluster stops answering.

    Ctrl-C interrupts a request that hangs, since this thread makes it.

    Raises:
        UnknownJobError: the cluster answers that it has no such job.
    """
    with _printing(client, job, log) as printing:
        answered = time.monotonic()
        while time.monotonic() - answered < LOST_SECONDS:
            details = _details(client, job)
            if details is not None:
                answered = time.monotonic()
                if details.status.is_terminal():
                    _wait_for_last_lines(printing, log)
                    return details
            time.sleep(POLL_SECONDS)
    return None


def _details(client: Client, job: str) -> JobDetails | None:
    """Return what the cluster says of the job; None if it does not answer, or fails to."""
    try:
        return client.get_job_info(job)
    except REQUEST_FAILURES as error:
        if UNKNOWN_JOB in str(error).partition("\n")[0]:
            raise UnknownJobError from error
        return None


@contextmanager
def _printing(client: Client, job: str, log: Log) -> Iterator[threading.Thread]:
    """Print the job's output during the block, in a thread."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(_print_logs(client, job, log))

    def run() -> None:
        try:
            with suppress(asyncio.CancelledError, UnknownJobError):
                loop.run_until_complete(task)
        except OutputLostError as error:
            leave_standard_output(str(error))
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())  # else asyncio complains of a stream that is left
            loop.close()

    thread = threading.Thread(target=run, name="job_output", daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        with suppress(RuntimeError):  # all is printed, and the loop is closed
            loop.call_soon_threadsafe(task.cancel)
        thread.join(CANCEL_SECONDS)


def _wait_for_last_lines(printing: threading.Thread, log: Log) -> None:
    """Wait as long as output comes, or waits for its reader: after a lost connection it is sent from its beginning."""
    before = -1
    while printing.is_alive() and (log.writing or log.received != before):
        before = log.received
        printing.join(LAST_LINES_SECONDS)


async def _print_logs(client: Client, job: str, log: Log) -> None:
    """Stream the job's output to its end; after a lost connection, continue where it stopped."""
    while True:
        sent = 0
        try:
            async for text in client.tail_job_logs(job):
                new = text[max(0, log.printed - sent) :]
                sent += len(text)
                log.received += len(text)
                if new:
                    log.printed = max(log.printed, sent)
                    log.writing = True
                    _show(new)
                    log.writing = False
        except (OSError, RuntimeError, aiohttp.ClientError):
            pass
        else:
            # The dashboard also ends a stream in good order when a process of its own is restarted.
            details = _details(client, job)
            if details is not None and details.status.is_terminal():
                return
        await asyncio.sleep(POLL_SECONDS)


def _show(text: str) -> None:
    """Print a part of the output.

    Raises:
        OutputLostError: it cannot be written, which is no loss of the connection.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        raise OutputLostError(error.strerror or type(error).__name__) from error


def prepare_standard_output() -> None:
    """Let standard output show what its encoding lacks as escapes, and wait for a slow reader.

    Some parent processes leave it in a state in which a full pipe is an error, and the text that it refuses is lost.
    """
    if sys.stdout is None:  # closed by the shell
        sys.stdout = Discarded()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    with suppress(OSError):  # no file: nothing would wait there
        os.set_blocking(sys.stdout.fileno(), True)


class Discarded(io.TextIOBase):
    """In place of a standard output that takes nothing any more: what is written goes nowhere."""

    def write(self, text: str) -> int:
        """Return the number of characters, as if they had been written."""
        return len(text)


def leave_standard_output(reason: str) -> None:
    """Let the job's output go nowhere, where it cannot fail, and say so on standard error."""
    sys.stdout = Discarded()
    with suppress(OSError):  # it may have lost the same reader
        complain(f"submit: standard output takes nothing any more ({reason}): a job's output is not shown from here on")
