"""Evaluations of other images in MLflow, beside the training run."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines.run.dataset import read_manifest
from pipelines.run.storage import Storage
from pipelines.tracking.evaluation import send_evaluation
from tests.pipelines.report.made_runs import made_run
from tests.pipelines.tracking.followed_runs import copy_result, follow, runs_of, store_of

pytestmark = pytest.mark.timeout(120)


def test_an_evaluation_is_a_run_beside_the_training_run_and_is_sent_once(run: Storage, reported_run: Path) -> None:
    copy_result(reported_run, run)
    follow(run, store_of(run), {0: "done", 1: "done"}, succeeded=True)
    trained = runs_of(store_of(run))["ensemble"].info.run_id  # type: ignore[attr-defined]
    folder = Path(run.root) / "evaluations/other-12345678"
    folder.mkdir(parents=True)
    evaluation = made_run(folder)
    copy_result(reported_run, evaluation)
    for _ in range(2):
        said = send_evaluation(evaluation, run, read_manifest(evaluation), store_of(run))
        assert "the evaluation is in MLflow at" in said
    found = runs_of(store_of(run))  # each role once
    sent = found["evaluation"]
    assert sent.info.status == "FINISHED"  # type: ignore[attr-defined]
    assert sent.data.tags["evaluated_run"] == trained  # type: ignore[attr-defined]
    assert {"dataset", "val_images", "classes"} < sent.data.tags.keys()  # type: ignore[attr-defined]
    assert "mlflow.parentRunId" not in sent.data.tags  # type: ignore[attr-defined]
    assert sent.data.metrics["top1_error/2x144"] == 16.667  # type: ignore[attr-defined]
    assert f"/runs/{trained}?" in sent.data.tags["mlflow.note.content"]  # type: ignore[attr-defined]
    files = MlflowClient(store_of(run)).list_artifacts(sent.info.run_id, "report")  # type: ignore[attr-defined]
    assert {file.path for file in files} == {f"report/{name}" for name in evaluation.files("report")}
    # The training run is found as before.
    follow(run, store_of(run), {0: "done", 1: "done"}, succeeded=True)
    assert runs_of(store_of(run))["ensemble"].info.run_id == trained  # type: ignore[attr-defined]


def test_a_server_that_is_away_is_told_and_costs_nothing_else(run: Storage, reported_run: Path) -> None:
    copy_result(reported_run, run)
    said = send_evaluation(run, run, read_manifest(run), "http://127.0.0.1:9")
    assert said.startswith("warning: not in MLflow at http://127.0.0.1:9")
    assert "run the same command again to send it" in said
