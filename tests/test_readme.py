"""Every command of the README runs: as written where that takes seconds, else on few images with a short recipe."""

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.recipes import load_recipe
from tests.googlenet.test_foreign_weights import caffe_arrays, npz

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
pytestmark = pytest.mark.timeout(300)

SHORT = "--replicas 1 --epochs 1 --policies 1 --crop-px 84 --images-per-shard 20"
NARROW = f"{SHORT} --width 0.125"


def readme_commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, photo_folder: Path) -> dict[str, str]:
    """What the README's placeholders and relative paths stand for here."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "bvlc_googlenet.npz").write_bytes(npz(caffe_arrays(classes=3)))
    (folder / "classes").write_text("class_0\nclass_1\nclass_2\n")
    return {
        "PHOTOS": str(photo_folder),
        "CLASSES": str(folder / "classes"),
        "SHARED": str(folder / "shared"),
        "bvlc_googlenet.npz": str(folder / "bvlc_googlenet.npz"),
        "runs/": f"{folder}/",
    }


def run(command: str, places: dict[str, str], address: str, options: str = "") -> str:
    for placeholder, value in places.items():
        command = command.replace(placeholder, value)
    environment = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "RAY_ADDRESS": address,
        "RAY_AUTH_MODE": "disabled",
    }
    ended = subprocess.run(
        ["bash", "-c", f"{command} {options}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture
def checks(places: dict[str, str], ray_cluster: str, finished_run: Path) -> dict[str, Callable[[str], None]]:
    """How each command is run, by its beginning; the README's order is kept, for runs that build on each other."""

    def train(command: str) -> None:
        assert "models  crops" in run(command, places, ray_cluster, NARROW)

    def finetune(command: str) -> None:
        assert "classifier replaced" not in (out := run(command, places, ray_cluster, SHORT))
        assert "models  crops" in out

    def demo(_command: str) -> None:
        words = f"--data {places['PHOTOS']} {NARROW}"
        out = run(f"make -o .venv/stamp demo BIN={BIN} RUN_DIR={places['runs/']}demo ARGS='{words}'", {}, ray_cluster)
        assert "report:" in out

    def prepare(command: str) -> None:
        assert "images of 3 classes" in run(command, places, ray_cluster, "--images-per-shard 20")

    def evaluate(command: str) -> None:
        assert "models  crops" in run(command, places, ray_cluster, "--policies 1")

    def submit(command: str) -> None:
        import ray

        address = f"http://{ray._private.worker.get_dashboard_url()}"
        out = run(
            command.replace("submit", f"submit --address {address}"),
            places,
            ray_cluster,
            f"{NARROW} --data {places['PHOTOS']}",
        )
        assert "succeeded" in out
        assert (Path(places["SHARED"]) / "report/report.json").exists()

    def review(_command: str) -> None:
        _check_ui(finished_run)

    def only_planned(command: str) -> None:
        run(command.replace("make", "make -n"), {}, ray_cluster)

    return {
        "make demo": demo,
        "make .venv/stamp": only_planned,
        "make test": only_planned,  # this very process
        "make ui": review,
        ". .venv/bin/activate": lambda _command: None,
        "python -m googlenet": lambda command: print(run(command, {}, ray_cluster)),
        "python pipelines/train_ensemble.py --recipe demo --help": lambda command: print(run(command, {}, ray_cluster)),
        "python pipelines/train_ensemble.py --recipe demo": train,
        "python pipelines/train_ensemble.py --recipe finetune": finetune,
        "python pipelines/prepare_dataset.py": prepare,
        "python pipelines/evaluate_ensemble.py": evaluate,
        "ray job submit": submit,
    }


@pytest.mark.parametrize("command", readme_commands())
def test_the_readmes_command_runs(command: str, checks: dict[str, Callable[[str], None]]) -> None:
    matching = [check for beginning, check in checks.items() if command.startswith(beginning)]
    assert matching, f"the README shows a command that no test runs: {command}"
    matching[0](command)


def _check_ui(finished: Path) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        ["make", "-o", ".venv/stamp", "ui", f"BIN={BIN}", f"RUN_DIR={finished}", f"PORT={port}"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for _ in range(60):
            time.sleep(1)
            assert server.poll() is None
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as page:
                    assert b"MLflow" in page.read()
                    return
            except OSError:
                continue
        pytest.fail("no page within a minute")
    finally:
        os.killpg(server.pid, 15)
        server.wait()


def test_the_recipes_that_the_readme_names_exist() -> None:
    for name in re.findall(r"--recipe (\w+)", (ROOT / "README.md").read_text()):
        if name != "FILE":
            load_recipe(name)
