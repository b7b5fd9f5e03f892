"""Options of ``submit.py``, whose errors are one line that names the fix."""

import argparse
import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from ray.dashboard.modules.dashboard_sdk import parse_runtime_env_args
from ray.runtime_env import RuntimeEnv

from pipelines.job.console import complain

PROJECT = Path(__file__).parents[1]
JOB = "pipelines/train_ensemble.py"
ADDRESS = "http://127.0.0.1:8265"
USER_ERROR_EXIT_CODE = 2


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: "):
            message += "; put the job's options after --, as in: submit.py --run-dir RUN -- --recipe demo"
        complain(f"error: {message}")
        self.exit(USER_ERROR_EXIT_CODE)


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
    parser = _Parser(
        description="Submit the main job, follow it, and submit it again if it is lost.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--run-dir", required=True, help="run directory that all nodes can access: a shared folder, or a URI")
    add("options", nargs="*", help="options of train_ensemble.py, after --, except --run-dir")
    add("--address", default=ADDRESS, help="the dashboard's address; the default is ray dashboard's own (%(default)s)")
    add("--working-dir", type=Path, default=PROJECT, help="folder of the project, which is uploaded with the job")
    add("--runtime-env", type=Path, help="Ray's runtime environment of the job, such as cluster/runtime_env.yaml")
    add("--attempts", type=int, default=5, help="maximum number of attempts (%(default)s)")
    add("--pause-seconds", type=float, default=15.0, help="pause before the second attempt, doubled up to 5 minutes")
    add("--wait-seconds", type=float, default=1800.0, help="time to wait for a cluster that does not answer")
    arguments = parser.parse_args(words, namespace=Arguments())
    if not arguments.address.startswith(("http://", "https://")):  # Ray would take it for another kind of address
        parser.error(f"--address {arguments.address} must be the dashboard's address, with http://, such as {ADDRESS}")
    if not (arguments.working_dir / JOB).is_file():
        parser.error(f"--working-dir {arguments.working_dir} has no {JOB}: name the folder of the project")
    if "://" not in arguments.run_dir and not Path(arguments.run_dir).is_absolute():
        # In the job it would lie in Ray's own copy of the project, which Ray removes.
        parser.error(f"--run-dir {arguments.run_dir} must be a URI, or a path from / that all nodes share")
    if arguments.attempts < 1 or not 0 <= arguments.pause_seconds < math.inf:
        parser.error("--attempts must be at least 1, and --pause-seconds must not be negative")
    if math.isnan(arguments.wait_seconds):
        parser.error("--wait-seconds must be a number")
    arguments.run_dir = arguments.run_dir.rstrip("/") or "/"  # it is compared with those of running jobs
    try:
        runtime_env(arguments)
    except Exception as error:  # noqa: BLE001  # of the file, its YAML, or what Ray requires of it
        fix = "it must be a file like cluster/runtime_env.yaml"
        parser.error(f"--runtime-env {arguments.runtime_env} cannot be used ({' '.join(str(error).split())}): {fix}")
    return arguments


def runtime_env(arguments: Arguments) -> dict[str, Any]:
    """Return the runtime environment in the file that was given, after Ray's own check."""
    if arguments.runtime_env is None:
        return {}
    given: dict[str, Any] = parse_runtime_env_args(str(arguments.runtime_env.absolute()))
    with contextlib.chdir(arguments.working_dir):
        RuntimeEnv(**{name: value for name, value in given.items() if name != "working_dir"})
    return given
