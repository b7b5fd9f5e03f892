"""Evaluations of other images in MLflow, beside the training run."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput

from pipelines.report.provenance import evaluated_by
from pipelines.review import Arguments, _store, page_to_open
from pipelines.run.claims import claim
from pipelines.run.dataset import Shard, Split, read_manifest
from pipelines.run.storage import Storage
from pipelines.tracking.dataset import validation_images
from pipelines.tracking.evaluation import _find_or_create, send_evaluation
from pipelines.tracking.model_identity import WEIGHTS_TAG, digest_of
from pipelines.tracking.runs import NOTE, Experiment
from pipelines.tracking.store import tracking_uri_for
from tests.others_files import somebody_elses
from tests.pipelines.report.made_runs import ENSEMBLE, made_run
from tests.pipelines.report.test_provenance import EVALUATION
from tests.pipelines.tracking.followed_runs import copy_result, follow, runs_of, store_of

pytestmark = pytest.mark.timeout(120)


def test_an_evaluation_is_a_run_beside_the_training_run_and_is_sent_once(run: Storage, reported_run: Path) -> None:
    copy_result(reported_run, run)
    follow(run, store_of(run), {0: "done", 1: "done"}, succeeded=True)
    trained = runs_of(store_of(run))["ensemble"].info.run_id
    evaluation = other_images(run, reported_run)
    for _ in range(2):
        said = send_evaluation(evaluation, run, read_manifest(evaluation), store_of(run))
        assert "the evaluation is in MLflow at" in said
    found = runs_of(store_of(run))  # each role once
    sent = found["evaluation"]
    assert sent.info.status == "FINISHED"
    assert sent.data.tags["evaluated_run"] == trained
    assert {"dataset", "val_images", "classes"} < sent.data.tags.keys()
    assert "mlflow.parentRunId" not in sent.data.tags
    assert sent.data.metrics["top1_error/2x144"] == 16.667
    assert f"/runs/{trained}?" in sent.data.tags["mlflow.note.content"]
    files = MlflowClient(store_of(run)).list_artifacts(sent.info.run_id, "report")
    assert {file.path for file in files} == {f"report/{name}" for name in evaluation.files("report")}
    # The training run is found as before.
    follow(run, store_of(run), {0: "done", 1: "done"}, succeeded=True)
    assert runs_of(store_of(run))["ensemble"].info.run_id == trained


def test_the_trained_ensemble_gets_its_errors_on_other_images_which_its_model_is_ranked_by(
    run: Storage, reported_run: Path
) -> None:
    copy_result(reported_run, run)
    follow(run, store_of(run), {0: "done", 1: "done"}, succeeded=True)
    client, trained = MlflowClient(store_of(run)), runs_of(store_of(run))["ensemble"]
    model = client.create_logged_model(
        trained.info.experiment_id,
        "ensemble",
        trained.info.run_id,
        tags={WEIGHTS_TAG: digest_of(ENSEMBLE)},
    )
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(trained.info.run_id, [LoggedModelOutput(model.model_id, 0)])
    # Newer, and without errors on these images: it comes last, but first where nothing ranks them.
    unmeasured = client.create_logged_model(trained.info.experiment_id, "other")
    client.finalize_logged_model(unmeasured.model_id, "READY")
    evaluation = other_images(run, reported_run)
    manifest = read_manifest(evaluation)
    other = replace(manifest, splits={**manifest.splits, "val": Split((Shard("val/00000.parquet", 6, "other"),), {})})
    for _ in range(2):
        send_evaluation(evaluation, run, other, store_of(run))
    by = {"field_name": "metrics.top1_error/144", "dataset_name": validation_images(other)[0]}
    found, last = client.search_logged_models([trained.info.experiment_id], order_by=[by])
    assert (found.model_id, last.model_id) == (model.model_id, unmeasured.model_id)
    measured = [(metric.key, metric.value, metric.dataset_digest) for metric in found.metrics]
    digest = validation_images(other)[1]
    assert ("top1_error/144", 16.667, digest) in measured
    assert len(measured) == len(set(measured))


@pytest.mark.parametrize("is_old", [False, True])
def test_an_evaluation_is_sent_again_when_one_more_replica_was_finished(
    run: Storage, reported_run: Path, is_old: bool
) -> None:
    copy_result(reported_run, run)
    evaluation = other_images(run, reported_run)
    report = evaluation.read_json("report/report.json")
    for replicas in (1, 2):
        fewer = {name: report["ensemble"][name][:replicas] for name in ("replicas", "weights_digests")}
        evaluation.write_json("report/report.json", {**report, "ensemble": {**report["ensemble"], **fewer}})
        said = send_evaluation(evaluation, run, read_manifest(evaluation), store_of(run))
        assert "the evaluation is in MLflow at" in said
        sent = runs_of(store_of(run))["evaluation"]
        assert sent.data.tags["evaluated_replicas"] == str(replicas)
        if is_old:  # earlier versions had a parameter, which keeps its value
            MlflowClient(store_of(run)).log_param(sent.info.run_id, "replicas", 1)


def test_a_note_that_a_user_writes_into_an_evaluation_that_was_not_sent_to_its_end_stays(
    run: Storage, reported_run: Path
) -> None:
    copy_result(reported_run, run)
    evaluation = other_images(run, reported_run)
    manifest = read_manifest(evaluation)
    begun = _find_or_create(evaluation, run, manifest, Experiment(store_of(run)))
    MlflowClient(store_of(run)).set_tag(begun, NOTE, "Photographs from the second camera.")
    assert "the evaluation is in MLflow at" in send_evaluation(evaluation, run, manifest, store_of(run))
    sent = runs_of(store_of(run))["evaluation"]
    assert sent.data.tags[NOTE] == "Photographs from the second camera."


@pytest.mark.parametrize("kind", ["beside", "own", "weights"])
def test_the_printed_command_opens_the_evaluation(
    run: Storage, reported_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """Evaluations within the training run, in a directory of their own, and of weights from other sources."""
    if kind == "beside":
        evaluation = other_images(run, reported_run)
    else:
        evaluation = made_run(tmp_path / "evaluated")
        claim(evaluation, "evaluation", {"run": "1f"} if kind == "own" else {})
        copy_result(reported_run, evaluation)
    manifest, trained = read_manifest(evaluation), evaluation if kind == "weights" else run
    words = ["review.py", "--run-dir", evaluation.root, "--tracking-uri", store_of(run)]
    assert page_to_open(store_of(run), evaluation.root) == page_to_open(store_of(run), "")
    told = capsys.readouterr().out
    assert told.startswith(f"warning: {evaluation} is not in this MLflow store; to send it, run its command again with")
    assert told.endswith(f"--tracking-uri {store_of(run)} and without --no-mlflow\n")
    said = send_evaluation(evaluation, trained, manifest, store_of(run))
    command = shlex.split(said.splitlines()[-1])
    assert [command[2].rpartition("/")[2], *command[3:]] == words
    sent = runs_of(store_of(run))["evaluation"]
    assert f"/runs/{sent.info.run_id}?" in page_to_open(command[-1], command[4])
    assert "warning" not in capsys.readouterr().out


def test_an_evaluation_is_looked_up_in_the_store_that_it_is_sent_to(run: Storage, reported_run: Path) -> None:
    evaluation = other_images(run, reported_run)
    assert _store(Arguments(run_dir=evaluation.root)) == tracking_uri_for(run)
    own = run.below("evaluations/own")
    claim(own, "evaluation", {})  # a directory of its own, wherever it is
    assert tracking_uri_for(own) == f"sqlite:///{run.root}/evaluations/mlflow.db"


def test_what_cannot_send_an_evaluation_is_not_advised(run: Storage, capsys: pytest.CaptureFixture[str]) -> None:
    evaluation = run.below("evaluated")
    claim(evaluation, "evaluation", {})
    page_to_open(store_of(run), evaluation.root)
    evaluation.write("answers/top5.csv", b"image_id")
    page_to_open(store_of(run), evaluation.root)
    beginning = f"warning: {evaluation} is not in this MLflow store"
    assert capsys.readouterr().out.splitlines() == [
        f"{beginning}; it has no report yet: run its command again",
        f"{beginning}; its images have no labels, so it is never sent",
    ]
    with somebody_elses(Path(run.root)) as folder:
        theirs = Storage.at(str(folder))
        page_to_open(store_of(theirs), theirs.below("evaluated").root)
    assert capsys.readouterr().out.endswith(" is not in this MLflow store, which is read-only\n")


def test_an_evaluation_has_its_own_commit_command_and_weights(run: Storage, reported_run: Path) -> None:
    copy_result(reported_run, run)
    report = run.read_json("report/report.json")
    run.write_json("report/report.json", {**report, "evaluated_by": evaluated_by(EVALUATION, ["bvlc"])})
    send_evaluation(run, run, read_manifest(run), store_of(run))
    tags = runs_of(store_of(run))["evaluation"].data.tags
    assert tags["mlflow.source.git.commit"] == EVALUATION["commit"]
    assert tags["command"] == EVALUATION["command"]
    assert (tags["weights"], tags["hardware"], tags["version/python"]) == ("bvlc", "Sixty-four, 1 CPU", "3.12")
    assert f"Weights evaluated in `{run}`: `bvlc`." in tags[NOTE]


def other_images(run: Storage, reported_run: Path) -> Storage:
    """An evaluation of the replicas of ``run``, made by hand."""
    folder = Path(run.root) / "evaluations/other-12345678"
    folder.mkdir(parents=True)
    evaluation = made_run(folder)
    copy_result(reported_run, evaluation)
    return evaluation


def test_a_server_that_is_away_is_told_and_costs_nothing_else(
    run: Storage, reported_run: Path, short_pauses: None
) -> None:
    copy_result(reported_run, run)
    said = send_evaluation(run, run, read_manifest(run), "http://127.0.0.1:9")
    assert said.startswith("warning: not in MLflow at http://127.0.0.1:9")
    assert "run the same command again to send it" in said
