"""Submit the main job to a Ray cluster, follow it, and submit it again when the cluster loses it.

    python cluster/submit.py --address http://127.0.0.1:8265 --run-dir s3://BUCKET/run -- --recipe paper --data s3://...

A job dies with the head of its cluster; what it has done is in the run directory, and the same job submitted again goes
on from there. Given again while the job runs, this command follows it. Ctrl-C ends the following, not the job.
"""

import asyncio
import logging
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import tyro
from ray.dashboard.modules.job.common import JobStatus
from ray.dashboard.modules.job.pydantic_models import JobDetails
from ray.dashboard.modules.job.sdk import JobSubmissionClient
from ray.exceptions import AuthenticationError

PROJECT = Path(__file__).parents[1]
JOB = "pipelines/train_ensemble.py"
RUN_DIR = "googlenet_run_dir"
COMMIT_VARIABLE = "GOOGLENET_COMMIT"
GIT_SECONDS = 10.0
REQUEST_SECONDS = 30.0
POLL_SECONDS = 5.0
LAST_LINES_SECONDS = 5.0
# A head that does not answer for so long is given up; its cluster may be coming back under the same address.
LOST_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 300.0
LOST_EXIT_CODE = 75
# What another try would end in as well: done, a mistake of the user's, stopped on purpose.
FINAL_EXIT_CODES = (0, 2, 130)


@dataclass(frozen=True)
class Arguments:
    """Submit the main job, follow it, and submit it again when it is lost."""

    run_dir: str
    """Run directory that all nodes see: a shared folder, or a URI of an object store."""
    options: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """After --, the options of train_ensemble.py other than --run-dir."""
    address: str = "http://127.0.0.1:8265"
    """The cluster's dashboard, as `ray dashboard` forwards it."""
    working_dir: Path = PROJECT
    """The project, which travels with the job."""
    attempts: int = 5
    """How often to submit at most."""
    pause_seconds: float = 15.0
    """Pause before the second try; it doubles with each further one, up to five minutes."""
    wait_seconds: float = 1800.0
    """How long to wait for a cluster that does not answer."""


class Client(JobSubmissionClient):  # type: ignore[misc]  # Ray has no types here
    """Ray's client, for which a request without an answer ends."""

    def _do_request(self, *args: Any, **kwargs: Any) -> Any:
        return super()._do_request(*args, **{"timeout": REQUEST_SECONDS, **kwargs})


def main(arguments: Arguments, say: Callable[[str], None]) -> int:
    """The job's exit code; 75 where no try came to an end."""
    logging.getLogger("ray").setLevel(logging.ERROR)  # else a line for every file that stays behind, twice
    pause_seconds = arguments.pause_seconds
    for attempt in range(1, arguments.attempts + 1):
        client = _connect(arguments, say)
        if client is None:
            return LOST_EXIT_CODE
        code = _one_try(client, arguments, say)
        if code in FINAL_EXIT_CODES:
            return code
        if attempt < arguments.attempts:
            say(f"submit: try {attempt} of {arguments.attempts} ended with {code}; again in {pause_seconds:.0f} s")
            time.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)
    return code


def _connect(arguments: Arguments, say: Callable[[str], None]) -> Client | None:
    """A client, once the cluster answers; None if it does not within the time."""
    give_up, told = time.monotonic() + arguments.wait_seconds, ""
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        os.environ.pop(name, None)  # Ray's client would prefer them to the address that it is given
    while True:
        try:
            return Client(arguments.address)
        except AuthenticationError as error:
            raise SystemExit(f"error: {arguments.address}: {error}") from error
        except (ConnectionError, OSError, RuntimeError) as error:
            if time.monotonic() > give_up:
                say(f"error: no cluster at {arguments.address} for {arguments.wait_seconds:.0f} s: {error}")
                return None
            if str(error) != told:
                told = str(error)
                say(f"submit: waiting for the cluster at {arguments.address} ({told.partition(chr(10))[0]})")
            time.sleep(POLL_SECONDS)


def _one_try(client: Client, arguments: Arguments, say: Callable[[str], None]) -> int:
    """Submit, or find the job at work, and follow it to its end; its exit code."""
    try:
        job = _running_job(client, arguments.run_dir) or _submit(client, arguments)
        say(f"submit: following {job}; to end it: ray job stop --address {arguments.address} {job}")
        details = asyncio.run(_follow(client, job))
    except (ConnectionError, OSError, RuntimeError, AuthenticationError) as error:
        say(f"submit: {error}")
        return LOST_EXIT_CODE
    except KeyboardInterrupt:
        say("\nsubmit: the job goes on; the same command follows it again")
        return FINAL_EXIT_CODES[-1]
    if details is None:
        say(f"submit: the cluster has not answered for {LOST_SECONDS:.0f} s")
        return LOST_EXIT_CODE
    if details.status == JobStatus.STOPPED:
        return FINAL_EXIT_CODES[-1]
    if details.status == JobStatus.SUCCEEDED:
        return 0
    if details.driver_exit_code is None:
        say(f"submit: {details.message}")
    return LOST_EXIT_CODE if details.driver_exit_code is None else int(details.driver_exit_code)


def _running_job(client: Client, run_dir: str) -> str | None:
    for details in client.list_jobs():
        is_ours = (details.metadata or {}).get(RUN_DIR) == run_dir
        if is_ours and details.status in (JobStatus.PENDING, JobStatus.RUNNING) and details.submission_id:
            return str(details.submission_id)
    return None


def _submit(client: Client, arguments: Arguments) -> str:
    command = ["python", JOB, *arguments.options, "--run-dir", arguments.run_dir]
    return str(
        client.submit_job(
            entrypoint=shlex.join(command),
            runtime_env={"working_dir": str(arguments.working_dir), "env_vars": _commit(arguments.working_dir)},
            metadata={RUN_DIR: arguments.run_dir},
        )
    )


def _commit(project: Path) -> dict[str, str]:
    """What the job cannot find out where it runs: the repository stays behind."""
    command = ["git", "-C", str(project), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        git = subprocess.run(command, capture_output=True, text=True, check=False, timeout=GIT_SECONDS)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return {COMMIT_VARIABLE: git.stdout.strip()} if git.returncode == 0 else {}


async def _follow(client: Client, job: str) -> JobDetails | None:
    """The job's end; None if the cluster falls silent."""
    printing = asyncio.create_task(_print_logs(client, job))
    answered = time.monotonic()
    try:
        while time.monotonic() - answered < LOST_SECONDS:
            try:
                details = await asyncio.to_thread(client.get_job_info, job)
            except (ConnectionError, OSError, AuthenticationError):
                details = None
            if details is not None:
                answered = time.monotonic()
                if details.status.is_terminal():
                    await asyncio.wait([printing], timeout=LAST_LINES_SECONDS)
                    return details
            await asyncio.sleep(POLL_SECONDS)
        return None
    finally:
        printing.cancel()


async def _print_logs(client: Client, job: str) -> None:
    """Print the job's output as it comes; after a break of the connection, from where it broke off."""
    printed = 0
    while True:
        sent = 0
        try:
            async for text in client.tail_job_logs(job):
                new = text[max(0, printed - sent) :]
                sent += len(text)
                if new:
                    printed = max(printed, sent)
                    sys.stdout.write(new)
                    sys.stdout.flush()
        except (OSError, RuntimeError, aiohttp.ClientError):
            await asyncio.sleep(POLL_SECONDS)
        else:
            return


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments), partial(print, flush=True)))
