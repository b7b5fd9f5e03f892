"""The script with which the cluster YAMLs set up the environment of a node."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project import ROOT

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
