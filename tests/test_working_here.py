"""The tools that CONTRIBUTING.md speaks of work in a fresh clone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.multihost.hosts import CommandError, command
from tests.project import ROOT

pytestmark = pytest.mark.processes


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_the_hooks_refuse_a_commit_that_lint_would_and_run_the_quick_tests_before_a_push(tmp_path: Path) -> None:
    for name in (".pre-commit-config.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/bin").symlink_to(Path(sys.executable).parent)
    (tmp_path / "module.py").write_text('"""A module."""\n\nimport os\n')
    for words in (("init", "-q"), ("add", "module.py")):
        assert run(tmp_path, "git", *words).returncode == 0
    assert run(tmp_path, ".venv/bin/pre-commit", "install").returncode == 0
    assert (tmp_path / ".git/hooks/pre-commit").exists()
    assert (tmp_path / ".git/hooks/pre-push").exists()
    ended = run(tmp_path, ".venv/bin/pre-commit", "run", "ruff-check")
    assert ended.returncode == 1
    assert "`os` imported but unused" in ended.stdout
    (tmp_path / "module.py").write_text('"""A module."""\n')
    run(tmp_path, "git", "add", "module.py")
    assert run(tmp_path, ".venv/bin/pre-commit", "run", "ruff-check").returncode == 0
    (tmp_path / "Makefile").write_text("quick:\n\t@touch quick_ran\n")
    assert run(tmp_path, ".venv/bin/pre-commit", "run", "--hook-stage", "pre-push", "--all-files").returncode == 0
    assert (tmp_path / "quick_ran").exists()


def test_make_with_another_python_makes_the_environment_anew(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/bin").symlink_to(Path(sys.executable).parent)
    (tmp_path / ".venv/stamp").touch()
    other = tmp_path / "python4"
    other.write_text("#!/bin/sh\necho 4.0.0\n")
    other.chmod(0o755)
    for unchanged in ([], [f"PYTHON={sys.executable}"]):
        assert "rm -rf .venv" not in run(tmp_path, "make", "-n", "setup", *unchanged).stdout
    assert "rm -rf .venv" in run(tmp_path, "make", "-n", "setup", f"PYTHON={other}").stdout


def checkout(folder: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)


def python(path: Path, base: Path, made: Path) -> None:
    """Make a Python that names ``base`` as the one behind it, and writes its own path to ``made`` if it makes .venv.

    It fails half-way if a file ``without_ensurepip`` exists, and the pip there if a file ``without_network`` does.
    """
    path.parent.mkdir(parents=True)
    pip = "#!/bin/sh\\n! [ -e without_network ]\\n"
    lines = [
        "#!/bin/sh",
        f'case "$*" in *base_exec*) echo {base};; esac',
        '[ "$1" = -m ] || exit 0',
        f"echo {path} >{made}; mkdir -p .venv/bin; ! [ -e without_ensurepip ] || exit 1",
        f"printf '{pip}' >.venv/bin/pip; chmod +x .venv/bin/pip",
    ]
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o755)


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run make as in a terminal where .venv is active, with other/python3 behind it on the path."""
    path = f"{folder}/.venv/bin:{folder}/other:/usr/bin:/bin"
    return run(folder, "env", "-i", f"PATH={path}", "make", *words)  # without the variables of a make around the tests


@pytest.mark.parametrize("missing", ["ensurepip", "network"])  # Debian has the first in a package, python3-venv
def test_make_in_an_active_environment_makes_it_anew_with_the_python_behind_it(tmp_path: Path, missing: str) -> None:
    checkout(tmp_path)
    base, other, made = tmp_path / "base/python3", tmp_path / "other/python3", tmp_path / "made"
    python(base, base, made)
    python(other, other, made)
    python(tmp_path / ".venv/bin/python3", base, made)
    (tmp_path / ".venv/stamp").touch()
    os.utime(tmp_path / ".venv/stamp", (0, 0))  # older than the pins
    (tmp_path / f"without_{missing}").touch()
    assert make(tmp_path, "setup").returncode != 0
    assert made.read_text() == f"{base}\n"
    # An installation that was interrupted begins anew.
    (tmp_path / f"without_{missing}").unlink()
    assert make(tmp_path, "setup").returncode == 0
    assert (tmp_path / ".venv/stamp").exists()
    assert make(tmp_path, "clean").returncode == 0
    assert not (tmp_path / ".venv").exists()


def test_make_leaves_an_environment_of_the_user_alone(tmp_path: Path) -> None:
    checkout(tmp_path)
    made = tmp_path / "made"
    python(tmp_path / ".venv/bin/python3", tmp_path / ".venv/bin/python3", made)
    ended = make(tmp_path, "lint")
    assert ended.returncode != 0
    assert ended.stderr.splitlines()[0] == "error: .venv was not made by make: rename or remove it, and run make again"
    assert make(tmp_path, "clean").returncode == 0
    assert (tmp_path / ".venv/bin/python3").exists()
    assert not made.exists()
    shutil.rmtree(tmp_path / ".venv")
    (tmp_path / ".venv").mkdir()  # empty, such as a place to mount one
    python(tmp_path / "other/python3", tmp_path / "other/python3", made)
    assert make(tmp_path, "setup").returncode == 0


@pytest.mark.parametrize(
    ("state", "words", "expected"),
    [
        ("stamp", [], ".venv/bin/python"),
        ("made_by_make", [], "python3"),  # its installation was interrupted
        ("of the user", [], ".venv/bin/python"),
        ("stamp", ["PYTHON=other/python3"], "other/python3"),
    ],
)
def test_the_check_of_a_gpu_runs_in_the_python_that_was_asked_for_and_gives_figures_even_if_tests_fail(
    tmp_path: Path, state: str, words: list[str], expected: str
) -> None:
    checkout(tmp_path)
    for path in (tmp_path / ".venv/bin/python", tmp_path / "other/python3"):
        path.parent.mkdir(parents=True)
        path.write_text('#!/bin/sh\n[ "$1" = -m ] || exit 0\necho "$0 $*" >>calls\n[ "$2" != pytest ]\n')
        path.chmod(0o755)
    (tmp_path / ".venv" / state).touch()
    assert make(tmp_path, "gpu-check", *words).returncode != 0
    checks, figures = (tmp_path / "calls").read_text().splitlines()
    assert checks.endswith(f"{expected} -m pytest tests/gpu -m gpu")
    assert figures.startswith(checks.partition(" ")[0] + " -m benchmarks.gpu --seconds ")
    assert 400 < int(figures.rpartition(" ")[2]) < 600


def test_a_run_directory_may_have_spaces(tmp_path: Path) -> None:
    checkout(tmp_path)
    for target, option in (("demo", "--recipe demo"), ("ui", "review.py")):
        [line] = make(tmp_path, "-n", "-o", ".venv/stamp", target, "RUN_DIR=my runs/a").stdout.splitlines()
        assert option in line
        assert "--run-dir 'my runs/a'" in line


def test_an_installed_package_called_tests_does_not_hide_these(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/__init__.py").touch()
    ended = run(ROOT, "env", f"PYTHONPATH={ROOT}:{tmp_path}", sys.executable, "-c", "import tests.project")
    assert ended.returncode == 0, ended.stderr


def test_a_command_for_the_simulated_hosts_that_fails_says_why() -> None:
    with pytest.raises(CommandError, match=r"exit 2'?: File exists"):
        command("sh", "-c", "echo File exists >&2; exit 2")
