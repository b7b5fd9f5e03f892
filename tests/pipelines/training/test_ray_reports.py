"""Reports of epochs to Ray Train: in its local mode, which needs no cluster, and in the record of a finished run."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import pipelines.training.ray_reports
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training.ray_reports import RayReports
from pipelines.training.task import ReplicaTask
from tests.pages import example

if TYPE_CHECKING:  # importing it takes seconds, also in the pytest process that runs other files
    from ray.train import Result

EPOCHS = 3
NEVER, AT_ONCE = float("inf"), 0.0


def result_of(run: Path, epochs: range, replica: int = 0) -> "Result":
    """What Ray Train has of a worker that was started for replica 0 and reports some epochs of ``replica``."""
    from ray.train import ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    def work() -> None:
        task, reports = ReplicaTask(Storage.at(str(run)), Recipe(epochs=EPOCHS), replica), RayReports(0)
        for epoch in epochs:
            reports.send(task, line(epoch))

    return DataParallelTrainer(work, scaling_config=ScalingConfig(num_workers=0)).fit()


def line(epoch: int) -> dict[str, Any]:
    return {"epoch": epoch, "val_top1_error": 50.0 - epoch}


def test_an_epoch_within_moments_of_the_last_report_is_left_out_and_the_last_epoch_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines.training.ray_reports, "REPORT_SECONDS", NEVER)
    assert result_of(tmp_path, range(1, EPOCHS)).metrics is None
    assert result_of(tmp_path, range(1, EPOCHS + 1)).metrics == {"replica": 0, **line(EPOCHS)}
    monkeypatch.setattr(pipelines.training.ray_reports, "REPORT_SECONDS", AT_ONCE)
    assert result_of(tmp_path, range(1, EPOCHS)).metrics == {"replica": 0, **line(EPOCHS - 1)}


def test_only_the_replica_that_a_worker_was_started_for_has_a_record_which_names_its_checkpoints(
    tmp_path: Path,
) -> None:
    own, later = (result_of(tmp_path, range(EPOCHS, EPOCHS + 1), replica) for replica in (0, 2))
    assert own.checkpoint.path == f"{tmp_path}/replicas/0/checkpoints"
    assert (later.metrics, later.checkpoint) == ({"replica": 2, **line(EPOCHS)}, None)


@pytest.mark.timeout(300)
def test_ray_trains_record_of_a_finished_replica_has_the_metrics_of_its_last_epoch(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray.train
    from ray.train import Result

    record = Result.from_path(str(finished_run / "replicas/0"))
    last = json.loads((finished_run / "replicas/0/metrics.jsonl").read_text().splitlines()[-1])
    assert record.metrics == {"replica": 0, **last}
    assert record.checkpoint.path == str(finished_run / "replicas/0/checkpoints")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/mine").symlink_to(finished_run)
    monkeypatch.chdir(tmp_path)
    asked = example("docs/training.md", "ray.train.Result.from_path(")
    assert eval(asked, {"ray": ray, "os": os}) == record.metrics  # noqa: S307
