"""Commands as users type them: help, wrong options, wrong values."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest
import torch

from googlenet import GoogLeNet
from googlenet.network.preprocessing import SCRATCH_PREPROCESSING
from googlenet.network.weights import to_safetensors
from pipelines import evaluate_ensemble, train_ensemble
from pipelines.job.command_line import run_command
from pipelines.run.directory import claim
from pipelines.run.named_recipes import finetune
from pipelines.run.recipe import Recipe, recipe_from_dict
from pipelines.run.storage import Storage
from tests.project import ROOT


@dataclass(frozen=True)
class Ended:
    """How a command ended, and its output."""

    code: int
    stdout: str
    stderr: str


Command = Callable[..., Ended]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Run a command's main in this process, as its file does when it is a script."""

    def command(main: Callable[[], int | None], *words: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["pipelines/command.py", *words])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as ended:
            run_command(main)
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    yield command
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_help_lists_every_field_of_the_recipe(run: Command) -> None:
    help_text = run(train_ensemble._main, "--help").stdout
    missing = [f.name for f in fields(Recipe) if f"--{f.name.replace('_', '-')}" not in help_text]
    assert not missing


def test_the_printed_recipe_holds_the_overrides_and_can_be_fed_back(run: Command, tmp_path: Path) -> None:
    words = ("--recipe", "demo", "--run-dir", "x", "--epochs", "3", "--no-mirror", "--print-recipe")
    printed = run(train_ensemble._main, *words).stdout
    recipe = recipe_from_dict(json.loads(printed))
    assert (recipe.name, recipe.epochs, recipe.mirror, recipe.replicas) == ("demo", 3, False, 7)
    path = tmp_path / "mine.json"
    path.write_text(printed)
    again = run(train_ensemble._main, "--recipe", str(path), "--run-dir", "x", "--print-recipe").stdout
    assert json.loads(again) == json.loads(printed)


@pytest.mark.parametrize("words", [["--recipe", "demo"], ["--recipe=demo"], ["--recipe", "paper", "--recipe", "demo"]])
def test_a_recipe_is_named_in_either_form_and_the_last_one_counts(run: Command, words: list[str]) -> None:
    printed = run(train_ensemble._main, *words, "--run-dir", "x", "--print-recipe").stdout
    assert json.loads(printed)["name"] == "demo"


@pytest.mark.parametrize(
    ("words", "expected"),
    {
        "--recipe demo --run-dir x --epoch-count 3": "--epoch-count",
        "--recipe demo": "--run-dir",
        "--recipe dmeo --run-dir x": "dmeo",
        "--run-dir x --recipe": "--recipe",
        "--recipe demo --run-dir x --crop-px 100": "multiple of 7",
        "--recipe demo --run-dir x --epochs many": "many",
        "--recipe demo --run-dir x --epochs 0": "epochs must be at least 1",
    }.items(),
)
def test_a_wrong_word_ends_the_command_with_a_short_message(run: Command, words: str, expected: str) -> None:
    ended = run(train_ensemble._main, *words.split())
    assert ended.code == 2
    assert expected in ended.stdout + ended.stderr
    assert len((ended.stdout + ended.stderr).splitlines()) < 20


@pytest.mark.processes
def test_a_script_ends_with_the_exit_code_and_without_a_traceback() -> None:
    command = [sys.executable, "pipelines/train_ensemble.py", "--recipe", "dmeo", "--run-dir", "x"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert "Traceback" not in ended.stderr


@pytest.mark.processes
def test_a_reader_that_has_seen_enough_ends_the_command_quietly() -> None:
    work = "[print(n) for n in range(10**6)] and 0"
    program = f"from pipelines.job.command_line import run_command; run_command(lambda: {work})"
    pipe = f"set -o pipefail; '{sys.executable}' -c '{program}' | head -1"
    ended = subprocess.run(["bash", "-c", pipe], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (141, "0\n", "")


def test_evaluating_what_is_no_run_is_explained(run: Command, tmp_path: Path) -> None:
    ended = run(evaluate_ensemble._main, "--run-dir", str(tmp_path))
    assert ended.code == 2
    assert "holds no run" in ended.stderr


def test_a_folder_without_images_is_refused_by_the_job(run: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    words = ("--recipe", "demo", "--data", str(tmp_path / "empty"), "--run-dir", str(tmp_path / "run"))
    ended = run(train_ensemble._main, *words)
    assert ended.code == 2
    assert ended.stderr.startswith("error: no images in")


def test_a_recipe_for_given_weights_does_not_begin_from_random_ones(run: Command, tmp_path: Path) -> None:
    words = ("--recipe", "finetune", "--data", str(tmp_path / "none"), "--run-dir", str(tmp_path / "run"))
    ended = run(train_ensemble._main, *words)
    assert (ended.code, ended.stderr.count("\n"), ended.stdout) == (2, 1, "")
    for fix in ("--init-weights FILE", "--recipe modern", "--from-scratch"):
        assert fix in ended.stderr
    assert "there is no folder" in run(train_ensemble._main, *words, "--from-scratch").stderr
    # A run that an earlier version began is resumed.
    recipe = train_ensemble._with_absolute_paths(replace(finetune(), data=words[3]))
    claim(Storage.at(words[5]), "recipe", recipe.to_dict())
    assert "there is no folder" in run(train_ensemble._main, *words).stderr


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
def test_initial_weights_are_tried_before_a_cluster_starts(
    run: Command, photo_folder: Path, tmp_path: Path, dry_run: tuple[str, ...]
) -> None:
    torch.manual_seed(0)
    model = GoogLeNet(10, "bn", False, 0.125)
    weights = tmp_path / "bn.safetensors"
    weights.write_bytes(to_safetensors(model, model.state_dict(), SCRATCH_PREPROCESSING))
    words = ["--recipe", "finetune", "--data", str(photo_folder), "--run-dir", str(tmp_path / "run"), *dry_run]
    words += ["--width", "0.125", "--crop-px", "35", "--init-weights"]
    for path, expected in (
        (weights, "the weights have variant bn, this network has paper"),
        (tmp_path / "gone.npz", "no weights at"),
        (tmp_path / "photo.jpg", "unknown kind of weights file"),
    ):
        ended = run(train_ensemble._main, *words, str(path))
        assert (ended.code, expected in ended.stderr) == (2, True)
        assert "Ray" not in ended.stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.processes
@pytest.mark.parametrize(
    "name",
    [
        "train_ensemble",
        "prepare_dataset",
        "evaluate_ensemble",
        "compare_runs",
        "export_onnx",
        "replay_to_mlflow",
        "review",
    ],
)
def test_help_and_errors_wait_for_no_heavy_package(name: str) -> None:
    heavy = ("torch", "ray", "mlflow", "matplotlib", "jinja2")
    program = f"import sys, pipelines.{name}; print([name for name in {heavy} if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"
