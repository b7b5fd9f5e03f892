"""A job that reaches a limit: checkpoints are kept, finished replicas are evaluated, and a larger limit continues."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.job.limits import Limits
from pipelines.job.nodes import NodesMissingError
from pipelines.run.claims import claim
from pipelines.run.directory import finished_replicas
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.train_ensemble import LIMIT_EXIT_CODE, run_job
from pipelines.training.checkpoints import newest_step
from pipelines.training.replica import train_replica
from pipelines.training.task import ReplicaTask
from tests.pipelines.jobs import arguments, report_of
from tests.pipelines.training.interrupted import Killed, interrupt_after
from tests.prepared import training_here, trying_here

pytestmark = pytest.mark.timeout(300)
EPOCHS, STEPS_PER_EPOCH = 2, 3


def jobs_of(folder: Path) -> list[dict[str, Any]]:
    """The records of a run's jobs, the newest last; their names have whole seconds, in which two jobs may begin."""
    files = sorted((folder / "jobs").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(path.read_text()) for path in files]


@pytest.mark.usefixtures("store_beside")
def test_at_a_limit_finished_replicas_are_evaluated_and_without_it_the_run_is_completed(
    ray_cluster: str, predictions_here: None, tiny_recipe: Recipe, tmp_path: Path, prepared_run: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder = Path(shutil.copytree(prepared_run, tmp_path / "run"))
    run, recipe = Storage.at(str(folder)), replace(tiny_recipe, replicas=2, epochs=EPOCHS, policies=(1,))
    claim(run, "recipe", recipe.to_dict())
    # As a stop leaves it, of which test_changing_cluster.py has one: a finished replica, and one with a checkpoint.
    train_replica(ReplicaTask(run, recipe, 0))
    with monkeypatch.context() as patched, pytest.raises(Killed):
        interrupt_after(patched, STEPS_PER_EPOCH + 1)
        train_replica(ReplicaTask(run, recipe, 1))
    assert finished_replicas(run, 2) == [0]
    assert newest_step(run.below("replicas/1/checkpoints")) == STEPS_PER_EPOCH
    capsys.readouterr()

    assert run_job(arguments(folder, recipe, limits=Limits(max_hours=1e-9))) == LIMIT_EXIT_CODE
    printed = capsys.readouterr().out
    assert "stopped at --max-hours 1e-09: the jobs of this run have used " in printed
    assert "1 of 2 replicas finished, the others keep their checkpoints. To go on, run the same command" in printed
    assert [row["models"] for row in report_of(folder)["table"]] == [1]
    assert "Only 1 of 2 replicas was evaluated" in (folder / "report/report.md").read_text()

    more = Limits(0.5, max_cost=1000.0)

    def no_node_joins(*_: object) -> None:
        raise NodesMissingError("no node with 1 CPU has joined within 30:00")

    with monkeypatch.context() as patched, pytest.raises(NodesMissingError):
        patched.setattr("pipelines.train_ensemble._estimate", no_node_joins)
        run_job(arguments(folder, recipe, limits=more, models="none"))
    newest = jobs_of(folder)[-1]
    assert newest["outcome"].startswith("NodesMissingError: no node")
    assert newest["usage"]["node_seconds"] >= newest["usage"]["seconds"] >= 0  # the time of such tries counts, too
    with trying_here(), training_here():
        assert run_job(arguments(folder, recipe, limits=more, validate_every_epochs=EPOCHS, models="none")) == 0
    printed = capsys.readouterr().out
    assert " node-hours, cost " in printed.splitlines()[-1]
    assert "; the estimate was " in printed.splitlines()[-1]
    assert [row["models"] for row in report_of(folder)["table"]] == [1, 2]
    jobs = jobs_of(folder)
    assert jobs[-1]["usage"]["cost"] > 0 == jobs[0]["usage"]["cost"]
