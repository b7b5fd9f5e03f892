"""Submission of the main job to a Ray cluster; follows the job and resubmits it if the cluster loses it.

    python cluster/submit.py --address http://127.0.0.1:8265 --run-dir s3://BUCKET/run -- --recipe paper --data s3://...

A job dies with the head of its cluster, but its progress is in the run directory: submitted again, it resumes there. If
the job is still running, this command only follows it. Ctrl-C stops the following, not the job.
"""

import contextlib
import logging
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

OLDEST_PYTHON = (3, 11)
if sys.version_info[:2] < OLDEST_PYTHON:  # Ray can be installed in older ones
    raise SystemExit(f"error: Python {platform.python_version()} at {sys.executable} is too old, 3.11 is needed")

TOKEN = Path(os.path.expanduser("~/.ray/auth_token"))  # noqa: PTH111  # also of a user without a home folder
# Either comes before that file.
TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
if __name__ == "__main__" and (TOKEN.exists() or set(TOKEN_VARIABLES) & set(os.environ)):
    # A head that finds a token asks for it. Ray's client sends one in this mode alone, which it reads when imported.
    os.environ.setdefault("RAY_AUTH_MODE", "token")
if __name__ == "__main__":  # Python finds modules beside a script by itself, but not from the folder above
    # First: an installed package may be called cluster, too. Only a folder with __init__.py comes before such a one.
    sys.path.insert(0, str(Path(__file__).parents[1]))
try:
    from ray.dashboard.modules.job.common import JobStatus
    from ray.dashboard.modules.job.pydantic_models import JobDetails
    from ray.exceptions import AuthenticationError

    from cluster.following import (
        LOST_SECONDS,
        POLL_SECONDS,
        REQUEST_FAILURES,
        Client,
        Discarded,
        Log,
        UnknownJobError,
        follow,
        leave_standard_output,
        prepare_standard_output,
    )
    from cluster.options import JOB, USER_ERROR_EXIT_CODE, Arguments, parse, runtime_env
    from pipelines.job.console import complain
    from pipelines.job.console import say as say_in_columns
except ImportError as error:  # on a machine of its own, it needs nothing but Ray
    raise SystemExit(
        f"error: {sys.executable} lacks {error.name}: run pip install -c constraints.txt 'ray[default]' with it"
    ) from error

RUN_DIR = "googlenet_run_dir"
COMMIT_VARIABLE = "GOOGLENET_COMMIT"
GIT_SECONDS = 10.0
LONGEST_PAUSE_SECONDS = 300.0
# Ray's answer while a new head, which already takes uploads, cannot start jobs yet.
NOT_READY = "No available agent"
# What Ray and its dashboard say of a working directory that is too large to upload.
TOO_LARGE = ("exceeds the maximum size", "Maximum request body size")
LOST_EXIT_CODE, STOPPED_EXIT_CODE, SIGNAL_EXIT_CODE = 75, 130, 128
# Outcomes that another attempt would not change: success, an error of the user, a limit on time or money, stopped on
# purpose.
FINAL_EXIT_CODES = (0, USER_ERROR_EXIT_CODE, 3, STOPPED_EXIT_CODE)


class NoAnswerError(Exception):
    """The cluster has not answered for ``wait_seconds``."""


def main(arguments: Arguments, say: Callable[[str], None]) -> int:
    """Return the job's exit code; 75 if the last attempt was lost, 130 after Ctrl-C."""
    logging.getLogger("ray").setLevel(logging.ERROR)  # otherwise it logs every excluded file, twice
    submission = Submission(arguments, say)
    try:
        return submission.run()
    except NoAnswerError as error:
        say(f"error: {error}")
        return LOST_EXIT_CODE
    except KeyboardInterrupt:
        followed = f"{submission.job} continues; run the same command again to follow it"
        say(f"\nsubmit: {followed if submission.job else 'interrupted; no job is known to run'}")
        return STOPPED_EXIT_CODE


class Submission:
    """Submits the job, follows it, and submits it again.

    Attributes:
        job: id of the job that is followed; empty while there is none.
    """

    def __init__(self, arguments: Arguments, say: Callable[[str], None]) -> None:
        self.job = ""
        self._arguments, self._say = arguments, say
        self._log = Log()

    def run(self) -> int:
        """Return the exit code of the last job."""
        self._say(f"submit: connecting to the cluster at {self._arguments.address} ...")
        attempt, pause_seconds, attempts = 1, self._arguments.pause_seconds, self._arguments.attempts
        while (code := self._try()) not in FINAL_EXIT_CODES and attempt < attempts:
            self._say(f"submit: attempt {attempt} of {attempts} ended with {code}; retry in {pause_seconds:.0f} s")
            time.sleep(pause_seconds)
            attempt, pause_seconds = attempt + 1, min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)
        return code

    def _try(self) -> int:
        """Submit the job, or find it running, and follow it to its end, however often it is lost from view."""
        while True:
            client, running = _connect(self._arguments, self._say)
            if not self.job:
                self.job, self._log = "", Log()
                if running:
                    self.job = str(running.submission_id)
                    self._say(_about_running(running, self._arguments))
            try:
                self.job = self.job or _submit_once_ready(client, self._arguments, self._say)
            except REQUEST_FAILURES as error:
                too_large = [line for line in str(error).splitlines() if any(words in line for words in TOO_LARGE)]
                project = self._arguments.working_dir
                fix = f"move large files out of {project}, or list them in {project / '.rayignore'}"
                refusal = f"error: {too_large[0].rstrip(' .')}; {fix}" if too_large else ""
                self._say(refusal or f"submit: {_in_one_line(error)}")
                return USER_ERROR_EXIT_CODE if too_large else LOST_EXIT_CODE
            stop = f"ray job stop --address {self._arguments.address} {self.job}"
            self._say(f"submit: following {self.job}; to stop it: {stop}")
            try:
                details = follow(client, self.job, self._log)
            except UnknownJobError:
                self._say(f"submit: {self._arguments.address} does not know {self.job} any more")
                self.job = ""
                return LOST_EXIT_CODE
            if details:
                self.job = ""
                return _exit_code(details, self._say)
            self._say(f"submit: the cluster has not answered for {LOST_SECONDS:.0f} s")


def _exit_code(details: JobDetails, say: Callable[[str], None]) -> int:
    """Return the exit code of a job that has ended."""
    if details.status == JobStatus.STOPPED:
        return STOPPED_EXIT_CODE
    if details.status == JobStatus.SUCCEEDED:
        return 0
    if details.driver_exit_code is None:
        say(f"submit: {str(details.message).strip()}")  # the cause is not in its first line
        return LOST_EXIT_CODE
    code = int(details.driver_exit_code)
    if code < 0:  # killed by a signal, of which a shell makes 137 and the like
        code = SIGNAL_EXIT_CODE - code
    # Interrupted, but not by ray job stop: as its machine is shut down or restarted.
    return LOST_EXIT_CODE if code == STOPPED_EXIT_CODE else code


def _connect(arguments: Arguments, say: Callable[[str], None]) -> tuple[Client, JobDetails | None]:
    """Return a client once the cluster answers, and the job that already runs there, if there is one.

    Raises:
        NoAnswerError: it has not answered for ``wait_seconds``.
    """
    give_up, told = time.monotonic() + arguments.wait_seconds, ""
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        os.environ.pop(name, None)  # they would override the address passed to Ray's client
    while True:
        try:
            client = Client(arguments.address)
            return client, _running_job(client, arguments.run_dir)
        except AuthenticationError as error:
            answer = _in_one_line(error)
            variable = next((name for name in TOKEN_VARIABLES if name in os.environ), "")
            fix = f"the token in {variable} is not the head's" if variable else f"copy the head's token to {TOKEN}"
            complain(f"error: {arguments.address}: {answer}: {fix}")
            raise SystemExit(1) from error
        except (ConnectionError, OSError, RuntimeError) as error:
            if time.monotonic() > give_up:
                waited = f"for {arguments.wait_seconds:.0f} s"
                reason = f"no answer from {arguments.address} {waited}: {_in_one_line(error)}"
                raise NoAnswerError(f"{reason}; check --address, and whether `ray dashboard` still runs") from error
            if str(error) != told:
                told = str(error)
                say(f"submit: waiting for the cluster at {arguments.address} ({_in_one_line(error)})")
            time.sleep(POLL_SECONDS)


def _in_one_line(message: object) -> str:
    """Return the first line of a message, or the last one if it is a traceback of the head's."""
    lines = str(message).rstrip(" .\n").splitlines() or [type(message).__name__]
    return lines[-1].strip() if "Traceback (most recent call last)" in lines[0] else lines[0]


def _running_job(client: Client, run_dir: str) -> JobDetails | None:
    """Return the job on this run directory that waits or runs, if there is one."""
    for details in client.list_jobs():
        is_ours = (details.metadata or {}).get(RUN_DIR, "").rstrip("/") == run_dir.rstrip("/")
        if is_ours and details.status in (JobStatus.PENDING, JobStatus.RUNNING) and details.submission_id:
            return details
    return None


def _about_running(job: JobDetails, arguments: Arguments) -> str:
    """Return that the job already runs, and whether with other options than those given."""
    running = f"submit: {job.submission_id} already runs on this run directory"
    if job.entrypoint == _entrypoint(arguments):
        return running
    return f"{running} with other options, which stay in force; stop it first to use the new ones: {job.entrypoint}"


def _entrypoint(arguments: Arguments) -> str:
    return shlex.join(["python", JOB, *arguments.options, "--run-dir", arguments.run_dir])


def _submit_once_ready(client: Client, arguments: Arguments, say: Callable[[str], None]) -> str:
    """Submit the job as soon as the head can start it, within ``wait_seconds``."""
    give_up, told = time.monotonic() + arguments.wait_seconds, False
    say(f"submit: uploading {arguments.working_dir} ...")
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
    environment = {**runtime_env(arguments), "working_dir": str(arguments.working_dir.absolute())}
    variables = {**environment.get("env_vars", {}), **_commit(arguments.working_dir)}
    with contextlib.chdir(arguments.working_dir):  # files that the runtime environment names are relative to it
        job = client.submit_job(
            entrypoint=_entrypoint(arguments),
            runtime_env={**environment, "env_vars": variables},
            metadata={RUN_DIR: arguments.run_dir},
        )
    return str(job)


def _commit(project: Path) -> dict[str, str]:
    """Return the commit as a variable for the job, which runs without the repository."""
    # An unpacked archive may lie in a repository of something else.
    is_own = _git(project, "ls-files", "--", JOB)
    commit = is_own and _git(project, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    return {COMMIT_VARIABLE: commit} if commit else {}


def _git(project: Path, *words: str) -> str:
    """Return what git prints about the project; empty if it fails."""
    command = ["git", "-C", str(project), *words]
    try:
        git = subprocess.run(command, capture_output=True, check=False, timeout=GIT_SECONDS)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return git.stdout.decode(errors="replace").strip()  # its errors, in the user's language, are not looked at


def tell(text: str) -> None:
    """Print lines for the user; on standard error, once standard output takes nothing any more."""
    try:
        say_in_columns(text)
    except OSError as error:
        leave_standard_output(error.strerror or type(error).__name__)
    if isinstance(sys.stdout, Discarded):
        with contextlib.suppress(OSError):  # it may have lost the same reader
            complain(text)


if __name__ == "__main__":
    prepare_standard_output()
    sys.exit(main(parse(sys.argv[1:]), tell))
