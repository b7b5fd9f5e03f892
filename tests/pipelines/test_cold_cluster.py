"""An evaluation on a cluster that is empty at first, and whose GPUs outnumber its CPUs: it waits, and ends in time."""

import json
import re
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from googlenet.network.arithmetic import FP32
from googlenet.network.preprocessing import SCRATCH_PREPROCESSING
from googlenet.network.weights import to_safetensors
from pipelines.evaluation.evaluate import _digests_and_memory
from pipelines.evaluation.preflight import FORMAT, Preflight, _key
from pipelines.run.claims import claim
from pipelines.run.dataset import read_manifest
from pipelines.run.directory import PREFLIGHT, ReplicaFiles, read_recipe
from pipelines.run.predictions import EvaluatedEnsemble
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training.network import network_of
from tests.commands import run_python

SHARDS = 3  # of 42 images


def untrained(prepared_run: Path, tiny_recipe: Recipe, folder: Path) -> Path:
    """Make a run directory with a replica that has learnt nothing, and more shards than two predictors take."""
    recipe = replace(tiny_recipe, replicas=1, policies=(1,))
    shutil.copytree(prepared_run, folder)
    run = Storage.at(str(folder))
    claim(run, "recipe", recipe.to_dict())
    model = network_of(recipe, classes=3)
    run.write(ReplicaFiles(0).weights, to_safetensors(model, model.state_dict(), SCRATCH_PREPROCESSING))
    return folder


def keep_a_preflight(run: Storage, recipe: Recipe) -> None:
    """Choose the arithmetic, as an earlier start of the evaluation did."""
    [name], manifest = [ReplicaFiles(0).weights], read_manifest(run)
    digests, _ = _digests_and_memory(run, [name], recipe.crop_px)
    ensemble = EvaluatedEnsemble(
        ("replica_0",), digests, recipe.policies, recipe.crop_px, manifest.classes, manifest.digest, FP32
    )
    chosen = asdict(Preflight(FP32, "little work", 100.0))
    run.write_json(PREFLIGHT, {"key": _key(ensemble, recipe.precision), "format": FORMAT, "preflight": chosen})


@dataclass(frozen=True)
class Evaluated:
    """A run, what its evaluation printed, and what the script saw."""

    run: Path
    printed: str
    seen: dict[str, int]


@pytest.fixture(scope="module")
def evaluated(
    prepared_run: Path, tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Evaluated]:
    """Two runs by what they wait for first; one process, which imports PyTorch and Ray once, evaluates both."""
    folder = tmp_path_factory.mktemp("cold")
    runs = {name: untrained(prepared_run, tiny_recipe, folder / name) for name in ("preflight", "evaluation")}
    chosen = Storage.at(str(runs["evaluation"]))
    keep_a_preflight(chosen, read_recipe(chosen))
    ended = run_python("-m", "tests.pipelines.cold_cluster", *map(str, runs.values()))
    assert ended.code == 0, ended.stderr
    parts = re.split(r"^({.*})$", ended.stdout, flags=re.MULTILINE)
    return {
        name: Evaluated(run, *of_run)
        for (name, run), of_run in zip(
            runs.items(), zip(parts[::2], map(json.loads, parts[1::2]), strict=False), strict=True
        )
    }


@pytest.mark.processes
@pytest.mark.timeout(300)
@pytest.mark.parametrize("waits", ["preflight", "evaluation"])
def test_predictors_wait_for_gpus_and_leave_cpus_to_those_that_feed_them(
    evaluated: dict[str, Evaluated], waits: str
) -> None:
    found = evaluated[waits]
    asked = {"preflight": "1 predictor", "evaluation": "3 predictors"}[waits]
    assert f"the nodes hold 0 of {asked}, limited by GPU" in found.printed
    assert f"the {waits} waits for a node with 1 CPU, 1 GPU" in " ".join(found.printed.split())
    assert found.seen == {
        "shards_before_a_node_joined": 0,
        "is_running": False,
        "replicas_at_once": 1,  # on two CPUs
    }
    shards = [pq.read_metadata(path).num_rows for path in found.run.glob("predictions/*.parquet")]
    assert (len(shards), sum(shards)) == (SHARDS, 42)
