"""A cluster whose nodes join, are drained and die: a replica of several workers grows and shrinks on it, and nodes that
die in training and in evaluation are not missed.
"""

import json
import shutil
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

import pipelines.training.replica
from googlenet.training.loop import TakenStep
from pipelines.run.claims import claim
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training.checkpoints import Checkpoint, Checkpoints
from pipelines.training.replica import train_replica
from pipelines.training.task import ReplicaTask
from tests.commands import run_python
from tests.pipelines.jobs import report_of

pytestmark = [pytest.mark.apart, pytest.mark.timeout(600)]


class Ended(Exception):  # noqa: N818
    """Ends a training after one step."""


@dataclass(frozen=True)
class Trained:
    """What was seen of the replica that grew and shrank.

    Attributes:
        run: the run directory.
        kept: folder of the checkpoints of all steps.
        recipe: its recipe.
        steps: step and number of workers of each line of the step log.
        printed: what the job printed.
    """

    run: Path
    kept: Path
    recipe: Recipe
    steps: list[tuple[int, int]]
    printed: str


@dataclass(frozen=True)
class Survived:
    """A run directory that was trained and evaluated on nodes that died, and what was seen of that."""

    run: Path
    seen: dict[str, Any]


@pytest.fixture(scope="module")
def both(
    prepared_run: Path, finished_run: Path, tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Trained, Survived]:
    folder = tmp_path_factory.mktemp("changing")
    elastic, kept = Path(shutil.copytree(prepared_run, folder / "elastic")), folder / "kept"
    kept.mkdir()
    several = {"workers_per_replica": 2, "min_workers_per_replica": 1}
    # An epoch is a step, and there are more of them than the test waits for.
    recipe = replace(tiny_recipe, replicas=1, variant="paper", batch_size=24, epochs=100_000, **several)
    claim(Storage.at(str(elastic)), "recipe", recipe.to_dict())
    lost = folder / "lost"
    shutil.copytree(finished_run / "dataset", lost / "dataset")
    shutil.copy(finished_run / "run.json", lost / "run.json")
    shutil.copytree(finished_run / "replicas/2", lost / "replicas/2")  # two replicas suffice for two nodes
    ended = run_python("-m", "tests.pipelines.changing_cluster", str(elastic), str(kept), str(lost), seconds=550)
    assert ended.code == 0, ended.stderr
    seen = json.loads(ended.stdout.strip().splitlines()[-1])
    assert seen["elastic"]["failures"] == []
    assert not seen["lost"]["still_running"], ended.stderr
    steps = [(step, workers) for step, workers in seen["elastic"]["steps"]]
    return Trained(elastic, kept, recipe, steps, ended.stdout), Survived(lost, seen["lost"])


@pytest.fixture(scope="module")
def trained(both: tuple[Trained, Survived]) -> Trained:
    return both[0]


@pytest.fixture(scope="module")
def survived(both: tuple[Trained, Survived]) -> Survived:
    return both[1]


def test_a_replica_grows_and_shrinks_without_doing_a_step_twice(trained: Trained) -> None:
    assert [step for step, _ in trained.steps] == list(range(1, len(trained.steps) + 1))
    parts = [(workers, list(lines)) for workers, lines in groupby(trained.steps, key=lambda line: line[1])]
    assert [workers for workers, _ in parts] == [1, 2, 1]
    reasons = ("its worker received SIGTERM", "about to be taken away", "the test has seen enough")
    printed = " ".join(trained.printed.split())
    for reason, (_, lines) in zip(reasons, parts, strict=True):
        last, _ = lines[-1]
        assert f"{reason}; it wrote a checkpoint of step {last} and will continue from there" in printed


@pytest.mark.parametrize("workers", [1, 2])
def test_each_step_is_that_of_one_worker_within_rounding(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    pairs = [pair for pair in pairs_of_checkpoints(trained.kept) if workers_of(pair[1]) == workers]
    assert pairs
    before, after = pairs[-1]
    alone = one_step_after(before, trained, tmp_path, monkeypatch)
    largest = 0.0
    for name, expected in alone.items():
        torch.testing.assert_close(after.tensors[name], expected, rtol=1e-4, atol=1e-6, msg=name)
        largest = max(largest, float((after.tensors[name] - expected).abs().max()))
    if workers == 1:
        assert largest == 0


def test_the_window_follows_the_cluster_and_a_node_that_dies_in_training_costs_nothing(
    survived: Survived, finished_run: Path
) -> None:
    assert survived.seen["failures"] == []
    # One replica at once with one accelerator, two with two.
    assert survived.seen["at_once"]["one"] == 1
    assert survived.seen["at_once"]["both"] == 2
    for replica in range(2):
        ours, reference = (r / f"replicas/{replica}/weights.safetensors" for r in (survived.run, finished_run))
        assert ours.read_bytes() == reference.read_bytes()


def test_a_node_that_dies_in_evaluation_costs_its_shards_and_nothing_else(
    survived: Survived, finished_run: Path
) -> None:
    """Both nodes are busy; the result is bit-identical to that of a single node."""
    assert survived.seen["evaluated"]
    assert survived.seen["shards_at_second_death"] < 3
    files = sorted(path.name for path in (finished_run / "predictions").iterdir())
    assert sorted(path.name for path in (survived.run / "predictions").iterdir()) == files
    for name in files:
        ours, reference = (pq.read_table(r / "predictions" / name).to_pydict() for r in (survived.run, finished_run))
        assert ours == reference
    ours, reference = report_of(survived.run), report_of(finished_run)
    assert {key for key in reference if ours[key] != reference[key]} <= {"run", "learning_curves"}


def pairs_of_checkpoints(kept: Path) -> list[tuple[Checkpoint, Checkpoint]]:
    """Return the checkpoints of steps that follow one another."""
    folder = Checkpoints(Storage.at(str(kept)), 0, writes=False)
    steps = sorted(int(path.name.partition(".")[0]) for path in kept.iterdir())
    return [(folder.at(step), folder.at(step + 1)) for step in steps if step + 1 in steps]


def workers_of(checkpoint: Checkpoint) -> int:
    """Return how many workers took the last step of a checkpoint."""
    line = checkpoint.progress["epoch"]["lines"][-1]
    assert line["step"] == checkpoint.step
    workers: int = line["step/workers"]
    return workers


def one_step_after(
    before: Checkpoint, trained: Trained, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Tensor]:
    """Return the state after one more step, taken by one worker in this process."""
    run = Path(shutil.copytree(trained.run / "dataset", folder / "run/dataset")).parent
    shutil.copy(trained.run / "run.json", run)
    checkpoints = run / "replicas/0/checkpoints"
    checkpoints.mkdir(parents=True)
    for path in trained.kept.glob(f"{before.step:010d}.*"):
        shutil.copy(path, checkpoints)
    take, state = pipelines.training.replica.train_step, {}

    def one_step(*arguments: object) -> TakenStep:
        if state:
            raise Ended
        result = take(*arguments)  # type: ignore[arg-type]
        state.update({name: value.clone() for name, value in arguments[0].tensors().items()})  # type: ignore[attr-defined]
        return result

    monkeypatch.setattr(pipelines.training.replica, "train_step", one_step)
    monkeypatch.setattr(pipelines.training.replica, "use_own_cpus", lambda: None)
    torch.set_num_threads(1)
    with pytest.raises(Ended):
        train_replica(ReplicaTask(Storage.at(str(run)), trained.recipe, 0))
    return state
