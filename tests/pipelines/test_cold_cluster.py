"""An evaluation on a cluster that is empty at first, and whose GPUs outnumber its CPUs: it waits, and ends in time."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from googlenet.network.preprocessing import SCRATCH_PREPROCESSING
from googlenet.network.weights import to_safetensors
from pipelines.run.claims import claim
from pipelines.run.directory import ReplicaFiles
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training.network import network_of
from tests.commands import run_python

SHARDS = 3  # of 42 images


@pytest.fixture
def untrained(prepared_run: Path, tiny_recipe: Recipe, tmp_path: Path) -> Path:
    """Return a run directory with a replica that has learnt nothing, and more shards than two predictors take."""
    recipe = replace(tiny_recipe, replicas=1, policies=(1,))
    shutil.copytree(prepared_run, tmp_path / "run")
    run = Storage.at(str(tmp_path / "run"))
    claim(run, "recipe", recipe.to_dict())
    model = network_of(recipe, classes=3)
    run.write(ReplicaFiles(0).weights, to_safetensors(model, model.state_dict(), SCRATCH_PREPROCESSING))
    return tmp_path / "run"


@pytest.mark.processes
@pytest.mark.timeout(300)
def test_predictors_wait_for_gpus_and_leave_cpus_to_those_that_feed_them(untrained: Path) -> None:
    ended = run_python("-m", "tests.pipelines.cold_cluster", str(untrained))
    assert ended.code == 0, ended.stderr
    assert "the nodes hold 0 of 3 predictors, limited by GPU" in ended.stdout
    assert json.loads(ended.stdout.strip().splitlines()[-1]) == {
        "shards_before_a_node_joined": 0,
        "is_running": False,
        "replicas_at_once": 1,  # on two CPUs
    }
    shards = [pq.read_metadata(path).num_rows for path in untrained.glob("predictions/*.parquet")]
    assert (len(shards), sum(shards)) == (SHARDS, 42)
