"""The tools that CONTRIBUTING.md speaks of work in a fresh clone."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
