"""Commands as users type them: help, wrong options, wrong values."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import pytest

from pipelines.run.recipe import Recipe, recipe_from_dict
from tests.project import ROOT

pytestmark = pytest.mark.processes


def run(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200", "RAY_AUTH_MODE": "disabled"}
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def train(*words: str) -> subprocess.CompletedProcess[str]:
    return run("pipelines/train_ensemble.py", *words)


def test_help_lists_every_field_of_the_recipe() -> None:
    help_text = train("--help").stdout
    missing = [f.name for f in fields(Recipe) if f"--{f.name.replace('_', '-')}" not in help_text]
    assert not missing


def test_the_printed_recipe_holds_the_overrides_and_can_be_fed_back(tmp_path: Path) -> None:
    printed = train("--recipe", "demo", "--run-dir", "x", "--epochs", "3", "--no-mirror", "--print-recipe").stdout
    recipe = recipe_from_dict(json.loads(printed))
    assert (recipe.name, recipe.epochs, recipe.mirror, recipe.replicas) == ("demo", 3, False, 7)
    path = tmp_path / "mine.json"
    path.write_text(printed)
    again = train("--recipe", str(path), "--run-dir", "x", "--print-recipe").stdout
    assert json.loads(again) == json.loads(printed)


WRONG = {
    "--recipe demo --run-dir x --epoch-count 3": "--epoch-count",
    "--recipe demo": "--run-dir",
    "--recipe dmeo --run-dir x": "dmeo",
    "--recipe demo --run-dir x --crop-px 100": "multiple of 7",
    "--recipe demo --run-dir x --epochs many": "many",
    "--recipe demo --run-dir x --epochs 0": "epochs must be at least 1",
}


@pytest.fixture(scope="module")
def wrong_commands() -> dict[str, subprocess.CompletedProcess[str]]:
    """The finished commands; run two at a time, since each takes seconds to import."""
    with ThreadPoolExecutor(2) as threads:
        return dict(zip(WRONG, threads.map(lambda words: train(*words.split()), WRONG), strict=True))


@pytest.mark.parametrize(("words", "expected"), WRONG.items())
def test_a_wrong_word_ends_the_command_with_a_short_message(
    words: str, expected: str, wrong_commands: dict[str, subprocess.CompletedProcess[str]]
) -> None:
    ended = wrong_commands[words]
    assert ended.returncode == 2
    assert expected in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    assert len((ended.stdout + ended.stderr).splitlines()) < 20


def test_a_reader_that_has_seen_enough_ends_the_command_quietly() -> None:
    work = "[print(n) for n in range(10**6)] and 0"
    program = f"from pipelines.job.command_line import run_command; run_command(lambda: {work})"
    pipe = f"set -o pipefail; '{sys.executable}' -c '{program}' | head -1"
    ended = subprocess.run(["bash", "-c", pipe], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (141, "0\n", "")


def test_evaluating_what_is_no_run_is_explained(tmp_path: Path) -> None:
    ended = run("pipelines/evaluate_ensemble.py", "--run-dir", str(tmp_path))
    assert ended.returncode == 2
    assert "holds no run" in ended.stderr


def test_a_folder_without_images_is_refused_by_the_job(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ended = train("--recipe", "demo", "--data", str(tmp_path / "empty"), "--run-dir", str(tmp_path / "run"))
    assert ended.returncode == 2
    assert "error: no images in" in ended.stderr
    assert "Traceback" not in ended.stderr
