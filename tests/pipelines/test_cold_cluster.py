"""An evaluation on a cluster that is empty at first, and whose GPUs outnumber its CPUs: it waits, and ends in time."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from googlenet.network.preprocessing import SCRATCH_PREPROCESSING
from googlenet.network.weights import to_safetensors
from pipelines.run.claims import claim
from pipelines.run.directory import ReplicaFiles
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training.network import network_of
from tests.commands import run_python
from tests.prepared import prepare_here

SHARDS = 4  # of 54 images


@pytest.fixture
def untrained(photo_folder: Path, tiny_recipe: Recipe, tmp_path: Path) -> Path:
    """Return a run directory with a replica that has learnt nothing, and more images than three predictors take."""
    photos = shutil.copytree(photo_folder, tmp_path / "photos")
    for path in list(photos.glob("val/*/[0-3].jpg")):
        with Image.open(path) as image:
            image.rotate(180).save(path.with_stem(f"{path.stem}_rotated"))
    recipe = replace(tiny_recipe, data=str(photos), replicas=1, policies=(1,))
    run = Storage.at(str(tmp_path / "run"))
    claim(run, "recipe", recipe.to_dict())
    prepare_here(run, recipe)
    model = network_of(recipe, classes=3)
    run.write(ReplicaFiles(0).weights, to_safetensors(model, model.state_dict(), SCRATCH_PREPROCESSING))
    return tmp_path / "run"


@pytest.mark.processes
@pytest.mark.timeout(300)
def test_predictors_wait_for_gpus_and_leave_cpus_to_those_that_feed_them(untrained: Path) -> None:
    ended = run_python("-m", "tests.pipelines.cold_cluster", str(untrained))
    assert ended.code == 0, ended.stderr
    assert "the nodes hold 0 of 4 predictors, limited by GPU" in ended.stdout
    assert json.loads(ended.stdout.strip().splitlines()[-1]) == {
        "shards_before_a_node_joined": 0,
        "is_running": False,
        "replicas_at_once": 1,  # on three CPUs
    }
    shards = [pq.read_metadata(path).num_rows for path in untrained.glob("predictions/*.parquet")]
    assert (len(shards), sum(shards)) == (SHARDS, 54)
