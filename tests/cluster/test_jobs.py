"""Jobs submitted to a real head on loopback, with token authentication, from a clean copy of the project."""

import re
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from tests.project import ROOT
from tests.servers import BIN, HEAD_PORTS, Head, free_port, head, with_tools

TOKEN = "a-token-of-at-least-some-length-0123456789"  # noqa: S105
# One replica of many epochs on few images: long enough to be stopped in, and little work.
SHORT = "--recipe demo --replicas 1 --epochs 60 --policies 1 --crop-px 35 --width 0.125 --models none"
pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean clone, in which modules that run on the workers record where they were imported from."""
    folder = tmp_path_factory.mktemp("clone")
    files = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    for name in files.stdout.decode().splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    for module in ("training/replica", "evaluation/sharded_prediction", "data/shards"):
        with (folder / f"pipelines/{module}.py").open("a") as file:
            file.write(f"\nopen({str(folder / 'imported.txt')!r}, 'a').write(__file__ + '\\n')\n")
    return folder


def as_client(token: str = TOKEN) -> dict[str, str]:
    environment = with_tools({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token})
    return {name: value for name, value in environment.items() if name not in ("RAY_ADDRESS", "PYTHONPATH")}


def ray_job(verb: str, address: str, *words: str, token: str = TOKEN, cwd: Path = ROOT) -> tuple[int, str]:
    """Return the exit code and the output of ``ray job VERB``."""
    command = [BIN / "ray", "job", verb, "--address", address, *words]
    ended = subprocess.run(
        command, cwd=cwd, env=as_client(token), capture_output=True, text=True, timeout=240, check=False
    )
    return ended.returncode, ended.stdout + ended.stderr


def follow(clone: Path, ports: dict[str, int], run: Path, options: str, log: Path) -> subprocess.Popen[bytes]:
    """Start ``cluster/submit.py``, with its output in ``log`` and the token in the home folder alone."""
    (log.parent / ".ray").mkdir()
    (log.parent / ".ray/auth_token").write_text(TOKEN)
    environment = {name: value for name, value in as_client().items() if not name.startswith("RAY_AUTH_")}
    command = [sys.executable, str(clone / "cluster/submit.py"), "--run-dir", str(run), "--pause-seconds", "1"]
    command += ["--address", f"http://127.0.0.1:{ports['dashboard-port']}", "--", *options.split()]
    with log.open("wb") as output:
        return subprocess.Popen(command, env={**environment, "HOME": str(log.parent)}, stdout=output, stderr=output)


def wait_while(alive: Callable[[], bool], ready: Callable[[], bool]) -> None:
    while not ready():
        assert alive()
        time.sleep(0.1)


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return {kind: free_port() for kind in HEAD_PORTS}


@dataclass(frozen=True)
class Mistaken:
    """A submission that waited for its cluster, of a job whose images do not exist."""

    process: subprocess.Popen[bytes]
    folder: Path
    log: Path


@pytest.fixture(scope="module")
def mistaken(clone: Path, ports: dict[str, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mistaken]:
    folder, log = tmp_path_factory.mktemp("mistaken"), tmp_path_factory.mktemp("log") / "submit.log"
    process = follow(clone, ports, folder / "run", f"--recipe demo --data {folder / 'nowhere'}", log)
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


def test_a_strangers_token_is_refused(clone: Path, node: Head) -> None:
    words = ("--working-dir", ".", "--", "python", "pipelines/train_ensemble.py", "--help")
    code, told = ray_job("submit", node.address, *words, token="another-token-of-the-same-length-01234567", cwd=clone)  # noqa: S106
    assert code != 0
    assert "uthenticat" in told


@dataclass(frozen=True)
class Stopped:
    """A job that was stopped in training: its run directory, its log, and what `ray job stop` said."""

    run: Path
    log: str
    told: str


@pytest.fixture(scope="module")
def stopped(clone: Path, node: Head, photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    run, logs = tmp_path_factory.mktemp("stopped") / "run", []
    command = f"python pipelines/train_ensemble.py {SHORT} --data {photo_folder} --run-dir {run}"
    words = ("--submission-id", "stopped", "--working-dir", ".", "--", *command.split())
    thread = threading.Thread(target=lambda: logs.append(ray_job("submit", node.address, *words, cwd=clone)[1]))
    thread.start()
    wait_while(thread.is_alive, (run / "replicas/0/metrics.jsonl").exists)
    _, told = ray_job("stop", node.address, "stopped")
    thread.join()
    return Stopped(run, logs[0], told)


def test_a_job_that_is_stopped_ends_cleanly(stopped: Stopped) -> None:
    # From the request to the job's end, without the start-up of the command itself.
    times = [datetime.fromisoformat(time) for time in re.findall(r"^(\S+ \S+),\d+", stopped.told, re.MULTILINE)]
    assert "Job 'stopped' was stopped" in stopped.told
    assert (times[-1] - times[0]).total_seconds() < 10
    assert stopped.log.count("interrupted; run the same command again to resume") == 1
    assert not (stopped.run / "report").exists()


def test_a_stopped_job_goes_on_when_submitted_again_and_again_when_its_head_dies(
    clone: Path, node: Head, ports: dict[str, int], stopped: Stopped, photo_folder: Path, tmp_path: Path
) -> None:
    log, jobs = tmp_path / "submit.log", stopped.run / "jobs"
    first = (stopped.run / "replicas/0/metrics.jsonl").read_text().splitlines()[0]
    follower = follow(clone, ports, stopped.run, f"{SHORT} --data {photo_folder}", log)
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
