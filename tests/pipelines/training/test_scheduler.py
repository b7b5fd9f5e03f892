"""Tests of replicas on a cluster that changes during training, and of replicas with several workers."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

import pipelines.training.scheduler
from googlenet.network.arithmetic import FP32
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training.replica import train_replica
from pipelines.training.resources import Resources
from pipelines.training.scheduler import Tries, _Schedule, train_replicas
from pipelines.training.task import ReplicaTask
from tests.project import ROOT


def prepared(finished_run: Path, run: Path) -> Path:
    """Return a run directory with data and recipe, in which nothing is trained."""
    shutil.copytree(finished_run / "dataset", run / "dataset")
    shutil.copy(finished_run / "run.json", run / "run.json")
    return run


def weights(run: Path, replica: int) -> Path:
    return run / f"replicas/{replica}/weights.safetensors"


def test_a_replica_that_gets_further_is_started_again_without_end_and_one_that_does_not_is_given_up() -> None:
    tries = Tries(most=2)
    assert [tries.has_another(0, step) for step in range(0, 100, 10)] == [True] * 10
    assert [tries.has_another(0, 90) for _ in range(3)] == [True, False, False]
    assert tries.has_another(1, 0)
    assert not Tries(most=0).has_another(0, 10)


def test_a_cluster_that_holds_nothing_for_a_while_is_told_of_once(
    ray_cluster: str, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Storage.at(str(tmp_path))
    grows = _Schedule(run, tiny_recipe, Resources(64, parallel_replicas=2), FP32, [])
    assert grows.unplaced() == []  # not yet
    monkeypatch.setattr(pipelines.training.scheduler, "UNPLACED_SECONDS", 0.0)
    assert grows.unplaced() == ["warning: the cluster cannot hold a replica (workers of 64 CPU); waiting until it can"]
    assert grows.unplaced() == []
    assert _Schedule(run, tiny_recipe, Resources(), FP32, []).unplaced() == []


@pytest.mark.timeout(300)
def test_the_window_follows_the_cluster_and_a_node_that_dies_costs_nothing(finished_run: Path, tmp_path: Path) -> None:
    run = prepared(finished_run, tmp_path / "run")
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, "-m", "tests.pipelines.training.changing_cluster", str(run)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    found = json.loads(done.stdout.strip().splitlines()[-1]) if done.returncode == 0 else done.stderr
    assert found["failures"] == [], found
    # One replica at once with one accelerator, two with two.
    assert found["at_once"]["one"] == 1
    assert found["at_once"]["both"] == 2
    for replica in range(3):
        assert weights(run, replica).read_bytes() == weights(finished_run, replica).read_bytes()


@pytest.mark.timeout(300)
def test_a_replica_of_two_workers_learns_what_one_does(
    ray_cluster: str, finished_run: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    recipe = replace(tiny_recipe, replicas=1, variant="paper", batch_size=10)  # 24 images: 10, 10, 4
    runs = [prepared(finished_run, tmp_path / name) for name in ("alone", "together")]
    train_replica(ReplicaTask(Storage.at(str(runs[0])), recipe, 0))
    together = replace(recipe, workers_per_replica=2)
    assert train_replicas(Storage.at(str(runs[1])), together, Resources(0.5), FP32, lambda _: None) == []
    ends = [
        (
            safetensors.torch.load_file(weights(run, 0)),
            json.loads((run / "replicas/0/metrics.jsonl").read_text().splitlines()[-1]),
        )
        for run in runs
    ]
    (alone, line_alone), (shared, line_shared) = ends
    for name, expected in alone.items():
        torch.testing.assert_close(shared[name], expected, rtol=1e-4, atol=1e-5, msg=name)
    assert line_shared["val_top1_error"] == line_alone["val_top1_error"]
    assert line_shared["train_loss_logits"] == pytest.approx(line_alone["train_loss_logits"], rel=1e-4)


@pytest.mark.timeout(300)
def test_an_elastic_replica_trains_with_the_workers_there_are(
    ray_cluster: str, finished_run: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    recipe = replace(
        tiny_recipe, replicas=1, variant="paper", epochs=1, workers_per_replica=3, min_workers_per_replica=1
    )
    run = prepared(finished_run, tmp_path / "run")
    assert train_replicas(Storage.at(str(run)), recipe, Resources(1.0), FP32, lambda _: None) == []
    assert weights(run, 0).exists()
