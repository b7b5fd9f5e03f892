"""The main job on a small Ray cluster: complete, repeatable, resumable, and honest about failures."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
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
from pipelines.run.recipe import Recipe
from pipelines.train_ensemble import Arguments, run_job
from tests.project import ROOT
from tests.servers import ray_processes


def arguments(run: Path, recipe: Recipe, **options: object) -> Arguments:
    return Arguments(fields=recipe, run_dir=str(run), **options)  # type: ignore[arg-type]


def report_of(run: Path) -> dict[str, list[dict[str, float]]]:
    report: dict[str, list[dict[str, float]]] = json.loads((run / "report/report.json").read_text())
    return report


def single_process_probabilities(run: Path, photos: Path, crop: int) -> dict[str, np.ndarray]:
    """For every validation image (K, 3, C), from the files alone: each of the 144 views one by one, no Ray."""
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
    assert cells.items() <= parent.data.metrics.items()
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
        assert [(m.step, m.value) for m in logged] == [
            (line["epoch"], line["val_top1_error"]) for line in map(json.loads, lines)
        ]
        logged = client.get_metric_history(child.info.run_id, "step/loss_logits")
        assert [m.step for m in logged] == [1, 2, 3, 4, 5, 6]
        assert all(m.value > 0 for m in client.get_metric_history(child.info.run_id, "step/gradient_norm"))


@pytest.mark.timeout(300)
def test_a_wrong_folder_does_not_claim_the_run_directory(tiny_recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        run_job(arguments(tmp_path / "run", replace(tiny_recipe, data=str(tmp_path / "nowhere"))))
    assert not (tmp_path / "run").exists()


def snapshot(run: Path) -> dict[str, int]:
    kept = [p for f in ("dataset", "replicas", "predictions") for p in (run / f).rglob("*") if p.is_file()]
    return {str(path): path.stat().st_mtime_ns for path in kept}


@pytest.mark.timeout(300)
def test_the_same_command_again_does_nothing_again(finished_run: Path, tiny_recipe: Recipe) -> None:
    before = snapshot(finished_run)
    assert run_job(arguments(finished_run, tiny_recipe)) == 0
    assert snapshot(finished_run) == before
    client = MlflowClient(f"sqlite:///{finished_run.parent}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("googlenet-ensemble").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 4


@pytest.mark.timeout(300)
def test_another_recipe_on_an_old_run_directory_is_refused_with_what_differs(
    finished_run: Path, tiny_recipe: Recipe
) -> None:
    other = replace(tiny_recipe, epochs=3, learning_rate=0.5)
    for dry_run in (False, True):
        with pytest.raises(UserError, match=r"epochs: 2 there, 3 now\n.*learning_rate"):
            run_job(arguments(finished_run, other, dry_run=dry_run))


def test_a_folder_that_holds_something_else_is_not_made_a_run_directory(tiny_recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"is not empty and holds no run \(thesis.tex, ...\)"):
        run_job(arguments(tmp_path, tiny_recipe))


@pytest.mark.timeout(300)
def test_a_replica_that_always_fails_leaves_the_others_whole(
    ray_cluster: str, tiny_recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str], finished_run: Path
) -> None:
    run = tmp_path / "run"
    (run / "replicas").mkdir(parents=True)
    blocker = run / "replicas/1"
    blocker.write_text("a file where the replica's folder has to be")
    assert run_job(arguments(run, tiny_recipe, max_failures=0)) == 1
    printed = capsys.readouterr().out
    assert "replica 1 failed" in printed
    assert "Traceback" in printed
    for replica in (0, 2):
        ours, reference = (r / f"replicas/{replica}/weights.safetensors" for r in (run, finished_run))
        assert ours.read_bytes() == reference.read_bytes()
    assert not (run / "report").exists()
    assert run_job(arguments(run, tiny_recipe, max_failures=0, min_replicas=2, models="ensemble")) == 0
    assert "Only 2 of 3 replicas: replica_0, replica_2." in (run / "report/report.md").read_text()
    assert [row["models"] for row in report_of(run)["table"]] == [1, 1, 1, 2, 2, 2]
    blocker.unlink()
    assert run_job(arguments(run, tiny_recipe, models="none")) == 0
    assert report_of(run)["table"] == report_of(finished_run)["table"]


@pytest.mark.timeout(300)
def test_a_dry_run_tells_the_plan_and_writes_nothing(
    ray_cluster: str, tiny_recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_job(arguments(tmp_path / "run", tiny_recipe, dry_run=True)) == 0
    printed = capsys.readouterr().out
    assert "plan: 3 replicas of 1 CPU each, 2 at once, 1 wait\n" in printed
    assert "data: 24 train, 42 val images of 3 classes, 8 shards\n" in printed
    assert re.search(r"training: 6 steps of 8 images for each replica, 0\.\d+ s a step in fp32, about ", printed)
    assert "(reading images and start-up apart)\n" in printed
    assert "evaluation: 18,144 forward passes" in printed  # 42 images x 144 views x 3 replicas
    assert not (tmp_path / "run").exists()


@pytest.mark.timeout(300)
def test_what_no_node_can_hold_is_refused_with_what_there_is(
    ray_cluster: str, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"reserves 64 CPU, each worker's on one node; the whole cluster has 2 CPU"):
        run_job(arguments(tmp_path / "run", tiny_recipe, cpus_per_worker=64.0, dry_run=True))


@pytest.mark.parametrize("number", [0, 4])
def test_a_number_of_replicas_that_cannot_be_is_refused(tiny_recipe: Recipe, tmp_path: Path, number: int) -> None:
    with pytest.raises(UserError, match=rf"between 1 and the 3 replicas of the recipe, got {number}"):
        run_job(arguments(tmp_path / "run", tiny_recipe, min_replicas=number))


@pytest.mark.timeout(300)
def test_a_worker_killed_in_training_is_replaced_and_changes_nothing(
    ray_cluster: str, tiny_recipe: Recipe, tmp_path: Path, finished_run: Path
) -> None:
    run = tmp_path / "run"
    killed: list[int] = []

    def kill_a_worker() -> None:
        while not list(run.glob("replicas/*/metrics.jsonl")):  # an epoch is done, its checkpoint is stored
            time.sleep(0.02)
        worker = next(ray_processes(ray_cluster, "ray::RayTrainWorker"))
        worker.kill()
        killed.append(worker.pid)

    killer = threading.Thread(target=kill_a_worker, daemon=True)
    killer.start()
    pair = replace(tiny_recipe, replicas=2)
    assert run_job(arguments(run, pair, max_failures=2, models="none")) == 0
    killer.join(timeout=1)
    assert len(killed) == 1
    for replica in range(2):
        ours, reference = (r / f"replicas/{replica}/weights.safetensors" for r in (run, finished_run))
        assert ours.read_bytes() == reference.read_bytes()


@pytest.mark.timeout(300)
def test_a_replica_alone_ends_with_the_same_weights_as_among_others(
    ray_cluster: str, tiny_recipe: Recipe, tmp_path: Path, finished_run: Path
) -> None:
    alone = replace(tiny_recipe, replicas=1, sampling_seed=1, policies=(1,))
    assert run_job(arguments(tmp_path / "run", alone, models="none")) == 0
    ours, reference = (
        load_weights(r)
        for r in (tmp_path / "run/replicas/0/weights.safetensors", finished_run / "replicas/1/weights.safetensors")
    )
    expected = reference.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in ours.model.state_dict().items())


@pytest.mark.timeout(300)
def test_a_replica_that_only_guesses_is_stopped_with_the_name_of_the_head(
    ray_cluster: str, tiny_recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    still = replace(tiny_recipe, replicas=1, learning_rate=1e-12, dead_head_epochs=1.0, on_dead_head="stop")
    assert run_job(arguments(tmp_path / "run", still)) == 1
    printed = capsys.readouterr().out
    assert "head logits has learned nothing by step 3" in printed
    assert "guessing is ln(3) = 1.099" in printed


@pytest.mark.timeout(300)
def test_training_starts_from_weights_of_another_run(
    ray_cluster: str, tiny_recipe: Recipe, tmp_path: Path, finished_run: Path
) -> None:
    """At a rate of nearly nothing the weights stay what they were."""
    weights = finished_run / "replicas/0/weights.safetensors"
    still = replace(tiny_recipe, replicas=1, epochs=1, learning_rate=1e-12, variant="bn", init_weights=str(weights))
    run, still = tmp_path / "run", replace(still, aux_heads=False, policies=(1,))
    assert run_job(arguments(run, still, models="none")) == 0
    before, after = (
        load_weights(path).model.state_dict() for path in (weights, run / "replicas/0/weights.safetensors")
    )
    for name in before:
        if "running" not in name and "num_batches" not in name:  # statistics follow the images, whatever the rate
            assert torch.allclose(before[name], after[name], atol=1e-6), name
    weights_copy = tmp_path / "other.safetensors"
    weights_copy.write_bytes((finished_run / "replicas/1/weights.safetensors").read_bytes())
    with pytest.raises(UserError, match="init_weights"):
        run_job(arguments(run, replace(still, init_weights=str(weights_copy))))


def start(command: list[str], address: str, log: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "RAY_ADDRESS": address, "RAY_AUTH_MODE": "disabled"}
    return subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=environment, stdout=log.open("wb"), stderr=subprocess.STDOUT
    )


def kill_when(process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path, seconds: float = 120) -> None:
    """SIGKILL as soon as ``ready``; a process that ends before has not been interrupted, and fails the test."""
    deadline = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.timeout(300)
def test_a_job_killed_in_training_is_completed_with_the_same_result(
    ray_cluster: str, tiny_recipe: Recipe, tmp_path: Path, finished_run: Path
) -> None:
    run, log, recipe_file = tmp_path / "run", tmp_path / "log", tmp_path / "recipe.json"
    recipe_file.write_text(json.dumps(tiny_recipe.to_dict()))
    job = start(["pipelines/train_ensemble.py", "--recipe", str(recipe_file), "--run-dir", str(run)], ray_cluster, log)
    kill_when(job, lambda: bool(list(run.glob("replicas/*/metrics.jsonl"))), log)
    assert not (run / "report").exists()
    assert run_job(arguments(run, tiny_recipe, models="none")) == 0
    for replica in range(3):
        ours, reference = (r / f"replicas/{replica}/weights.safetensors" for r in (run, finished_run))
        assert ours.read_bytes() == reference.read_bytes()
    assert report_of(run)["table"] == report_of(finished_run)["table"]


@pytest.mark.timeout(300)
def test_a_job_killed_in_evaluation_is_completed_with_the_same_result(
    ray_cluster: str, tiny_recipe: Recipe, tmp_path: Path, finished_run: Path
) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    shutil.copytree(finished_run, run)
    shutil.rmtree(run / "predictions")
    shutil.rmtree(run / "report")
    job = start(["pipelines/evaluate_ensemble.py", "--run-dir", str(run)], ray_cluster, log)
    kill_when(job, lambda: bool(list(run.glob("predictions/??????.parquet"))), log)
    time.sleep(2)  # its actors die with it
    done = {path.name: path.stat().st_mtime_ns for path in run.glob("predictions/??????.parquet")}
    assert 0 < len(done) < 3
    assert run_job(arguments(run, tiny_recipe, models="none")) == 0
    after = {path.name: path.stat().st_mtime_ns for path in run.glob("predictions/*")}
    assert len(after) == 3
    assert done.items() <= after.items()  # finished shards were not done again
    assert report_of(run)["table"] == report_of(finished_run)["table"]
