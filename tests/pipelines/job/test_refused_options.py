"""Options that cannot be used are refused in a line before anything starts; folders of others stay as they are."""

from pathlib import Path
from types import ModuleType

import pytest

from pipelines import (
    compare_runs,
    evaluate_ensemble,
    export_onnx,
    prepare_dataset,
    replay_to_mlflow,
    review,
    train_ensemble,
)
from pipelines.run.claims import claim
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from tests.commands import Command
from tests.others_files import unchanged


@pytest.mark.parametrize("below", ["", "/run"])
@pytest.mark.parametrize(
    ("command", "words"),
    [
        (train_ensemble, "--recipe demo --run-dir FILE"),
        (train_ensemble, "--recipe demo --run-dir FILE --dry-run"),
        (prepare_dataset, "--data embedded --run-dir FILE"),
        (evaluate_ensemble, "--run-dir FILE"),
        (evaluate_ensemble, "--run-dir FILE --data DATA --weights a.npz"),
        (export_onnx, "--run-dir FILE --output x.onnx"),
        (export_onnx, "--run-dir x --output FILE/x.onnx"),
        (replay_to_mlflow, "--run-dir FILE"),
        (review, "--run-dir FILE"),
        (review, "--runs FILE"),
        (compare_runs, "FILE FILE"),
    ],
)
def test_a_file_in_the_place_of_a_folder_is_told_in_a_line(
    run: Command, tmp_path: Path, command: ModuleType, words: str, below: str
) -> None:
    (tmp_path / "file").write_bytes(b"")
    ended = run(command._main, *words.replace("FILE", f"{tmp_path}/file{below}").split())
    assert (ended.code, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert f"{tmp_path}/file" in ended.stderr
    assert (tmp_path / "file").is_file()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (train_ensemble, "--recipe demo --run-dir THESIS"),
        (train_ensemble, "--recipe demo --run-dir THESIS --dry-run"),
        (prepare_dataset, "--data embedded --run-dir THESIS"),
        (evaluate_ensemble, "--run-dir THESIS --data DATA --weights a.npz"),
        (evaluate_ensemble, "--run-dir RUN --data DATA --output-dir THESIS"),
    ],
)
def test_a_folder_of_something_else_is_refused_before_anything_starts_and_stays_as_it_is(
    run: Command, tmp_path: Path, command: ModuleType, words: str
) -> None:
    claim(Storage.at(str(tmp_path / "RUN")), "recipe", Recipe().to_dict())
    (tmp_path / "THESIS").mkdir()
    for name in ("thesis.tex", "film.mkv.partial-1"):
        (tmp_path / "THESIS" / name).touch()
    given = [str(tmp_path / word) if word in ("RUN", "THESIS") else word for word in words.split()]
    with unchanged(tmp_path / "THESIS"):
        ended = run(command._main, *given)
    assert (ended.code, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    way_out = "choose another --output-dir" if "--output-dir" in words else "choose another --run-dir"
    assert ended.stderr.endswith(f"is not empty and not a run directory (thesis.tex, ...); {way_out}\n")


def test_a_misspelt_run_is_told_as_that_whatever_else_is_asked(run: Command, tmp_path: Path) -> None:
    words = ("--run-dir", str(tmp_path / "mien"), "--data", str(tmp_path), "--unlabelled", "--coverage", "0.95")
    ended = run(evaluate_ensemble._main, *words)
    way_out = "give one with --run-dir, or weights with --weights"
    assert (ended.code, ended.stderr) == (2, f"error: {tmp_path}/mien holds no run of train_ensemble.py; {way_out}\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--predictors", "0"), "--predictors must be at least 1, got 0"),
        (("--gpus-per-predictor", "1.5"), "--gpus-per-predictor must be whole, or a fraction of one GPU, got 1.5"),
    ],
)
def test_predictors_that_cannot_be_are_refused_before_the_images_are_prepared(
    run: Command, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    given = ("--run-dir", str(tmp_path / "run"), "--data", str(tmp_path), "--weights", "x.npz")
    ended = run(evaluate_ensemble._main, *given, *words)
    assert (ended.code, ended.stdout, ended.stderr) == (2, "", f"error: {message}\n")
    ended = run(train_ensemble._main, *given[:4], *words)
    assert (ended.code, ended.stdout, ended.stderr) == (2, "", f"error: {message}\n")
    assert not (tmp_path / "run").exists()
