"""The scripts that the cluster YAMLs run on nodes: environment set-up, and MLflow behind a password."""

import base64
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import mlflow
import psutil
import pytest

from tests.project import ROOT
from tests.servers import free_port, wait_for, with_tools

pytestmark = pytest.mark.processes

CLUSTER = ROOT / "cluster"


def test_a_node_is_set_up_once_and_again_when_the_pins_change(tmp_path: Path) -> None:
    pins = tmp_path / "constraints.txt"
    pins.write_text("# nothing\n")
    (tmp_path / "sudo").write_text("#!/bin/sh\nexit 1\n")  # never install anything on the machine of a test
    (tmp_path / "sudo").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"

    def set_up() -> float:
        environment = {**os.environ, "HOME": str(tmp_path), "PATH": path}
        subprocess.run(["bash", CLUSTER / "node_setup.sh", pins], env=environment, check=True, timeout=120)
        return (tmp_path / "googlenet-venv/installed.txt").stat().st_mtime_ns

    first = set_up()
    assert set_up() == first
    assert (tmp_path / ".bashrc").read_text().count("googlenet-venv/bin") == 1
    assert "export RAY_AUTH_MODE=token" in (tmp_path / ".bashrc").read_text()
    assert "TMPDIR" not in (tmp_path / ".bashrc").read_text()
    # As on a machine with a disk of its own, where AWS's images mount it.
    (tmp_path / "mountpoint").write_text('#!/bin/sh\n[ "$2" = /opt/dlami/nvme ]\n')
    (tmp_path / "mountpoint").chmod(0o755)
    (tmp_path / "sudo").write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/asked\n')
    assert set_up() == first
    assert set_up() == first
    assert (tmp_path / "asked").read_text().split() == [
        "install", "--directory", f"--owner={os.getuid()}", "--mode=700", "/opt/dlami/nvme/tmp",
    ]  # fmt: skip
    assert (tmp_path / ".bashrc").read_text().count("export TMPDIR=/opt/dlami/nvme/tmp\n") == 1
    pins.write_text("# nothing else\n")
    assert set_up() != first
    assert (tmp_path / "googlenet-venv/bin/python").exists()


def test_a_node_without_sudo_is_set_up_by_root(tmp_path: Path) -> None:
    pins, tools = tmp_path / "constraints.txt", tmp_path / "bin"
    pins.write_text("# nothing\n")
    (tmp_path / "googlenet-venv").mkdir()
    shutil.copy(pins, tmp_path / "googlenet-venv/installed.txt")  # nothing to install
    tools.mkdir()
    for name in ("bash", "cmp", "grep", "id"):
        (tools / name).symlink_to(str(shutil.which(name)))
    scripts = {
        "python3": f'exec {sys.executable} "$@"',
        "mountpoint": '[ "$2" = /opt/dlami/nvme ]',
        "install": f'echo "$@" >{tmp_path}/asked',
    }
    for name, line in scripts.items():
        (tools / name).write_text(f"#!/bin/sh\n{line}\n")
        (tools / name).chmod(0o755)
    environment = {"HOME": str(tmp_path), "PATH": str(tools)}
    subprocess.run(["bash", CLUSTER / "node_setup.sh", pins], env=environment, check=True, timeout=60)
    assert "/opt/dlami/nvme/tmp" in (tmp_path / "asked").read_text()
    assert "export TMPDIR=/opt/dlami/nvme/tmp\n" in (tmp_path / ".bashrc").read_text()


def _status(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as page:
            return int(page.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.timeout(240)
def test_mlflow_asks_for_its_password_and_refuses_other_hosts(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, folder = free_port(), tmp_path / "mlflow"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")  # to create one takes the server seconds
    environment = with_tools({"HOME": str(tmp_path)})
    command = ["bash", str(CLUSTER / "mlflow_server.sh"), "127.0.0.1", str(port), str(folder)]
    subprocess.run(command, env=environment, check=True, timeout=60)
    server = int((folder / "pid").read_text())
    try:
        url = f"http://127.0.0.1:{port}"
        waiting = subprocess.Popen(["sleep", "200"])
        wait_for(f"{url}/health", waiting)
        waiting.kill()
        password = (folder / "password").read_text().strip()
        assert oct((folder / "password").stat().st_mode & 0o777) == "0o600"
        assert _status(f"{url}/api/2.0/mlflow/experiments/get?experiment_id=0") == 401
        known = {"Authorization": "Basic " + base64.b64encode(f"admin:{password}".encode()).decode()}
        assert _status(f"{url}/api/2.0/mlflow/experiments/get?experiment_id=0", **known) == 200
        assert _status(f"{url}/api/2.0/mlflow/experiments/get?experiment_id=0", Host="evil.example", **known) == 403
        subprocess.run(command, env=environment, check=True, timeout=60)
        assert int((folder / "pid").read_text()) == server  # it was still running
        assert not any(
            password in " ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])
        )
        other = tmp_path / "other"
        (other / ".mlflow").mkdir(parents=True)
        (other / ".mlflow/credentials").write_text("[mlflow]\nmlflow_tracking_username = me\n")
        subprocess.run(command, env={**environment, "HOME": str(other)}, check=True, timeout=60)
        assert "username = me" in (other / ".mlflow/credentials").read_text()
        # As for a job on the head: through the credentials file alone.
        monkeypatch.setenv("HOME", str(tmp_path))
        assert mlflow.MlflowClient(url).get_experiment("0").name == "Default"
    finally:
        family = psutil.Process(server).children(recursive=True)
        for process in [psutil.Process(server), *family]:
            process.kill()
