"""Claims: a commit that cannot be recorded is told with its reason and what to do."""

import shlex
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

from pipelines.job import circumstances
from pipelines.job.circumstances import COMMIT_VARIABLE, commit, why_no_commit

pytestmark = pytest.mark.processes


def test_a_checkout_of_another_user_is_told_with_the_command_that_allows_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    monkeypatch.setattr(circumstances, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert commit() == ""
    reason, _, fix = why_no_commit().partition("; allow it with ")
    assert reason == "git refuses a checkout that another user owns"
    assert shlex.split(fix) == ["git", "config", "--global", "--add", "safe.directory", str(tmp_path)]


def test_a_folder_whose_name_is_not_utf8_is_told_as_git_tells_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(circumstances, "ROOT", tmp_path / "caf\udce9")
    assert r"caf\xe9" in why_no_commit()


def test_git_is_asked_in_english_whatever_language_the_user_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "git").write_text("""#!/bin/sh
[ "$LC_ALL" = C ] && echo "fatal: dubious ownership" >&2 || echo "Schwerwiegend: zweifelhafte Besitzrechte" >&2
exit 128
""")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert why_no_commit().startswith("git refuses a checkout that another user owns")


def test_a_folder_without_a_repository_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(circumstances, "ROOT", tmp_path)
    assert commit() == ""
    # Git ends otherwise where a file system ends above the folder.
    told = why_no_commit()
    assert told.startswith("not a git repository (or any ")
    assert told.endswith("; name it in GOOGLENET_COMMIT")


def test_a_commit_that_the_submitter_names_is_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(circumstances, "ROOT", tmp_path)
    monkeypatch.setenv(COMMIT_VARIABLE, "abc")
    assert (commit(), why_no_commit()) == ("abc", "")


def test_without_git_that_is_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (commit(), why_no_commit()) == ("", "git is not installed; name it in GOOGLENET_COMMIT")


def test_the_commit_of_a_repository_around_an_unpacked_project_is_not_recorded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for command in (
        ["init", "-q"],
        ["-c", "user.name=x", "-c", "user.email=x", "commit", "-q", "--allow-empty", "-mx"],
    ):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    project = tmp_path / "project"
    (project / "pipelines").mkdir(parents=True)
    (project / "pipelines/errors.py").touch()
    monkeypatch.setattr(circumstances, "ROOT", project)
    assert commit() == ""
    assert (
        why_no_commit() == f"the git repository around {project} does not hold its files; name it in {COMMIT_VARIABLE}"
    )


@pytest.mark.usefixtures("opencv_of_another_package")
def test_opencv_of_another_package_stops_no_job() -> None:
    found = circumstances.circumstances()["versions"]
    assert (found["opencv-python-headless"], found["numpy"]) == ("unknown", version("numpy"))
