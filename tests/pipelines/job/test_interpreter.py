"""Commands in a Python that lacks packages, is too old, or has the packages but not the project."""

import ast
import os
import re
import resource
import subprocess
import sys
import sysconfig
import threading
import tomllib
import venv
from pathlib import Path

import pytest

from pipelines.job.interpreter import (
    PACKAGES,
    SUBMITTED_JOB,
    check_interpreter,
    problem_of_interpreter,
    problem_of_threads,
)
from tests.project import ROOT

COMMANDS = sorted(
    path.name for path in (ROOT / "pipelines").glob("*.py") if path.read_text().endswith("run_command(_main)\n")
)


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python without any packages."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    return folder / "bin/python"


def run(python: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | variables
    return subprocess.run(
        [python, *words], env=environment, cwd="/", capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.processes
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_in_one_line_which_python_lacks_what(name: str, bare_python: Path) -> None:
    ended = run(bare_python, str(ROOT / "pipelines" / name), "--help")
    assert (ended.returncode, ended.stdout) == (2, "")
    version = ".".join(map(str, sys.version_info[:3]))
    expected = (
        f"error: Python {version} at {bare_python} lacks aiohttp, filelock, fsspec, grpcio and 21 more packages: "
    )
    assert ended.stderr == f"{expected}run `make setup` and `. .venv/bin/activate` in {ROOT}\n"


@pytest.mark.processes
def test_the_submission_says_in_one_line_that_it_needs_ray_alone(bare_python: Path) -> None:
    ended = run(bare_python, str(ROOT / "cluster/submit.py"), "--help")
    assert (ended.returncode, ended.stdout) == (1, "")
    cure = "run pip install -c constraints.txt 'ray[default]' with it"
    assert ended.stderr == f"error: {bare_python} lacks ray: {cure}\n"


@pytest.mark.processes
def test_the_submission_refuses_a_python_that_is_too_old_in_one_line() -> None:
    # Python 3.10 has no contextlib.chdir.
    older = "import contextlib, runpy, sys; sys.version_info = (3, 10, 12); del contextlib.chdir; "
    ended = run(
        Path(sys.executable), "-c", f"{older}runpy.run_path({str(ROOT / 'cluster/submit.py')!r}, run_name='__main__')"
    )
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
    assert "is too old, 3.11 is needed" in ended.stderr


@pytest.mark.processes
def test_a_submitted_job_names_the_host_and_the_cures_on_a_cluster(bare_python: Path) -> None:
    # Ray puts the job's copy of the project into PYTHONPATH.
    ended = run(bare_python, str(ROOT / "pipelines/train_ensemble.py"), **{SUBMITTED_JOB: "{}"}, PYTHONPATH=str(ROOT))
    assert f"{bare_python} on {os.uname().nodename} lacks" in ended.stderr
    assert ended.stderr.count("\n") == 1
    for named in re.findall(r"cluster/\S+", ended.stderr):
        assert (ROOT / named).is_file()


@pytest.mark.processes
def test_a_python_with_the_packages_needs_no_installed_project() -> None:
    # Without `site`, neither an installed project nor the packages are found except through the variable.
    ended = run(
        Path(sys.executable), "-S", str(ROOT / "pipelines/compare_runs.py"), "--help",
        PYTHONPATH=sysconfig.get_path("purelib"),
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.processes
@pytest.mark.parametrize("script", ["cluster/submit.py", "pipelines/compare_runs.py"])
def test_an_installed_package_of_the_same_name_hides_no_module_of_the_project(script: str, tmp_path: Path) -> None:
    for name in ("cluster", "googlenet", "pipelines"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    ended = run(Path(sys.executable), str(ROOT / script), "--help", PYTHONPATH=str(tmp_path))
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_packages_that_are_looked_for_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert list(PACKAGES) == [re.split(r"[\[<>=]", need)[0] for need in project["dependencies"]]
    assert problem_of_interpreter() == ""


def test_a_user_who_may_start_three_processes_is_told_the_limit_before_a_library_fails_at_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The limit is not for root, who may run the tests: here the third thread is the last one."""
    before = set(threading.enumerate())
    assert problem_of_threads() == ""
    start = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if len(set(threading.enumerate()) - before) >= 3:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    monkeypatch.setattr(resource, "getrlimit", lambda _limit: (3, 3))
    with pytest.raises(SystemExit) as ended:
        check_interpreter()
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert re.match(
        r"error: only 3 of \d+ threads could be started \(this user may have 3 processes and threads\): ", told
    )
    assert told.count("\n") == 1
    assert "ulimit -u" in told
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("name", [*COMMANDS, "job/interpreter.py"])
def test_a_python_that_is_too_old_can_read_the_command_to_refuse_itself(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ast.parse((ROOT / "pipelines" / name).read_text(), feature_version=(3, 8))
    monkeypatch.setattr(sys, "version_info", (3, 10, 13))
    assert "Python 3.10.13 at " in problem_of_interpreter()
    assert "is too old, 3.11 is needed" in problem_of_interpreter()
