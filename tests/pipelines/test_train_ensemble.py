"""Tests of the main job on a small Ray cluster: results, repetition, resumption and failures."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image

from googlenet.evaluation.crops import box_of, scales_px, views_of
from googlenet.evaluation.views import cut_views
from googlenet.images.scaled_image import scale_image
from googlenet.network.weight_files import load_weights
from pipelines.errors import UserError
from pipelines.run.claims import claim
from pipelines.run.directory import ReplicaFiles
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.train_ensemble import run_job
from tests.pipelines.jobs import arguments, report_of
from tests.prepared import ESTIMATE_SECONDS, prepare_here


def single_process_probabilities(run: Path, photos: Path, crop: int) -> dict[str, np.ndarray]:
    """Return (K, 3, C) for every validation image, from the files alone: each of the 144 views one by one, no Ray."""
    networks = [load_weights(run / f"replicas/{k}/weights.safetensors") for k in range(3)]
    found = {}
    for path in sorted((photos / "val").rglob("*.jpg")):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        views = views_of(144, crop)
        boxes = [box_of(view, pixels.shape[1], pixels.shape[0], crop) for view in views]
        images = cut_views(scale_image(pixels, scales_px(crop)), boxes, crop)
        by_replica = []
        for network in networks:
            with torch.no_grad():
                outputs = network.model(network.preprocessing(images)).logits.softmax(dim=1).numpy()
            by_policy = [[outputs[views.index(view)] for view in views_of(n, crop)] for n in (1, 10, 144)]
            by_replica.append([np.mean(chosen, axis=0) for chosen in by_policy])
        found[str(path.relative_to(photos))] = np.array(by_replica)
    return found


@pytest.mark.timeout(300)
def test_the_sharded_evaluation_equals_a_single_process(
    finished_run: Path, photo_folder: Path, tiny_recipe: Recipe
) -> None:
    expected = single_process_probabilities(finished_run, photo_folder, tiny_recipe.crop_px)
    assert len(expected) == 42
    rows = [
        row for f in sorted((finished_run / "predictions").glob("*.parquet")) for row in pq.read_table(f).to_pylist()
    ]
    assert sorted(row["image_id"] for row in rows) == sorted(expected)
    for row in rows:
        assert row["views"] == [1, 10, 144] * 3
        found = [[row[f"replica_{k}/{n}_crops"] for n in (1, 10, 144)] for k in range(3)]
        assert np.abs(np.array(found) - expected[row["image_id"]]).max() < 1e-5

    table = {(row["models"], row["crops"]): row for row in report_of(finished_run)["table"]}
    assert set(table) == {(models, crops) for models in (1, 2, 3) for crops in (1, 10, 144)}
    labels = {name: int(name.split("class_")[1][0]) for name in expected}
    whole = [expected[name][:, 2].mean(axis=0).argmax() != label for name, label in labels.items()]
    assert table[3, 144]["top1_error"] == pytest.approx(100 * np.mean(whole))
    singles = [[expected[name][k, 0].argmax() != label for name, label in labels.items()] for k in range(3)]
    assert table[1, 1]["top1_error"] == pytest.approx(100 * np.mean(singles))


@pytest.mark.timeout(300)
def test_mlflow_holds_a_parent_with_a_child_for_each_replica(finished_run: Path, tiny_recipe: Recipe) -> None:
    client = MlflowClient(f"sqlite:///{finished_run.parent}/mlflow.db")
    experiment = client.get_experiment_by_name("googlenet-ensemble")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(runs) == ["finished", "replica_0", "replica_1", "replica_2"]
    parent = runs.pop("finished")
    assert parent.info.status == "FINISHED"
    assert parent.data.params["batch_size"] == str(tiny_recipe.batch_size)
    cells = {
        f"top1_error/{row['models']}x{row['crops']}": row["top1_error"] for row in report_of(finished_run)["table"]
    }
    assert {name: parent.data.metrics[name] for name in cells} == pytest.approx(cells, abs=1e-3)
    artifacts = {f.path for f in client.list_artifacts(parent.info.run_id, "report")}
    assert artifacts == {f"report/{path.name}" for path in (finished_run / "report").iterdir()}
    assert {"report/report.json", "report/report.md", "report/reliability.png"} <= artifacts
    for replica in range(3):
        child = runs[f"replica_{replica}"]
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.info.status == "FINISHED"
        assert child.data.params["sampling_seed"] == str(replica)
        logged = client.get_metric_history(child.info.run_id, "val_top1_error")
        lines = (finished_run / f"replicas/{replica}/metrics.jsonl").read_text().splitlines()
        expected = {line["epoch"]: line["val_top1_error"] for line in map(json.loads, lines)}
        assert {m.step: m.value for m in logged} == pytest.approx(expected, abs=1e-3)
        logged = client.get_metric_history(child.info.run_id, "step/loss_logits")
        assert [m.step for m in logged] == [1, 2, 3, 4, 5, 6]
        assert all(m.value > 0 for m in client.get_metric_history(child.info.run_id, "step/gradient_norm"))


@pytest.mark.timeout(300)
def test_a_wrong_folder_does_not_claim_the_run_directory(tiny_recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        run_job(arguments(tmp_path / "run", replace(tiny_recipe, data=str(tmp_path / "nowhere"))))
    assert not (tmp_path / "run").exists()


@pytest.mark.timeout(300)
def test_images_prepared_with_other_options_are_told_before_the_run_is_bound(
    tiny_recipe: Recipe, tmp_path: Path
) -> None:
    run = Storage.at(str(tmp_path))
    prepare_here(run, replace(tiny_recipe, stored_short_side_px=20))
    for dry_run in (False, True):
        with pytest.raises(UserError, match="--stored-short-side-px: was 20, is now None\nGive the same"):
            run_job(arguments(tmp_path, tiny_recipe, dry_run=dry_run))
    assert not (tmp_path / "run.json").exists()


def snapshot(run: Path) -> dict[str, int]:
    kept = [p for f in ("dataset", "replicas", "predictions") for p in (run / f).rglob("*") if p.is_file()]
    return {str(path): path.stat().st_mtime_ns for path in kept}


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("no_pictures")
def test_the_same_command_again_does_nothing_again(finished_run: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    folder = shutil.copytree(finished_run.parent, tmp_path / "copy")  # with its store; the other process reads the run
    run = folder / finished_run.name
    before = snapshot(run)
    assert run_job(arguments(run, tiny_recipe)) == 0
    assert snapshot(run) == before
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("googlenet-ensemble").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 4


@pytest.mark.timeout(300)
def test_another_recipe_on_an_old_run_directory_is_refused_with_what_differs(
    finished_run: Path, tiny_recipe: Recipe
) -> None:
    other = replace(tiny_recipe, epochs=3, learning_rate=0.5)
    for dry_run in (False, True):
        with pytest.raises(UserError, match=r"epochs: was 2, is now 3\n.*learning_rate"):
            run_job(arguments(finished_run, other, dry_run=dry_run))


def test_a_folder_that_holds_something_else_is_not_made_a_run_directory(tiny_recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"is not empty and not a run directory \(thesis.tex, ...\)"):
        run_job(arguments(tmp_path, tiny_recipe))


@pytest.mark.timeout(300)
def test_a_dry_run_tells_the_plan_and_writes_nothing(
    ray_cluster: str, tiny_recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("pipelines.training.trial.ESTIMATE_SECONDS", ESTIMATE_SECONDS)
    assert run_job(arguments(tmp_path / "run", tiny_recipe, dry_run=True)) == 0
    printed = capsys.readouterr().out
    assert re.search(r"plan: 3 replicas of 1 CPU, 1\.\d\d GB memory each, 2 at once, 1 waiting\n", printed)
    assert "data: 24 train, 42 val images of 3 classes, 8 shards\n" in printed
    assert re.search(
        r"training: 6 steps of 8 images for each replica, 0\.\d+ s per step in fp32 and 0\.\d+ s to ", printed
    )
    assert "(with validation, without reading from storage)\n" in printed
    assert "validation: 2 times on 42 images, " in printed
    assert re.search(r"memory: 1\.\d\d GB reserved for a worker, \S+ [MG]B taken by the trial\n", printed)
    # 42 images x 3 replicas x 120 views: a quarter of the 16 images that were looked at is square, with 48 views.
    assert "evaluation: 15,120 forward passes" in printed
    assert not (tmp_path / "run").exists()


@pytest.mark.timeout(300)
def test_a_cluster_that_runs_already_is_asked_for_its_nodes_before_the_images_are_listed(
    ray_cluster: str, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = replace(tiny_recipe, data=str(tmp_path / "nowhere"))
    for address, problem in (("", "nowhere"), (ray_cluster, r"reserves 64 CPU, .* the cluster has 2 CPU in total")):
        monkeypatch.setenv("RAY_ADDRESS", address)
        for dry_run in (False, True):
            with pytest.raises(UserError, match=problem):
                run_job(arguments(tmp_path / "run", elsewhere, cpus_per_worker=64.0, dry_run=dry_run))
    run = Storage.at(str(tmp_path / "run"))
    for replica in range(3):  # nothing is left that needs a place
        run.write(ReplicaFiles(replica).weights, b"")
    claim(run, "recipe", elsewhere.to_dict())
    with pytest.raises(UserError, match="nowhere"):
        run_job(arguments(tmp_path / "run", elsewhere, cpus_per_worker=64.0))


@pytest.mark.timeout(300)
def test_what_no_node_can_hold_is_refused_with_what_there_is(
    ray_cluster: str, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(
        UserError, match=r"reserves 64 CPU, and each worker must fit on one node; the cluster has 2 CPU in total"
    ):
        run_job(arguments(tmp_path / "run", tiny_recipe, cpus_per_worker=64.0, dry_run=True))


@pytest.mark.parametrize("number", [0, 4])
def test_a_number_of_replicas_that_cannot_be_is_refused(tiny_recipe: Recipe, tmp_path: Path, number: int) -> None:
    with pytest.raises(UserError, match=rf"between 1 and the 3 replicas of the recipe, got {number}"):
        run_job(arguments(tmp_path / "run", tiny_recipe, min_replicas=number))
