"""Jobs whose replicas fail, whose workers die, and that are killed: reported, resumed, and with the same result."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.run.recipe import Recipe
from pipelines.train_ensemble import run_job
from tests.pipelines.jobs import arguments, report_of
from tests.project import ROOT
from tests.servers import ray_processes


@pytest.mark.timeout(300)
def test_a_replica_that_always_fails_leaves_the_others_whole(
    ray_cluster: str, tiny_recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str], finished_run: Path
) -> None:
    run, recipe = tmp_path / "run", replace(tiny_recipe, policies=(1,))
    (run / "replicas").mkdir(parents=True)
    blocker = run / "replicas/1"
    blocker.write_text("a file where the replica's folder has to be")
    assert run_job(arguments(run, recipe, max_failures=0)) == 1
    printed = capsys.readouterr().out
    assert "replica 1 failed" in printed
    assert "Traceback" in printed
    for replica in (0, 2):
        ours, reference = (r / f"replicas/{replica}/weights.safetensors" for r in (run, finished_run))
        assert ours.read_bytes() == reference.read_bytes()
    assert not (run / "report").exists()
    assert run_job(arguments(run, recipe, max_failures=0, min_replicas=2, models="ensemble")) == 0
    assert "Only 2 of 3 replicas: replica_0, replica_2." in (run / "report/report.md").read_text()
    assert [row["models"] for row in report_of(run)["table"]] == [1, 2]
    blocker.unlink()
    assert run_job(arguments(run, recipe, models="none")) == 0
    whole = [row for row in report_of(finished_run)["table"] if row["crops"] == 1]
    assert [row["top1_error"] for row in report_of(run)["table"]] == [row["top1_error"] for row in whole]


@pytest.mark.timeout(300)
def test_a_worker_killed_in_training_is_replaced_and_changes_nothing(
    ray_cluster: str, tiny_recipe: Recipe, tmp_path: Path, finished_run: Path
) -> None:
    run = tmp_path / "run"
    killed: list[int] = []

    def kill_a_worker() -> None:
        while not list(run.glob("replicas/*/metrics.jsonl")):  # until an epoch is done and its checkpoint is stored
            time.sleep(0.02)
        worker = next(ray_processes(ray_cluster, "ray::RayTrainWorker"))
        worker.kill()
        killed.append(worker.pid)

    killer = threading.Thread(target=kill_a_worker, daemon=True)
    killer.start()
    pair = replace(tiny_recipe, replicas=2, policies=(1,))
    assert run_job(arguments(run, pair, max_failures=2, models="none")) == 0
    killer.join(timeout=1)
    assert len(killed) == 1
    for replica in range(2):
        ours, reference = (r / f"replicas/{replica}/weights.safetensors" for r in (run, finished_run))
        assert ours.read_bytes() == reference.read_bytes()


@pytest.mark.timeout(300)
def test_a_replica_that_only_guesses_is_stopped_with_the_name_of_the_head(
    ray_cluster: str, tiny_recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    still = replace(tiny_recipe, replicas=1, learning_rate=1e-12, dead_head_epochs=1.0, on_dead_head="stop")
    assert run_job(arguments(tmp_path / "run", still)) == 1
    printed = capsys.readouterr().out
    assert "head logits has learned nothing by step 3" in printed
    assert "guessing is ln(3) = 1.099" in printed


def start(command: list[str], address: str, log: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "RAY_ADDRESS": address, "RAY_AUTH_MODE": "disabled"}
    return subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=environment, stdout=log.open("wb"), stderr=subprocess.STDOUT
    )


def kill_when(process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path, seconds: float = 120) -> None:
    """Send SIGKILL as soon as ``ready``; a process that ends earlier was not interrupted, and fails the test."""
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
    pair = replace(tiny_recipe, replicas=2, policies=(1,))
    recipe_file.write_text(json.dumps(pair.to_dict()))
    job = start(["pipelines/train_ensemble.py", "--recipe", str(recipe_file), "--run-dir", str(run)], ray_cluster, log)
    kill_when(job, lambda: bool(list(run.glob("replicas/*/metrics.jsonl"))), log)
    assert not (run / "report").exists()
    assert run_job(arguments(run, pair, models="none")) == 0
    for replica in range(2):
        ours, reference = (r / f"replicas/{replica}/weights.safetensors" for r in (run, finished_run))
        assert ours.read_bytes() == reference.read_bytes()
    assert len(report_of(run)["table"]) == 2


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
    time.sleep(2)  # until its actors have died with it
    done = {path.name: path.stat().st_mtime_ns for path in run.glob("predictions/??????.parquet")}
    assert 0 < len(done) < 3
    assert run_job(arguments(run, tiny_recipe, models="none")) == 0
    after = {path.name: path.stat().st_mtime_ns for path in run.glob("predictions/*")}
    assert len(after) == 3
    assert done.items() <= after.items()  # finished shards were not repeated
    assert report_of(run)["table"] == report_of(finished_run)["table"]
