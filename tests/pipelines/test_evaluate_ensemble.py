"""Evaluations of a run's replicas on images that it never saw, and on photographs of something else."""

import io
import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from googlenet.evaluation.crops import chosen_policy
from googlenet.evaluation.kept_budget import KeptBudget
from pipelines import evaluate_ensemble
from pipelines.data.sources import images_to_evaluate
from pipelines.errors import UserError
from pipelines.evaluate_ensemble import Arguments, evaluate_elsewhere, judge_apart
from pipelines.evaluation.evaluate import evaluate_run
from pipelines.report.drawing import svg
from pipelines.report.figures import figures
from pipelines.run.budget import write_budget
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.run.weights import weights_digests
from tests.commands import run_script
from tests.others_files import unchanged
from tests.prepared import some_weights

pytestmark = pytest.mark.timeout(200)


def test_a_run_without_a_finished_replica_is_refused_before_images_are_prepared(
    finished_run: Path, tiny_recipe: Recipe, photo_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished_run / "dataset", tmp_path / "run/dataset")
    run = Storage.at(str(tmp_path / "run"))
    with pytest.raises(UserError, match=r"no replica of .*/run is finished; run train_ensemble"):
        evaluate_elsewhere(run, tiny_recipe, Arguments(run.root, str(photo_folder)))
    assert not run.exists("evaluations")
    with pytest.raises(UserError, match="must be in a folder, got embedded"):
        evaluate_elsewhere(Storage.at(str(finished_run)), tiny_recipe, Arguments(run.root, "embedded", unlabelled=True))


def test_images_that_the_run_was_trained_with_are_refused_before_anything_starts(
    prepared_run: Path, tiny_recipe: Recipe, photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Storage.at(str(shutil.copytree(prepared_run, tmp_path / "run")))
    run.write("replicas/0/weights.safetensors", some_weights())
    arguments = Arguments(run.root, str(photo_folder / "train"))
    with pytest.raises(UserError, match=r"^24 of the 24 images in .*/train are training images of .*/run"):
        evaluate_elsewhere(run, tiny_recipe, arguments)
    with pytest.raises(UserError, match="must be in a folder"):
        evaluate_elsewhere(run, tiny_recipe, replace(arguments, data="embedded", unlabelled=True))
    assert (
        "the probabilities will not be calibrated: this needs a temperature, and the run keeps none"
        in capsys.readouterr().out
    )
    assert not run.exists("evaluations")


def test_views_are_not_judged_on_the_images_that_they_were_chosen_on(
    prepared_run: Path, tiny_recipe: Recipe, photo_folder: Path, tmp_path: Path
) -> None:
    run = Storage.at(str(shutil.copytree(prepared_run, tmp_path / "run")))
    run.write("replicas/0/weights.safetensors", some_weights())
    ones = (1.0,) * 144
    order = tuple(range(143, -1, -1))
    write_budget(run, KeptBudget(weights_digests(run, [0]), "", 42, order, ((1, 1),), (1.0,), ones, {}))
    for policy in ("best:3", chosen_policy([143, 142, 141])):
        arguments = Arguments(run.root, str(photo_folder / "val"), policies=(1, policy))
        with pytest.raises(UserError, match=r"^--policies best:3: these views were chosen on validation images"):
            evaluate_elsewhere(run, tiny_recipe, arguments)
    assert not run.exists("evaluations")


def test_broken_photographs_of_something_else_are_told_before_anything_is_evaluated(
    ray_cluster: str, prepared_run: Path, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Storage.at(str(shutil.copytree(prepared_run, tmp_path / "run")))
    (tmp_path / "others").mkdir()
    (tmp_path / "others/torn.jpg").write_bytes(b"torn")
    monkeypatch.setattr(evaluate_ensemble, "evaluate_run", lambda *_: pytest.fail("it is evaluated"))
    with pytest.raises(UserError, match=r"in .*/others cannot be decoded or read"):
        judge_apart(run, tiny_recipe, Arguments(run.root, ood=str(tmp_path / "others")))


def test_a_folder_with_a_validation_part_is_evaluated_on_that(photo_folder: Path) -> None:
    _, listing = images_to_evaluate(str(photo_folder), ())
    assert len(listing.splits["val"]) == 42
    assert all(file.image_id.startswith("val/") for file in listing.splits["val"])


@pytest.mark.usefixtures("store_beside")
def test_a_run_is_evaluated_on_images_that_it_never_saw_and_with_the_users_own_scales(
    ray_cluster: str, predictions_here: None, finished_run: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    folder = tmp_path / "other" / "class_2"
    folder.mkdir(parents=True)
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (40, 40, 200)).save(buffer, "JPEG")
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(buffer.getvalue())
    store = f"sqlite:///{tmp_path}/mlflow.db"
    arguments = Arguments(str(run), str(tmp_path / "other"), policies=(1, "best:3", "40+50"), tracking_uri=store)
    table = evaluate_elsewhere(Storage.at(str(run)), tiny_recipe, arguments)
    (folder_of_report,) = (run / "evaluations").glob("other-*")
    report = json.loads((folder_of_report / "report/report.json").read_text())
    assert (report["images"], report["classes"]) == (3, 3)
    best = chosen_policy(json.loads((run / "budget.json").read_text())["view_order"][:3])
    assert [(row["models"], row["crops"], row["policy"]) for row in report["table"]] == [
        (models, crops, policy) for models in (1, 2, 3) for crops, policy in ((1, "1"), (3, best), (72, "40+50"))
    ]
    picture = svg(figures(report)["error_by_models"], "error_by_models")
    assert all(f">{label}</text>" in picture for label in ("3 crops (best)", "72 crops (40+50 px)"))
    assert "| 3 | 3 (best) | 9 |" in (folder_of_report / "report/report.md").read_text()
    assert "| 3 | 72 (40+50 px) | 216 |" in (folder_of_report / "report/report.md").read_text()
    assert str(folder_of_report) in table
    assert f"the evaluation is in MLflow at {store}" in table
    # The folder has more images now: they are evaluated, too.
    (folder / "3.jpg").write_bytes(buffer.getvalue())
    evaluate_elsewhere(Storage.at(str(run)), tiny_recipe, arguments)
    reports = [json.loads(path.read_text()) for path in run.glob("evaluations/other-*/report/report.json")]
    assert sorted(report["images"] for report in reports) == [3, 4]


def test_a_run_of_somebody_else_is_evaluated_into_a_directory_of_ones_own(
    ray_cluster: str, predictions_here: None, finished_run: Path, tiny_recipe: Recipe, photo_folder: Path,
    tmp_path: Path, empty_store: Path,
) -> None:  # fmt: skip
    theirs, own = tmp_path / "theirs", tmp_path / "own/evaluation"
    own.parent.mkdir()
    shutil.copy(empty_store, own.parent / "mlflow.db")
    shutil.copytree(finished_run, theirs / "run")
    run = Storage.at(str(theirs / "run"))
    arguments = Arguments(run.root, str(photo_folder / "val"), policies=(1,), output_dir=str(own), predictors=1)
    with unchanged(theirs):
        text = evaluate_elsewhere(run, tiny_recipe, arguments)
    ours, original = (json.loads((path / "report/report.json").read_text()) for path in (own, finished_run))
    assert [row["top1_error"] for row in ours["table"] if row["crops"] == 1] == [
        row["top1_error"] for row in original["table"] if row["crops"] == 1
    ]
    assert f"the evaluation is in MLflow at sqlite:///{tmp_path}/own/mlflow.db" in text
    with pytest.raises(
        UserError, match=r"policies: was \[1\], is now \[10\]\nUse .*, or choose another --output-dir\.$"
    ):
        evaluate_elsewhere(run, tiny_recipe, replace(arguments, policies=(10,)))


def test_damaged_weights_of_a_replica_are_named_with_what_to_do(
    ray_cluster: str, finished_run: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    (run / "replicas/1/weights.safetensors").write_bytes(b"rotten")
    with pytest.raises(
        UserError, match=r"replicas/1/weights\.safetensors: not a complete .*; delete it, and train_ensemble"
    ):
        evaluate_run(Storage.at(str(run)), tiny_recipe)


def test_the_command_adds_photographs_of_something_else_to_the_runs_report(
    ray_cluster: str, predictions_here: None, finished_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished_run, tmp_path / "run")
    generator = np.random.default_rng(0)
    (tmp_path / "noise").mkdir()
    for number in range(4):
        Image.fromarray(generator.integers(0, 256, (50, 60, 3), dtype=np.uint8)).save(tmp_path / f"noise/{number}.png")
    words = ("pipelines/evaluate_ensemble.py", "--run-dir", str(tmp_path / "run"), "--ood", str(tmp_path / "noise"))
    ended = run_script(*words)
    assert ended.code == 0, ended.stderr
    assert f"report: {tmp_path}/run/report/index.html\n" in ended.stdout
    assert "to send it: python pipelines/replay_to_mlflow.py" in ended.stdout
    report = json.loads((tmp_path / "run/report/report.json").read_text())
    assert [(row["data"], row["images"]) for row in report["out_of_distribution"]] == [("noise", 4)] * 3
    assert report["table"] == json.loads((finished_run / "report/report.json").read_text())["table"]
    page = (tmp_path / "run/report/index.html").read_text()
    assert "Photographs of something else" in page
    # The training job has predicted the run's images; this command has predicted the others alone.
    assert "evaluated_by" not in report
    assert "training command" not in page
    [others] = (tmp_path / "run/evaluations").glob("*/preflight.json")
    assert json.loads(others.read_text())["evaluated_by"]["command"] == shlex.join(words)
