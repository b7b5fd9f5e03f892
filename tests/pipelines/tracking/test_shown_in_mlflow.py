"""Contents of MLflow's runs: errors, report, note, data set and parameters as MLflow's pages show them."""

import dataclasses
import json
import re
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
from mlflow import MlflowClient

from pipelines.report import temperatures
from pipelines.report.write import write_report
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.tracking.store import page_of_experiment
from tests.pipelines.report.made_runs import NOISY, answers, ensemble_of, predict_as
from tests.pipelines.tracking.followed_runs import (
    JOB,
    copy_result,
    follow,
    runs_of,
    store_of,
    write_load,
)

pytestmark = pytest.mark.timeout(120)


def test_the_parent_holds_the_tables_cells_the_report_and_a_note_that_fits(run: Storage, reported_run: Path) -> None:
    copy_result(reported_run, run)
    follow(run, store_of(run), {0: "done", 1: "done"}, succeeded=True)
    parent = runs_of(store_of(run))["ensemble"]
    metrics = parent.data.metrics
    # Replica 0 is wrong on one image of six, replica 1 on three, their average on one.
    assert metrics["top1_error/1x1"] == 33.333
    assert metrics["top1_error/2x144"] == 16.667
    assert {f"top5_error/{models}x{crops}" for models in (1, 2) for crops in (1, 10, 144)} < metrics.keys()
    assert {"brier_score/2x144", "evaluation/predictor_seconds"} < metrics.keys()
    note = parent.data.tags["mlflow.note.content"]
    assert "2 models with 144 crops err on 16.7 % (0.0 to 50.0) of 6 images" in note
    # A table in Markdown, surrounded by empty lines, and none of top-5 errors of seven classes.
    table = next(section for section in note.split("\n\n") if section.startswith("| top-1 error"))
    assert [line.count("|") for line in table.splitlines()] == [5, 5, 5, 5]
    assert "top-5" not in note
    assert "6 validation images of 7 classes: a, b, c" in note
    assert len(note) < 8000
    [train, val] = parent.inputs.dataset_inputs
    assert (train.tags[0].value, val.tags[0].value) == ("training", "evaluation")
    assert json.loads(val.dataset.profile)["images"] == 6
    client = MlflowClient(store_of(run))
    artifacts = client.list_artifacts(parent.info.run_id, "report")
    assert {artifact.path for artifact in artifacts} == {f"report/{name}" for name in run.files("report")}
    page = Path(client.download_artifacts(parent.info.run_id, "report/report.md")).read_text()
    pictures = re.findall(r"!\[[^]]*\]\(([^)]*)\)", page)
    assert f"http:get-artifact?path=report%2Fviews.png&run_uuid={parent.info.run_id}" in pictures
    assert all(picture.startswith("http:get-artifact?") for picture in pictures)


def test_the_parent_holds_how_sure_the_answers_are_under_the_documented_names(
    run: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble = ensemble_of(3)
    predict_as(run, answers(*NOISY), ensemble)
    monkeypatch.setattr(temperatures, "FEWEST_IMAGES", 6)
    write_report(run, ensemble, with_pictures=False)
    report = run.read_json("report/report.json")
    [row] = (row for row in report["temperatures"] if (row["models"], row["policy"]) == (3, "144"))
    [sets] = (row for row in report["prediction_sets"] if row["coverage"] == 0.95)
    [entropy] = (row for row in report["selective"] if row["measure"] == "entropy")
    expected = {
        "temperature/3x144": row["temperature"],
        "set_coverage/0.95": sets["empirical_coverage"],
        "set_size/0.95": sets["mean_size"],
        "area_under_risk/entropy": entropy["area"],
    }
    for score in ("negative_log_likelihood", "brier_score", "expected_calibration_error"):
        assert row[score]["before"] != pytest.approx(row[score]["after"], abs=1e-3)
        expected |= {f"{score}/3x144": row[score]["before"], f"{score}/3x144/calibrated": row[score]["after"]}
    follow(run, store_of(run), {0: "done", 1: "done"}, succeeded=True)
    metrics = runs_of(store_of(run))["ensemble"].data.metrics
    assert {name: metrics.get(name) for name in expected} == pytest.approx(expected, abs=1e-3)


def test_the_list_of_runs_shows_errors_data_set_and_images(run: Storage, reported_run: Path) -> None:
    copy_result(reported_run, run)
    follow(run, store_of(run), {0: "done", 1: "done"}, succeeded=True)
    [(_, key)] = parse_qsl(page_of_experiment(store_of(run)).partition("&")[2])
    experiment = MlflowClient(store_of(run)).get_experiment_by_name("googlenet-ensemble")
    columns = json.loads(experiment.tags[f"mlflow.sharedViewState.{key}"])["selectedColumns"]
    parent = runs_of(store_of(run))["ensemble"].data
    shown = {}
    for column in columns:
        kind, _, name = column.replace("`", "").partition(".")
        shown[name] = getattr(parent, kind)[name]
    expected = {"top1_error/2x144": 16.667, "top1_error/1x1": 33.333, "val_images": "6", "classes": "7"}
    assert shown.items() >= expected.items()
    assert "dataset" in shown


def test_a_failure_that_is_mended_is_not_told_any_more(run: Storage) -> None:
    run.write("replicas/1/failure.txt", b"ValueError: no")
    follow(run, store_of(run), {0: "done", 1: "failed"}, succeeded=False)
    assert runs_of(store_of(run))["replica_1"].data.tags["failure"] == "ValueError: no"
    run.delete("replicas/1/failure.txt")
    follow(run, store_of(run), {0: "done", 1: "done"}, succeeded=False)
    assert "failure" not in runs_of(store_of(run))["replica_1"].data.tags


def test_parameters_are_fields_of_the_recipe_and_the_error_is_the_first_metric(
    run: Storage, reported_run: Path
) -> None:
    copy_result(reported_run, run)
    run.write_json("jobs/1.json", {**JOB, "stage_seconds": {"train": 5.0}})
    write_load(run, "system", "head", 2)
    follow(run, store_of(run), {0: "done", 1: "done"}, succeeded=True)
    found = runs_of(store_of(run))
    fields = {field.name for field in dataclasses.fields(Recipe)}
    for role in ("ensemble", "replica_0"):
        assert found[role].data.params.keys() <= fields
    data = found["ensemble"].data
    assert data.params.keys() == fields - {"name"}
    assert data.tags["dataset_digest"] == "digest"
    # MLflow opens a comparison of runs with the metric that they had first.
    assert next(iter(data.metrics)) == "top1_error/2x144"
    assert {"stage_seconds/train", "system/head/system_memory_usage_percentage"} < data.metrics.keys()
