"""Jobs submitted to a real head on loopback, with token authentication, from a clean copy of the project."""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
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


@pytest.fixture(scope="module")
def node() -> Iterator[Head]:
    with head(TOKEN) as started:
        yield started


def submit(
    clone: Path, address: str, options: str, *, token: str = TOKEN, job: str = ""
) -> subprocess.CompletedProcess[str]:
    submission = f"--address {address} {f'--submission-id {job}' if job else ''} --working-dir ."
    command = f"ray job submit {submission} -- python pipelines/train_ensemble.py {options}"
    return subprocess.run(
        command.split(), cwd=clone, env=as_client(token), capture_output=True, text=True, timeout=240, check=False
    )


def ray_job(verb: str, address: str, *job: str) -> str:
    command = [BIN / "ray", "job", verb, "--address", address, *job]
    ended = subprocess.run(command, env=as_client(), capture_output=True, text=True, timeout=60, check=True)
    return ended.stdout + ended.stderr


def as_client(token: str = TOKEN) -> dict[str, str]:
    environment = with_tools({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token})
    return {name: value for name, value in environment.items() if name not in ("RAY_ADDRESS", "PYTHONPATH")}


@dataclass(frozen=True)
class Resumed:
    """A job that was stopped, and its second submission.

    Attributes:
        run: run directory of both.
        told: output of `ray job stop`.
        log: log of the stopped job.
        again: the second submission.
    """

    run: Path
    told: str
    log: str
    again: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def resumed(clone: Path, node: Head, photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Resumed:
    run = tmp_path_factory.mktemp("resumed") / "run"
    options = f"{SHORT} --data {photo_folder} --run-dir {run}"
    thread = threading.Thread(target=submit, args=(clone, node.address, options), kwargs={"job": "stopped"})
    thread.start()
    while not (run / "replicas/0/metrics.jsonl").exists():
        assert thread.is_alive()
        time.sleep(0.2)
    told = ray_job("stop", node.address, "stopped")
    thread.join()
    log = ray_job("logs", node.address, "stopped")
    return Resumed(run, told, log, submit(clone, node.address, options))


def test_a_job_that_is_stopped_ends_cleanly_and_goes_on_when_submitted_again(resumed: Resumed) -> None:
    # From the request to the job's end, without the start-up of the command itself.
    times = [datetime.fromisoformat(time) for time in re.findall(r"^(\S+ \S+),\d+", resumed.told, re.MULTILINE)]
    assert "Job 'stopped' was stopped" in resumed.told
    assert (times[-1] - times[0]).total_seconds() < 10
    assert resumed.log.count("interrupted; run the same command again to resume") == 1
    assert resumed.again.returncode == 0, resumed.again.stdout + resumed.again.stderr
    assert (resumed.run / "report/report.json").exists()


def test_a_clean_clone_is_submitted_small_and_runs_without_being_installed(clone: Path, resumed: Resumed) -> None:
    modules = (clone / "imported.txt").read_text().split()
    assert {Path(module).stem for module in modules} == {"replica", "sharded_prediction", "shards"}
    assert all("working_dir_files/_ray_pkg_" in module for module in modules), modules
    package = Path(modules[0]).parents[2]
    travelled = {path.relative_to(package).parts[0] for path in package.rglob("*") if path.is_file()}
    assert not travelled & {"tests", "benchmarks", ".git", ".venv", "runs"}
    assert sum(path.stat().st_size for path in package.rglob("*.py")) < 1 << 20
    assert "Traceback" not in resumed.again.stdout
    assert "\r" not in resumed.again.stdout  # a log, not a display


def test_a_wrong_option_and_a_strangers_token_are_refused(clone: Path, node: Head, tmp_path: Path) -> None:
    wrong = submit(clone, node.address, f"--recipe demo --run-dir {tmp_path}/wrong --no-such-option 1")
    assert wrong.returncode != 0
    assert "no-such-option" in wrong.stdout + wrong.stderr
    assert "Traceback" not in wrong.stdout
    stranger = submit(clone, node.address, "--help", token="another-token-of-the-same-length-01234567")  # noqa: S106
    assert stranger.returncode != 0
    assert "uthenticat" in stranger.stdout + stranger.stderr


def test_a_mistake_of_the_users_is_not_tried_again(clone: Path, node: Head, tmp_path: Path) -> None:
    command = [sys.executable, str(clone / "cluster/submit.py"), "--run-dir", str(tmp_path / "run")]
    command += ["--address", node.address, "--", "--recipe", "demo", "--data", str(tmp_path / "nowhere")]
    ended = subprocess.run(command, env=as_client(), capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2
    assert f"error: there is no folder {tmp_path}/nowhere" in ended.stdout
    assert "retry in" not in ended.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_job_whose_head_dies_is_submitted_again_until_it_is_done(
    clone: Path, photo_folder: Path, tmp_path: Path
) -> None:
    ports = {kind: free_port() for kind in HEAD_PORTS}
    command = [sys.executable, str(clone / "cluster/submit.py"), "--run-dir", str(tmp_path / "run")]
    command += ["--address", f"http://127.0.0.1:{ports['dashboard-port']}", "--pause-seconds", "1", "--"]
    command += f"{SHORT} --data {photo_folder}".split()
    with (tmp_path / "submit.log").open("wb") as log:
        follower = subprocess.Popen(command, env=as_client(), stdout=log, stderr=log)
        with head(TOKEN, ports) as node:
            while not (tmp_path / "run/replicas/0/metrics.jsonl").exists():
                assert follower.poll() is None
                time.sleep(0.2)
            node.kill()
        with head(TOKEN, ports):
            assert follower.wait(timeout=240) == 0, (tmp_path / "submit.log").read_text()
    text = (tmp_path / "submit.log").read_text()
    assert "submit: waiting for the cluster" in text
    assert "models  crops" in text
    assert (tmp_path / "run/report/report.json").exists()
