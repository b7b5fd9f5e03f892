"""A job whose packages Ray installs, from a package index on loopback, on nodes without the project's environment."""

import os
import shutil
import subprocess
import sysconfig
import threading
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.project import ROOT
from tests.servers import BIN, head, with_tools

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

TOKEN = "a-token-of-at-least-some-length-0123456789"  # noqa: S105


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Keep the terminal of the tests clean."""


@contextmanager
def package_index(folder: Path) -> Iterator[str]:
    """Serve a folder of wheels; yield its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Silent, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def write_wheel(folder: Path, name: str) -> None:
    """Write the wheel of a package with one empty module."""
    information = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        wheel.writestr(f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{information}/RECORD", "")


@pytest.fixture
def python_of_node(tmp_path: Path) -> Path:
    """The Python of a node: a small environment, which Ray copies for the job, with Ray from this one."""
    venv.create(tmp_path / "node", with_pip=False, symlinks=True)
    [packages] = (tmp_path / "node").glob("lib/python*/site-packages")
    (packages / "ray.pth").write_text(sysconfig.get_path("purelib"))
    return tmp_path / "node/bin/python"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with what the job needs, whose pins name a package that the node lacks."""
    shutil.copytree(ROOT / "cluster", tmp_path / "project/cluster")
    (tmp_path / "project/constraints.txt").write_text("# Versions\npinned_by_project==1.0\n")
    return tmp_path / "project"


def test_a_job_gets_the_pins_that_its_nodes_lack(python_of_node: Path, project: Path, tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    write_wheel(tmp_path / "wheels", "pinned_by_project")
    options = "--working-dir . --runtime-env cluster/runtime_env.yaml -- python -c"
    code = "import pinned_by_project, sys; print(sys.prefix)"
    with package_index(tmp_path / "wheels") as index, pytest.MonkeyPatch.context() as patch:
        for name, value in {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": index}.items():
            patch.setenv(name, value)
        patch.delenv("PYTHONPATH", raising=False)
        with head(TOKEN, python=python_of_node) as node:
            ended = subprocess.run(
                [BIN / "ray", "job", "submit", "--address", node.address, *options.split(), code],
                cwd=project,
                env=with_tools({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}),
                capture_output=True,
                text=True,
                timeout=240,
                check=False,
            )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "/runtime_resources/pip/" in ended.stdout  # an environment of the job's own, beside that of the node
