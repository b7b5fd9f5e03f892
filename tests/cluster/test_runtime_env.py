"""The packages of one job, installed by Ray from an index on loopback beside a node's environment that lacks them."""

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

pytestmark = pytest.mark.processes

# What Ray's agent on a node does for a job submitted with --runtime-env.
INSTALL = """
import asyncio, sys, yaml
from ray._private.runtime_env.pip import PipProcessor
from ray.runtime_env import RuntimeEnv

async def install():
    await PipProcessor(sys.argv[1], RuntimeEnv(**yaml.safe_load(open("cluster/runtime_env.yaml"))))

asyncio.run(install())
"""


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Keep the terminal of the tests clean."""


@contextmanager
def package_index(folder: Path) -> Iterator[str]:
    """Serve a folder of wheels; yield its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Silent, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
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
    """The Python of a node: an environment of its own, which takes Ray from this one."""
    venv.create(tmp_path / "node", with_pip=False, symlinks=True)
    [packages] = (tmp_path / "node").glob("lib/python*/site-packages")
    (packages / "ray.pth").write_text(sysconfig.get_path("purelib"))
    return tmp_path / "node/bin/python"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The part of the project that names the packages; its pins are of one that the node lacks."""
    shutil.copytree(ROOT / "cluster", tmp_path / "project/cluster")
    (tmp_path / "project/constraints.txt").write_text("# Versions\npinned_by_project==1.0\n")
    return tmp_path / "project"


def test_a_job_gets_the_pins_that_its_nodes_lack(python_of_node: Path, project: Path, tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    write_wheel(tmp_path / "wheels", "pinned_by_project")
    others = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    with package_index(tmp_path / "wheels") as index:
        subprocess.run(
            [python_of_node, "-c", INSTALL, tmp_path / "job"],
            cwd=project,
            env={**others, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": index},
            check=True,
            timeout=120,
        )
    imports = ["-c", "import pinned_by_project, ray"]
    subprocess.run([tmp_path / "job/virtualenv/bin/python", *imports], env=others, check=True)
    assert subprocess.run([python_of_node, *imports], env=others, capture_output=True, check=False).returncode == 1
