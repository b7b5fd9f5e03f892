"""A run directory of an earlier version resumes: old_run/ was written by commit 06bc304, before the wings.

It holds two replicas of two epochs on images that no longer exist. Pictures, logs, and all checkpoints except that of
replica 1 after its first epoch have been removed.
"""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from pipelines.run.directory import read_recipe
from pipelines.run.storage import Storage
from pipelines.train_ensemble import Arguments, run_job
from pipelines.training.replica import train_replica
from pipelines.training.task import ReplicaTask

OLD = Path(__file__).parent / "old_run"
IMAGES = 6
WEIGHTS = "replicas/{}/weights.safetensors"
pytestmark = pytest.mark.timeout(200)


@pytest.fixture
def old_run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "run"))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.usefixtures("store_beside", "no_pictures")
def test_a_finished_run_is_left_as_it_is(ray_cluster: str, old_run: Path) -> None:
    recipe = read_recipe(Storage.at(str(old_run)))
    assert run_job(Arguments(recipe, str(old_run), models="none")) == 0
    for kept in (WEIGHTS.format(0), WEIGHTS.format(1), "predictions/000000.parquet", "dataset/manifest.json"):
        assert digest(old_run / kept) == digest(OLD / kept)
    report, before = (json.loads((run / "report/report.json").read_text()) for run in (old_run, OLD))
    for now, then in zip(report["table"], before["table"], strict=True):
        # Top-5 errors of three classes are all 0, of which an earlier version gave an interval of no width.
        assert then.pop("top5_ci95") == [0, 0]
        assert now.pop("top5_ci95") == [0, pytest.approx(100 * (1 - 0.025 ** (1 / IMAGES)))]
        # An earlier version did not count equal views once.
        computed = now.pop("computed_passes")
        assert computed <= now["forward_passes"] if now["crops"] == 144 else computed == now["forward_passes"]
        assert now == then
    # From now on the run is bound to its images.
    images = json.loads((OLD / "dataset/manifest.json").read_text())["digest"]
    assert report["run"] == {**before["run"], "images": images}


def test_a_replica_goes_on_from_its_old_checkpoint(old_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (old_run / WEIGHTS.format(1)).unlink()
    monkeypatch.setattr("pipelines.training.replica.use_own_cpus", lambda: None)
    run = Storage.at(str(old_run))
    train_replica(ReplicaTask(run, read_recipe(run), 1))
    steps = "replicas/1/steps/00000.jsonl"
    assert digest(old_run / steps) == digest(OLD / steps)  # the first epoch's steps were not trained again
    metrics = (old_run / "replicas/1/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in metrics] == [2, 4]
    # Another CPU may round differently; after the first epoch's steps alone, the difference would be larger.
    weights, wanted = (safetensors.numpy.load_file(run / WEIGHTS.format(1)) for run in (old_run, OLD))
    assert weights.keys() == wanted.keys()
    for name, tensor in wanted.items():
        np.testing.assert_allclose(weights[name], tensor, atol=1e-4, err_msg=name)
