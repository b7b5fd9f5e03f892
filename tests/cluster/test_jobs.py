"""Jobs submitted to a real head on loopback, with token authentication, from a clean copy of the project.

The machine that submits has Ray alone; the head has the project's environment.
"""

import os
import re
import shlex
import shutil
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.cluster.ray_alone import Submitter, submitter
from tests.project import ROOT
from tests.servers import HEAD_PORTS, Head, free_port, head, ray_processes

TOKEN = "a-token-of-at-least-some-length-0123456789"  # noqa: S105
ANOTHER_TOKEN = "another-token-of-the-same-length-01234567"  # noqa: S105
# One replica of many epochs on few images: long enough to be stopped in, and little work.
SHORT = "--recipe demo --replicas 1 --epochs 60 --policies 1 --crop-px 35 --width 0.125 --models none --predictors 1"
pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]


def files_of_project() -> list[str]:
    """Return the paths of what a clone contains; git lists none in an unpacked archive or another user's checkout."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()
    packages = ("googlenet", "pipelines", "cluster", "tests", "benchmarks", "docs")
    parts = [ROOT.glob("*"), *((ROOT / package).rglob("*") for package in packages)]
    return listed or [str(path.relative_to(ROOT)) for part in parts for path in part if "__pycache__" not in path.parts]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean clone, in which modules that run on the workers record where they were imported from."""
    folder = tmp_path_factory.mktemp("clone")
    for name in files_of_project():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    for name in (".git/x", ".venv/x", "runs/x"):  # what is there at home, and stays there
        (folder / name).parent.mkdir()
        (folder / name).touch()
    for module in ("training/replica", "evaluation/sharded_prediction", "data/shards"):
        with (folder / f"pipelines/{module}.py").open("a") as file:
            file.write(f"\nopen({str(folder / 'imported.txt')!r}, 'a').write(__file__ + '\\n')\n")
    return folder


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Submitter:
    """A machine that submits: it has Ray alone, and the token where the launcher's guide puts it."""
    made = submitter(tmp_path_factory.mktemp("laptop"))
    (made.home / ".ray").mkdir()
    (made.home / ".ray/auth_token").write_text(TOKEN)
    return made


def on(laptop: Submitter, **variables: str) -> dict[str, str]:
    """Return the variables of a terminal there, in which the environment with Ray is active."""
    others = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHON"))}
    return {**others, "HOME": str(laptop.home), "PATH": f"{laptop.python.parent}:{os.environ['PATH']}", **variables}


def ray_job(laptop: Submitter, command: str, cwd: Path = ROOT, **variables: str) -> tuple[int, str]:
    """Return the exit code and the output of ``ray job`` as the documentation says how to use it."""
    environment = on(laptop, RAY_AUTH_MODE="token", **variables)
    ended = subprocess.run(
        shlex.split(command), cwd=cwd, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    return ended.returncode, ended.stdout + ended.stderr


def follow(
    laptop: Submitter, clone: Path, address: str, run: Path, options: str, log: Path, **variables: str
) -> subprocess.Popen[bytes]:
    """Start ``cluster/submit.py``, with its output in ``log``."""
    command = ["python", str(clone / "cluster/submit.py"), "--run-dir", str(run), "--pause-seconds", "1"]
    command += ["--address", address, "--", *options.split()]
    with log.open("wb") as output:
        return subprocess.Popen(command, env=on(laptop, **variables), stdout=output, stderr=output)


def wait_while(alive: Callable[[], bool], ready: Callable[[], bool]) -> None:
    while not ready():
        assert alive()
        time.sleep(0.1)


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return {kind: free_port() for kind in HEAD_PORTS}


def dashboard(ports: dict[str, int]) -> str:
    return f"http://127.0.0.1:{ports['dashboard-port']}"


@dataclass(frozen=True)
class Mistaken:
    """A submission that waited for its cluster, of a job whose images do not exist."""

    process: subprocess.Popen[bytes]
    folder: Path
    log: Path


@pytest.fixture(scope="module")
def mistaken(
    laptop: Submitter, clone: Path, ports: dict[str, int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mistaken]:
    folder, log = tmp_path_factory.mktemp("mistaken"), tmp_path_factory.mktemp("log") / "submit.log"
    process = follow(laptop, clone, dashboard(ports), folder / "run", f"--recipe demo --data {folder / 'nowhere'}", log)
    wait_while(lambda: process.poll() is None, lambda: "waiting for the cluster" in log.read_text())
    yield Mistaken(process, folder, log)
    process.kill()


@pytest.fixture(scope="module")
def node(ports: dict[str, int], mistaken: Mistaken) -> Iterator[Head]:
    """A head that starts after the first submission to it; the last test kills it."""
    with head(TOKEN, ports) as started:
        yield started


def test_a_submission_waits_for_its_cluster_and_a_mistake_of_the_users_is_not_tried_again(
    node: Head, mistaken: Mistaken
) -> None:
    assert mistaken.process.wait(timeout=120) == 2
    told = mistaken.log.read_text()
    assert f"error: there is no folder {mistaken.folder}/nowhere" in told
    assert "retry in" not in told
    assert "Traceback" not in told
    assert list(mistaken.folder.iterdir()) == []


def test_a_strangers_token_is_refused(node: Head) -> None:
    def status(token: str) -> int:
        request = Request(f"{node.address}/api/jobs/", headers={"Authorization": f"Bearer {token}"})
        try:
            with urlopen(request, timeout=60) as answer:
                return int(answer.status)
        except HTTPError as error:
            return error.code

    assert [status(token) for token in (TOKEN, ANOTHER_TOKEN)] == [200, 403]


@pytest.mark.parametrize(
    ("variables", "fix"),
    [
        ({}, "Missing authentication token: copy the head's token to HOME/.ray/auth_token"),
        (
            {"RAY_AUTH_TOKEN": "another-token-of-the-same-length-01234567"},
            "the token in RAY_AUTH_TOKEN is not the head's",
        ),
    ],
)
def test_a_machine_without_the_heads_token_is_told_in_one_line_where_it_belongs(
    laptop: Submitter, clone: Path, node: Head, tmp_path: Path, variables: dict[str, str], fix: str
) -> None:
    environment = {"HOME": str(tmp_path), **variables}
    process = follow(laptop, clone, node.address, tmp_path / "run", "--help", tmp_path / "log", **environment)
    assert process.wait(timeout=60) == 1
    connecting, refusal = (tmp_path / "log").read_text().splitlines()
    assert connecting == f"submit: connecting to the cluster at {node.address} ..."
    assert refusal.startswith(f"error: {node.address}: ")
    assert refusal.endswith(f": {fix}".replace("HOME", str(tmp_path)))


def readme_command(node: Head, options: str, run: str) -> str:
    """Return the README's command for a job, with this address and these options instead of the demo's."""
    [command] = re.findall(r"^ray job submit .*", (ROOT / "README.md").read_text(), re.MULTILINE)
    for written, meant in {"http://127.0.0.1:8265": node.address, "--recipe demo": options, "SHARED": run}.items():
        assert written in command
        command = command.replace(written, meant)
    return command


@dataclass(frozen=True)
class Stopped:
    """A job that was stopped in training: its run directory, its log, and what `ray job stop` said."""

    run: Path
    log: str
    told: str


@pytest.fixture(scope="module")
def stopped(
    laptop: Submitter, clone: Path, node: Head, photo_folder: Path, tmp_path_factory: pytest.TempPathFactory,
    empty_store: Path,
) -> Stopped:  # fmt: skip
    run, logs = tmp_path_factory.mktemp("stopped") / "run", []
    shutil.copy(empty_store, run.parent / "mlflow.db")
    command = readme_command(node, f"{SHORT} --data {photo_folder}", str(run)).replace(
        "submit", "submit --submission-id stopped", 1
    )
    thread = threading.Thread(target=lambda: logs.append(ray_job(laptop, command, clone)[1]))
    thread.start()
    wait_while(thread.is_alive, (run / "replicas/0/metrics.jsonl").exists)
    _, told = ray_job(laptop, f"ray job stop --address {node.address} stopped")
    thread.join()
    return Stopped(run, logs[0], told)


def test_a_job_that_is_stopped_ends_cleanly(stopped: Stopped, ports: dict[str, int]) -> None:
    # From the request to the job's end, without the start-up of the command itself.
    times = [datetime.fromisoformat(time) for time in re.findall(r"^(\S+ \S+),\d+", stopped.told, re.MULTILINE)]
    assert "Job 'stopped' was stopped" in stopped.told
    assert (times[-1] - times[0]).total_seconds() < 10
    assert stopped.log.count("interrupted; run the same command again to resume") == 1
    assert "Traceback" not in stopped.log
    deadline = time.monotonic() + 60
    while list(ray_processes(f"127.0.0.1:{ports['port']}", "ray::RayTrainWorker")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not (stopped.run / "report").exists()


def test_a_stopped_job_goes_on_when_submitted_again_and_again_when_its_head_dies(
    laptop: Submitter,
    clone: Path,
    node: Head,
    ports: dict[str, int],
    stopped: Stopped,
    photo_folder: Path,
    tmp_path: Path,
) -> None:
    log, jobs = tmp_path / "submit.log", stopped.run / "jobs"
    first = (stopped.run / "replicas/0/metrics.jsonl").read_text().splitlines()[0]
    follower = follow(laptop, clone, dashboard(ports), stopped.run, f"{SHORT} --data {photo_folder}", log)
    wait_while(lambda: follower.poll() is None, lambda: len(list(jobs.glob("*.json"))) == 2)
    node.kill()
    with head(TOKEN, ports):
        assert follower.wait(timeout=240) == 0, log.read_text()
    told = log.read_text()
    assert "models  crops" in told
    assert "Traceback" not in told
    assert "\r" not in told  # a log, not a display
    lines = (stopped.run / "replicas/0/metrics.jsonl").read_text().splitlines()
    assert (lines[0], len(lines)) == (first, 60)  # the first epochs were not trained again
    assert len(list(jobs.glob("*.json"))) == 3
    assert (stopped.run / "report/report.json").exists()
    # Sent small, and run from there without being installed.
    modules = (clone / "imported.txt").read_text().split()
    assert {Path(module).stem for module in modules} == {"replica", "sharded_prediction", "shards"}
    assert all("working_dir_files/_ray_pkg_" in module for module in modules), modules
    package = Path(modules[0]).parents[2]
    travelled = {path.relative_to(package).parts[0] for path in package.rglob("*") if path.is_file()}
    assert not travelled & {"tests", "benchmarks", "docs", ".git", ".venv", "runs"}
    # Ray sends the files compressed.
    sent = (
        len(zlib.compress(path.read_bytes())) for path in package.rglob("*") if path.suffix != ".pyc" and path.is_file()
    )
    assert sum(sent) < 1 << 20
