"""A job on a Ray cluster as a client sees it: its state and its output, through connections that come and go."""

import asyncio
import sys
import time
from dataclasses import dataclass
from typing import Any

import aiohttp
from ray.dashboard.modules.job.pydantic_models import JobDetails
from ray.dashboard.modules.job.sdk import JobSubmissionClient
from ray.exceptions import AuthenticationError

REQUEST_SECONDS = 30.0
# The end of a job, and a head that can start it, are noticed this much later at most; its user waits for both.
POLL_SECONDS = 2.0
LAST_LINES_SECONDS = 5.0
# A head that does not answer for this long counts as lost; its cluster may come back under the same address.
LOST_SECONDS = 60.0
# Ray's answer for a job that this head has never had, since the cluster is a new one.
UNKNOWN_JOB = "status code 404"
# Failures of a request: no connection, no answer in time, an answer that is an error, and a token that is refused.
REQUEST_FAILURES = (ConnectionError, OSError, RuntimeError, AuthenticationError)


class Client(JobSubmissionClient):  # type: ignore[misc]  # Ray has no types here
    """Ray's client with a timeout on every request."""

    def _do_request(self, *args: Any, **kwargs: Any) -> Any:
        return super()._do_request(*args, **{"timeout": REQUEST_SECONDS, **kwargs})


class UnknownJobError(Exception):
    """The cluster does not know the job: it is a new one."""


@dataclass
class Log:
    """How many characters of a job's output have been printed."""

    printed: int = 0


async def follow(client: Client, job: str, log: Log) -> JobDetails | None:
    """Return the job's details at its end, or None if the cluster stops answering.

    Raises:
        UnknownJobError: the cluster answers that it has no such job.
    """
    printing = asyncio.create_task(_print_logs(client, job, log))
    answered = time.monotonic()
    try:
        while time.monotonic() - answered < LOST_SECONDS:
            details = await asyncio.to_thread(_details, client, job)
            if details is not None:
                answered = time.monotonic()
                if details.status.is_terminal():
                    await asyncio.wait([printing], timeout=LAST_LINES_SECONDS)
                    return details
            await asyncio.sleep(POLL_SECONDS)
        return None
    finally:
        printing.cancel()


def _details(client: Client, job: str) -> JobDetails | None:
    """Return what the cluster says of the job; None if it does not answer, or fails to."""
    try:
        return client.get_job_info(job)
    except REQUEST_FAILURES as error:
        if UNKNOWN_JOB in str(error).partition("\n")[0]:
            raise UnknownJobError from error
        return None


async def _print_logs(client: Client, job: str, log: Log) -> None:
    """Stream the job's output; after a lost connection, continue where it stopped."""
    while True:
        sent = 0
        try:
            async for text in client.tail_job_logs(job):
                new = text[max(0, log.printed - sent) :]
                sent += len(text)
                if new:
                    log.printed = max(log.printed, sent)
                    sys.stdout.write(new)
                    sys.stdout.flush()
        except (OSError, RuntimeError, aiohttp.ClientError):
            await asyncio.sleep(POLL_SECONDS)
        else:
            return
