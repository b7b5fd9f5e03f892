"""The suite depends on nothing of the user's shell, and a test that starts a process says so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.own_process import own_environment
from tests.project import ROOT

OF_A_USER = {
    "CUDA_VISIBLE_DEVICES": "0",
    "GIT_CONFIG_GLOBAL": "/home/somebody/.gitconfig",
    "GIT_DIR": "/nowhere",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
    "RAY_ADDRESS": "127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
    "no_proxy": "example.org",
}
GONE = OF_A_USER.keys() - {"CUDA_VISIBLE_DEVICES", "GIT_CONFIG_GLOBAL"}
SUITE = f"""
import os, subprocess
import pytest

@pytest.fixture(scope="module")
def made():
    subprocess.run(["true"])

def test_without_the_marker(made):
    pass

@pytest.mark.processes
def test_environment():
    git = ["git", "-c", "user.name=x", "-c", "user.email=x", "-C", os.environ["FOLDER"]]
    subprocess.run(["git", "init", "-q", os.environ["FOLDER"]], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert not set({sorted(GONE)}) & os.environ.keys()
"""


def test_what_a_shell_has_exported_for_the_users_own_work_is_not_the_suites() -> None:
    own = own_environment({})
    assert (
        own_environment({**OF_A_USER, "MAKEFLAGS": "-j", "ARGS": "-q", "PORT": "6000", "PYTHON": "python3.13"}) == own
    )
    assert own_environment({"HOME": "/home/somebody"}) == own | {"HOME": "/home/somebody"}


@pytest.mark.processes
def test_a_process_that_a_fixture_of_the_file_starts_is_noticed_and_settings_of_git_decide_nothing(
    tmp_path: Path,
) -> None:
    (tmp_path / "settings").write_text("[commit]\n\tgpgsign = true\n[gpg]\n\tprogram = false\n")
    (tmp_path / "test_suite.py").write_text(SUITE)
    shell = {**os.environ, **OF_A_USER, "GIT_CONFIG_GLOBAL": str(tmp_path / "settings"), "FOLDER": str(tmp_path / "r")}
    options = ["-c", os.devnull, "-p", "tests.own_process", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore"]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path / "test_suite.py")],
        cwd=ROOT, env=shell, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "2 passed, 1 error" in ended.stdout, ended.stdout
    assert "mark this test with pytest.mark.processes, since it starts _execute_child" in ended.stdout
