"""Commands as users type them: help, wrong options, wrong values."""

import json
import socket
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from googlenet import GoogLeNet
from googlenet.network.preprocessing import SCRATCH_PREPROCESSING
from googlenet.network.published import BVLC, FILES
from googlenet.network.weights import to_safetensors
from pipelines import (
    evaluate_ensemble,
    review,
    train_ensemble,
)
from pipelines.data.sources import with_absolute_paths
from pipelines.job.console import fitted
from pipelines.run.claims import claim
from pipelines.run.commands import command_of
from pipelines.run.named_recipes import demo, finetune, imagenette
from pipelines.run.recipe import Recipe
from pipelines.run.recipe_json import recipe_from_dict
from pipelines.run.storage import Storage
from tests.commands import Command
from tests.others_files import somebody_elses
from tests.project import ROOT


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


def test_evaluating_a_run_that_may_only_be_read_names_the_option_for_that(run: Command, tmp_path: Path) -> None:
    claim(Storage.at(str(tmp_path / "run")), "recipe", Recipe().to_dict())
    with somebody_elses(tmp_path / "run") as folder:
        for words in ((), ("--data", str(tmp_path))):
            ended = run(evaluate_ensemble._main, "--run-dir", str(folder), *words)
            assert (ended.code, ended.stderr.count("\n"), ended.stdout) == (2, 1, "")
            assert "cannot be written" in ended.stderr
            assert "--output-dir DIR" in ended.stderr


@pytest.mark.parametrize("words", [(), ("--data", "x", "--weights", "x.npz")])
def test_an_output_directory_is_for_other_images_alone(run: Command, tmp_path: Path, words: tuple[str, ...]) -> None:
    ended = run(evaluate_ensemble._main, "--run-dir", str(tmp_path), "--output-dir", "x", *words)
    assert (ended.code, "--output-dir needs --data FOLDER" in ended.stderr) == (2, True)


def test_a_port_that_is_taken_ends_the_review(run: Command, tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = run(review._main, "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db", "--port", port)
    assert (ended.code, ended.stderr.count("\n")) == (2, 1)
    assert ended.stderr == f"error: cannot listen on port {port} (Address already in use): choose another with --port\n"
    assert ended.stdout == ""


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
    for fix in (
        "--init-weights FILE",
        "--init-weights bvlc",
        "unrestricted use",
        "--recipe imagenette",
        "--from-scratch",
    ):
        assert fix in ended.stderr
    assert (
        "the recipe mine has the short training of finetune"
        in run(train_ensemble._main, *words, "--name", "mine").stderr
    )
    for own in (("--from-scratch",), ("--name", "mine", "--learning-rate", "0.01")):
        assert "there is no folder" in run(train_ensemble._main, *words, *own).stderr
    # A run that an earlier version began is resumed.
    recipe = train_ensemble.with_absolute_paths(replace(finetune(), data=words[3]))
    claim(Storage.at(words[5]), "recipe", recipe.to_dict())
    assert "there is no folder" in run(train_ensemble._main, *words).stderr
    # One that was refused before it prepared anything does not lose its weights without a word.
    (tmp_path / "run/run.json").unlink()
    claim(Storage.at(words[5]), "recipe", replace(recipe, init_weights="/weights.npz").to_dict())
    assert "--init-weights bvlc" in run(train_ensemble._main, *words).stderr
    # Nor does one that was refused with another recipe, which needs none, stand for --from-scratch.
    (tmp_path / "run/run.json").unlink()
    claim(Storage.at(words[5]), "recipe", replace(imagenette(), data=words[3]).to_dict())
    assert "--init-weights bvlc" in run(train_ensemble._main, *words).stderr


def test_an_evaluation_that_sends_nothing_needs_no_address_of_mlflow(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://somebody:secret@host")
    words = ("--run-dir", str(tmp_path), "--data", str(tmp_path))
    assert "contains a password" in run(evaluate_ensemble._main, *words).stderr
    for nothing in ("--unlabelled", "--no-mlflow"):
        assert "holds no run" in run(evaluate_ensemble._main, *words, nothing).stderr


def test_a_store_that_cannot_be_written_is_refused_before_the_training(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.tracking.store.may_write", lambda _: False)  # root may write everything
    words = (
        "--recipe",
        "demo",
        "--run-dir",
        str(tmp_path / "run"),
        "--tracking-uri",
        f"sqlite:///{tmp_path}/mlflow.db",
    )
    ended = run(train_ensemble._main, *words, "--dry-run")
    assert (ended.code, ended.stderr.count("\n"), ended.stdout) == (2, 1, "")
    assert f"cannot write the MLflow store {tmp_path}/mlflow.db" in ended.stderr


@pytest.mark.parametrize("option", ["--data", "--init-weights"])
def test_a_path_in_rays_copy_of_the_project_is_refused(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    copy = tmp_path / "runtime_resources/working_dir_files/_ray_pkg_0123"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    ended = run(train_ensemble._main, "--recipe", "demo", "--run-dir", str(tmp_path / "run"), option, "photos")
    assert (ended.code, ended.stdout) == (2, "")
    assert f"{option} photos lies in Ray's copy of the project" in ended.stderr
    # A run that an earlier version has bound to such a copy goes on.
    own = with_absolute_paths(replace(demo(), data=str(copy / "photos")), {"data": str(copy / "photos")})
    assert own.data == str(copy / "photos")


def test_soups_of_a_wider_replica_are_refused_before_the_evaluation(run: Command, tmp_path: Path) -> None:
    claim(Storage.at(str(tmp_path)), "recipe", Recipe(wide_replica_width=0.75).to_dict())
    ended = run(evaluate_ensemble._main, "--run-dir", str(tmp_path), "--soup")
    assert (ended.code, ended.stdout) == (2, "")
    assert "--soup averages weights, but those of a wider replica have other shapes" in ended.stderr


def test_a_printed_command_works_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Storage.at(str(tmp_path))
    monkeypatch.chdir(ROOT)
    assert command_of("review", run) == f"python pipelines/review.py --run-dir {tmp_path}"
    monkeypatch.chdir(tmp_path)
    shown = command_of("review", run)
    assert shown == f"python {ROOT}/pipelines/review.py --run-dir {tmp_path}"
    assert shown in fitted(f"MLflow: {shown}", 40).splitlines()[-1]  # not broken between its words


def test_a_prepared_run_whose_images_have_moved_says_that_it_has_its_own(run: Command, tmp_path: Path) -> None:
    folder = Storage.at(str(tmp_path / "run"))
    claim(folder, "recipe", Recipe(data="/old/photos").to_dict())
    words = ("--recipe", "paper", "--run-dir", folder.root, "--data", "/new/photos")
    assert "there is no folder /new/photos" in run(train_ensemble._main, *words).stderr  # nothing was prepared yet
    folder.write("replicas/0/metrics.jsonl", b"")
    refused = run(train_ensemble._main, *words).stderr
    assert "data: was '/old/photos', is now '/new/photos'" in refused
    assert "its own copy" not in refused
    folder.write("dataset/manifest.json", b"{}")
    assert "(the run has its own copy: the old path need not exist)" in run(train_ensemble._main, *words).stderr


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
def test_initial_weights_are_tried_before_a_cluster_starts(
    run: Command, photo_folder: Path, tmp_path: Path, dry_run: tuple[str, ...]
) -> None:
    torch.manual_seed(0)
    model = GoogLeNet(10, "bn", False, 0.125)
    weights = tmp_path / "bn.safetensors"
    weights.write_bytes(to_safetensors(model, model.state_dict(), SCRATCH_PREPROCESSING))
    (tmp_path / "folder.npz").mkdir()
    words = ["--recipe", "finetune", "--data", str(photo_folder), "--run-dir", str(tmp_path / "run"), *dry_run]
    words += ["--width", "0.125", "--crop-px", "35", "--init-weights"]
    for path, expected in (
        (weights, "the weights have variant bn, this network has paper"),
        (tmp_path / "gone.npz", "gone.npz; the name bvlc downloads Caffe's GoogLeNet, 54 MB; license:"),
        (tmp_path / "photo.jpg", "unknown kind of weights file"),
        (tmp_path / "folder.npz", "folder.npz is a folder, not a file of weights"),
    ):
        ended = run(train_ensemble._main, *words, str(path))
        assert (ended.code, expected in ended.stderr) == (2, True)
        assert "Ray" not in ended.stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "variant"),
    [
        (("--init-weights", "torchvision:googlenet"), "bn"),
        (("--init_weights=torchvision:googlenet",), "bn"),
        (("--init-weights", "somewhere/googlenet.pth"), "bn"),
        (("--init-weights", "torchvision:googlenet", "--variant", "paper"), "paper"),  # refused once it is tried
        (("--init-weights", "bvlc"), "paper"),
    ],
)
def test_torchvisions_weights_set_the_variant(run: Command, words: tuple[str, ...], variant: str) -> None:
    ended = run(train_ensemble._main, "--recipe", "finetune", "--run-dir", "x", *words, "--print-recipe")
    assert json.loads(ended.stdout)["variant"] == variant


def test_the_weights_of_a_recipes_file_set_the_variant(run: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text('{"init_weights": "torchvision:googlenet"}')
    ended = run(train_ensemble._main, "--recipe", str(tmp_path / "mine.json"), "--run-dir", "x", "--print-recipe")
    assert json.loads(ended.stdout)["variant"] == "bn"


def test_without_a_network_weights_by_name_end_in_one_line_before_a_cluster_starts(
    run: Command, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setitem(FILES, BVLC, replace(FILES[BVLC], addresses=("http://127.0.0.1:9/bvlc",)))
    words = ("--recipe", "finetune", "--data", str(photo_folder), "--run-dir", str(tmp_path / "run"))
    ended = run(train_ensemble._main, *words, "--init-weights", "bvlc")
    assert (ended.code, ended.stderr.count("\n"), "Ray" in ended.stdout) == (2, 1, False)
    assert f"put it at {tmp_path}/torch/hub/checkpoints/bvlc_googlenet.caffemodel" in ended.stderr
    assert not (tmp_path / "run").exists()
