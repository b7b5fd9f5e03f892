"""The scripts with which the cluster YAMLs set up a node, and MLflow on the head."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project import ROOT
from tests.servers import free_port, with_tools

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
    # The environment has pip, which takes seconds to install.
    without_pip = '[ "$2" = venv ] && set -- -m venv --without-pip "$3"'
    tool(tmp_path / "python3", f'{without_pip}\nexec {shutil.which("python3")} "$@"')
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


def tool(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_a_fresh_machine_that_updates_its_lists_is_waited_for(tmp_path: Path) -> None:
    pins = tmp_path / "constraints.txt"
    pins.write_text("# nothing\n")
    tools = tmp_path / "bin"
    tools.mkdir()
    # Without the package python3-venv, which only the second try can install: the lists are locked during the first.
    make_venv = f'[ -e {tmp_path}/installed ] || exit 1; mkdir -p "$3/bin"; ln -s /bin/true "$3/bin/pip"'
    tool(tools / "python3", f'[ "$1 $2" = "-m venv" ] || exit 0\n{make_venv}')
    tool(tools / "sudo", 'exec "$@"')
    tool(
        tools / "apt-get",
        f"""case "$*" in
        *update) echo >>{tmp_path}/tries; [ "$(wc -l <{tmp_path}/tries)" -ge 2 ] || exit 100;;
        *python3-venv) touch {tmp_path}/installed;;
        esac""",
    )
    for name in ("sleep", "mountpoint"):  # the latter finds no disk
        tool(tools / name, f"[ {name} = sleep ]")
    environment = {"HOME": str(tmp_path), "PATH": f"{tools}:/usr/bin:/bin"}
    subprocess.run(["bash", CLUSTER / "node_setup.sh", pins, tmp_path], env=environment, check=True, timeout=60)
    assert (tmp_path / "tries").read_text() == "\n\n"
    assert (tmp_path / "googlenet-venv/installed.txt").exists()


def test_a_running_mlflow_server_is_left_unless_another_address_or_port_is_given(tmp_path: Path) -> None:
    words = ["mlflow", "server", "--host", "192.0.2.1", "--port", "5000", "--workers", "1"]  # no address of a machine
    with subprocess.Popen([sys.executable, "-c", "input()", *words], stdin=subprocess.PIPE) as running:
        (tmp_path / "mlflow").mkdir()
        (tmp_path / "mlflow/pid").write_text(f"{running.pid}\n")

        def ended(*given: str) -> subprocess.CompletedProcess[str]:
            command, environment = ["bash", CLUSTER / "mlflow_server.sh", *given], with_tools({"HOME": str(tmp_path)})
            return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

        for same in ((), ("192.0.2.1",), ("192.0.2.1", "5000")):
            assert ended(*same).returncode == 0, ended(*same).stderr
        for other in (("192.0.2.2",), ("192.0.2.1", "5001"), ("192.0.2.1", "500")):
            found = ended(*other)
            assert found.returncode == 1
            assert f"kill {running.pid}" in found.stderr
        running.communicate(b"\n")


def test_an_mlflow_server_that_cannot_start_is_told(tmp_path: Path) -> None:
    def error(port: int, **variables: str) -> str:
        command = ["bash", CLUSTER / "mlflow_server.sh", "127.0.0.1", str(port), tmp_path / "mlflow"]
        environment = with_tools({"HOME": str(tmp_path), **variables})
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == 1
        return ended.stderr

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert error(port) == (
            f"MLflow cannot listen at 127.0.0.1:{port} (Address already in use): give others with mlflow_server.sh "
            "ADDRESS PORT\n"
        )
    assert not (tmp_path / "mlflow/pid").exists()
    # In the place of a store that cannot be opened, which the server itself takes many seconds to find out.
    tools = tmp_path / "bin"
    tools.mkdir()
    tool(tools / "mlflow", "echo the store is damaged; exit 1")
    path = f"{tools}:{with_tools({})['PATH']}"
    assert error(free_port(), PATH=path).startswith("the store is damaged\nMLflow did not start")
