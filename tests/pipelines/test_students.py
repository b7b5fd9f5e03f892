"""A student and the soups of a finished run, through the commands that users start."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from googlenet.network.weight_files import load_weights
from pipelines.report.drawing import svg
from pipelines.report.figure_of_spending import spending as picture_of_spending
from pipelines.report.tables_of_spending import WAYS
from pipelines.run.recipe import Recipe
from tests.commands import run_script
from tests.pipelines.jobs import report_of
from tests.prepared import training_here, trying_here

pytestmark = pytest.mark.timeout(300)


@pytest.mark.usefixtures("store_beside")
def test_a_student_is_trained_on_its_teachers_answers_and_reported_beside_it(
    finished_run: Path, ray_cluster: str, predictions_here: None, tmp_path: Path
) -> None:
    words = ["pipelines/train_ensemble.py", "--recipe", "distil", "--teacher", str(finished_run)]
    words += ["--run-dir", str(tmp_path / "student"), "--epochs", "1", "--models", "none"]
    with trying_here():
        planned = run_script(*words, "--dry-run", RAY_ADDRESS=ray_cluster)
    assert planned.code == 0, planned.stderr
    assert "targets: 720 forward passes of the teacher, about " in planned.stdout
    assert not (tmp_path / "student").exists()

    with training_here():
        ended = run_script(*words, RAY_ADDRESS=ray_cluster)
    assert ended.code == 0, ended.stderr
    run = tmp_path / "student"
    recipe, teachers = (json.loads((folder / "run.json").read_text())["recipe"] for folder in (run, finished_run))
    assert recipe == {**teachers, "name": "distil", "replicas": 1, "epochs": 1, "teacher": str(finished_run)}
    assert len(pq.read_table(run / "teacher/targets.parquet")) == 24
    [line] = [json.loads(line) for line in (run / "replicas/0/metrics.jsonl").read_text().splitlines()]
    assert {"train_loss_logits", "train_loss_teacher_logits"} <= set(line)
    assert load_weights(run / "replicas/0/weights.safetensors").model.num_classes == 3
    spending = report_of(run)["spending"]
    # Of 14 validation images of a class, 4 are square, and have 48 different views.
    all_views = pytest.approx((10 * 144 + 4 * 48) / 14)
    assert [row["passes"] for row in spending if row["way"] == "student"] == [1.0, 10.0, all_views]  # type: ignore[comparison-overlap]
    assert f">{WAYS['student']}</text>" in svg(picture_of_spending(report_of(run), 0.001), "spending")
    theirs = [{**row, "efficient": None} for row in report_of(finished_run)["spending"]]
    assert [{**row, "efficient": None} for row in spending if row["way"] != "student"] == theirs  # type: ignore[comparison-overlap]

    shutil.rmtree(run / "report")
    again = run_script(*words, RAY_ADDRESS=ray_cluster)
    assert again.code == 0, again.stderr
    assert "answer 24 training images" not in again.stdout


@pytest.mark.usefixtures("predictions_here")
def test_soups_are_chosen_on_the_cluster_and_evaluated_once(
    finished_run: Path, ray_cluster: str, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    words = ("pipelines/evaluate_ensemble.py", "--run-dir", str(run), "--soup", "--predictors", "1")
    ended = run_script(*words, RAY_ADDRESS=ray_cluster)
    assert ended.code == 0, ended.stderr
    soups = report_of(run)["soups"]
    assert [(row["soup"], row["crops"]) for row in soups] == [
        (kind, crops) for kind in ("uniform", "greedy") for crops in (1, 10, 144)
    ]
    assert len(soups[0]["members"]) == tiny_recipe.replicas  # type: ignore[arg-type]
    assert "a soup, errs with 144 crops on" in " ".join(ended.stdout.split())
    files = sorted((run / "soup").rglob("*.*"))
    written = [path.stat().st_mtime_ns for path in files]
    assert run_script(*words, RAY_ADDRESS=ray_cluster).code == 0
    assert [path.stat().st_mtime_ns for path in files] == written


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--recipe", "distil"), "the recipe distil needs a teacher: give the directory of a finished run"),
        (("--recipe", "demo", "--teacher", "TEACHER"), "--teacher is for --recipe distil, not for the recipe demo"),
        (
            ("--recipe", "distil", "--teacher", "TEACHER"),
            "TEACHER holds no training run; give the directory of a finished run",
        ),
    ],
)
def test_a_teacher_that_is_missing_or_for_nobody_is_told_in_one_line(
    tmp_path: Path, words: tuple[str, ...], expected: str
) -> None:
    named = [word.replace("TEACHER", str(tmp_path / "teacher")) for word in words]
    ended = run_script("pipelines/train_ensemble.py", *named, "--run-dir", str(tmp_path / "run"))
    assert (ended.code, ended.stderr.count("\n")) == (2, 1)
    assert expected.replace("TEACHER", str(tmp_path / "teacher")) in ended.stderr
    assert not (tmp_path / "run").exists()
