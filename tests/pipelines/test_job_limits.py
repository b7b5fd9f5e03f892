"""A job that reaches a limit: checkpoints are kept, finished replicas are evaluated, and a larger limit continues."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from googlenet.network.arithmetic import FP32
from pipelines.job.limits import Limits
from pipelines.job.nodes import NodesMissingError
from pipelines.run.claims import claim
from pipelines.run.directory import finished_replicas
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.train_ensemble import LIMIT_EXIT_CODE, run_job
from pipelines.training.checkpoints import newest_step
from pipelines.training.resources import Resources
from pipelines.training.scheduler import train_replicas
from pipelines.training.validation_plan import ValidationPlan
from tests.pipelines.jobs import arguments, report_of
from tests.prepared import training_here, trying_here

pytestmark = pytest.mark.timeout(300)
EPOCHS, STEPS_PER_EPOCH = 24, 3


def jobs_of(folder: Path) -> list[dict[str, Any]]:
    """The records of a run's jobs, the newest last; their names have whole seconds, in which two jobs may begin."""
    files = sorted((folder / "jobs").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(path.read_text()) for path in files]


@pytest.mark.usefixtures("store_beside")
def test_at_a_limit_replicas_write_checkpoints_finished_ones_are_evaluated_and_without_it_the_run_is_completed(
    ray_cluster: str, predictions_here: None, tiny_recipe: Recipe, tmp_path: Path, prepared_run: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("pipelines.training.scheduler.POLL_SECONDS", 0.1)  # the replica is stopped after fewer epochs
    folder = Path(shutil.copytree(prepared_run, tmp_path / "run"))
    run, recipe = Storage.at(str(folder)), replace(tiny_recipe, replicas=2, epochs=EPOCHS, policies=(1,))
    claim(run, "recipe", recipe.to_dict())
    one_at_a_time = Resources(parallel_replicas=1, validation=ValidationPlan(every_epochs=EPOCHS))

    def why_stop() -> str:
        return "the money is spent" if (folder / "replicas/1/metrics.jsonl").exists() else ""

    assert train_replicas(run, recipe, one_at_a_time, FP32, lambda _: None, why_stop) == []
    assert finished_replicas(run, 2) == [0]
    step = newest_step(run.below("replicas/1/checkpoints"))
    assert 0 < step < EPOCHS * STEPS_PER_EPOCH
    printed = capsys.readouterr().out
    assert (
        f"replica 1: the money is spent; it wrote a checkpoint of step {step} and will continue from there" in printed
    )

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
