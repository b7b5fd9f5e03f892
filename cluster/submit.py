"""Submission of the main job to a Ray cluster; follows the job and resubmits it if the cluster loses it.

    python cluster/submit.py --address http://127.0.0.1:8265 --run-dir s3://BUCKET/run -- --recipe paper --data s3://...

A job dies with the head of its cluster, but its progress is in the run directory: submitted again, it resumes there. If
the job is still running, this command only follows it. Ctrl-C stops the following, not the job.
"""

import argparse
import asyncio
import logging
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import chdir
from functools import partial
from pathlib import Path
from typing import Any

TOKEN = Path.home() / ".ray/auth_token"
# Either comes before that file.
TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
if __name__ == "__main__" and (TOKEN.exists() or set(TOKEN_VARIABLES) & set(os.environ)):
    # A head that finds a token asks for it. Ray's client sends one in this mode alone, which it reads when imported.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
try:
    import aiohttp
    from ray.dashboard.modules.dashboard_sdk import parse_runtime_env_args
    from ray.dashboard.modules.job.common import JobStatus
    from ray.dashboard.modules.job.pydantic_models import JobDetails
    from ray.dashboard.modules.job.sdk import JobSubmissionClient
    from ray.exceptions import AuthenticationError
except ImportError as error:  # on a machine of its own, it needs nothing but Ray
    raise SystemExit(
        f"error: {sys.executable} lacks {error.name}: run pip install -c constraints.txt 'ray[default]' with it"
    ) from error

PROJECT = Path(__file__).parents[1]
JOB = "pipelines/train_ensemble.py"
ADDRESS = "http://127.0.0.1:8265"
RUN_DIR = "googlenet_run_dir"
COMMIT_VARIABLE = "GOOGLENET_COMMIT"
GIT_SECONDS = 10.0
REQUEST_SECONDS = 30.0
# The end of a job, and a head that can start it, are noticed this much later at most; its user waits for both.
POLL_SECONDS = 2.0
LAST_LINES_SECONDS = 5.0
# A head that does not answer for this long counts as lost; its cluster may come back under the same address.
LOST_SECONDS = 60.0
LONGEST_PAUSE_SECONDS = 300.0
# Ray's answer while a new head, which already takes uploads, cannot start jobs yet.
NOT_READY = "No available agent"
LOST_EXIT_CODE = 75
# Outcomes that another attempt would not change: success, an error of the user, a limit on time or money, stopped on
# purpose.
FINAL_EXIT_CODES = (0, 2, 3, 130)


class Arguments(argparse.Namespace):
    """Options of this command; :func:`parse` describes them."""

    run_dir: str
    options: list[str]
    address: str
    working_dir: Path
    runtime_env: Path | None
    attempts: int
    pause_seconds: float
    wait_seconds: float


def parse(words: Sequence[str]) -> Arguments:
    """Return the options of the command line ``words``."""
    parser = argparse.ArgumentParser(
        description="Submit the main job, follow it, and submit it again if it is lost.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--run-dir", required=True, help="run directory that all nodes can access: a shared folder, or a URI")
    add("options", nargs="*", help="options of train_ensemble.py, after --, except --run-dir")
    add("--address", default=ADDRESS, help="the cluster's dashboard; that of ray dashboard (%(default)s) by default")
    add("--working-dir", type=Path, default=PROJECT, help="folder of the project, which is uploaded with the job")
    add("--runtime-env", type=Path, help="Ray's runtime environment of the job, such as cluster/runtime_env.yaml")
    add("--attempts", type=int, default=5, help="maximum number of attempts (%(default)s)")
    add("--pause-seconds", type=float, default=15.0, help="pause before the second attempt, doubled up to 5 minutes")
    add("--wait-seconds", type=float, default=1800.0, help="time to wait for a cluster that does not answer")
    arguments = parser.parse_args(words, namespace=Arguments())
    if arguments.runtime_env and not arguments.runtime_env.is_file():
        parser.error(f"--runtime-env {arguments.runtime_env} is no file")
    return arguments


class Client(JobSubmissionClient):  # type: ignore[misc]  # Ray has no types here
    """Ray's client with a timeout on every request."""

    def _do_request(self, *args: Any, **kwargs: Any) -> Any:
        return super()._do_request(*args, **{"timeout": REQUEST_SECONDS, **kwargs})


def main(arguments: Arguments, say: Callable[[str], None]) -> int:
    """Return the job's exit code, or 75 if the last attempt was lost."""
    logging.getLogger("ray").setLevel(logging.ERROR)  # otherwise it logs every excluded file, twice
    pause_seconds = arguments.pause_seconds
    for attempt in range(1, arguments.attempts + 1):
        client = _connect(arguments, say)
        if client is None:
            return LOST_EXIT_CODE
        code = _one_try(client, arguments, say)
        if code in FINAL_EXIT_CODES:
            return code
        if attempt < arguments.attempts:
            say(f"submit: attempt {attempt} of {arguments.attempts} ended with {code}; retry in {pause_seconds:.0f} s")
            time.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)
    return code


def _connect(arguments: Arguments, say: Callable[[str], None]) -> Client | None:
    """Return a client once the cluster answers, or None after ``wait_seconds``."""
    give_up, told = time.monotonic() + arguments.wait_seconds, ""
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        os.environ.pop(name, None)  # they would override the address passed to Ray's client
    while True:
        try:
            return Client(arguments.address)
        except AuthenticationError as error:
            answer = str(error).partition("\n")[0]
            variable = next((name for name in TOKEN_VARIABLES if name in os.environ), "")
            fix = f"{variable} has another token than the head" if variable else f"copy the head's token to {TOKEN}"
            raise SystemExit(f"error: {arguments.address}: {answer}: {fix}") from error
        except (ConnectionError, OSError, RuntimeError) as error:
            if time.monotonic() > give_up:
                say(f"error: no answer from {arguments.address} for {arguments.wait_seconds:.0f} s: {error}")
                return None
            if str(error) != told:
                told = str(error)
                say(f"submit: waiting for the cluster at {arguments.address} ({told.partition(chr(10))[0]})")
            time.sleep(POLL_SECONDS)


def _one_try(client: Client, arguments: Arguments, say: Callable[[str], None]) -> int:
    """Submit the job, or find it running, and follow it to its end; return its exit code."""
    try:
        job = _running_job(client, arguments.run_dir) or _submit_once_ready(client, arguments, say)
        say(f"submit: following {job}; to stop it: ray job stop --address {arguments.address} {job}")
        details = asyncio.run(_follow(client, job))
    except (ConnectionError, OSError, RuntimeError, AuthenticationError) as error:
        say(f"submit: {error}")
        return LOST_EXIT_CODE
    except KeyboardInterrupt:
        say("\nsubmit: the job continues; run the same command again to follow it")
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


def _submit_once_ready(client: Client, arguments: Arguments, say: Callable[[str], None]) -> str:
    """Submit the job as soon as the head can start it, within ``wait_seconds``."""
    give_up, told = time.monotonic() + arguments.wait_seconds, False
    while True:
        try:
            return _submit(client, arguments)
        except RuntimeError as error:
            if NOT_READY not in str(error) or time.monotonic() > give_up:
                raise
        if not told:
            say(f"submit: waiting for the cluster at {arguments.address}, which cannot start jobs yet")
            told = True
        time.sleep(POLL_SECONDS)


def _submit(client: Client, arguments: Arguments) -> str:
    command = ["python", JOB, *arguments.options, "--run-dir", arguments.run_dir]
    given = str(arguments.runtime_env.absolute()) if arguments.runtime_env else None
    runtime_env = parse_runtime_env_args(given, working_dir=str(arguments.working_dir.absolute()))
    variables = {**runtime_env.get("env_vars", {}), **_commit(arguments.working_dir)}
    with chdir(arguments.working_dir):  # files that the runtime environment names are relative to it
        job = client.submit_job(
            entrypoint=shlex.join(command),
            runtime_env={**runtime_env, "env_vars": variables},
            metadata={RUN_DIR: arguments.run_dir},
        )
    return str(job)


def _commit(project: Path) -> dict[str, str]:
    """Return the commit as a variable for the job, which runs without the repository."""
    command = ["git", "-C", str(project), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        git = subprocess.run(command, capture_output=True, text=True, check=False, timeout=GIT_SECONDS)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return {COMMIT_VARIABLE: git.stdout.strip()} if git.returncode == 0 else {}


async def _follow(client: Client, job: str) -> JobDetails | None:
    """Return the job's details at its end, or None if the cluster stops answering."""
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
    """Stream the job's output; after a lost connection, continue where it stopped."""
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
    sys.exit(main(parse(sys.argv[1:]), partial(print, flush=True)))
