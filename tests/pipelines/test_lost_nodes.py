"""A cluster of three nodes that loses one in training and one in evaluation: used while there, and not missed."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.commands import run_python
from tests.pipelines.jobs import report_of

pytestmark = [pytest.mark.apart, pytest.mark.timeout(300)]


@dataclass(frozen=True)
class Survived:
    """A run directory that was trained and evaluated on the changing cluster, and what was seen of that."""

    run: Path
    seen: dict[str, Any]


@pytest.fixture(scope="module")
def survived(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Survived:
    run = tmp_path_factory.mktemp("lost") / "run"
    shutil.copytree(finished_run / "dataset", run / "dataset")
    shutil.copy(finished_run / "run.json", run / "run.json")
    shutil.copytree(finished_run / "replicas/2", run / "replicas/2")  # two replicas suffice for two nodes
    ended = run_python("-m", "tests.pipelines.changing_cluster", str(run))
    assert ended.code == 0, ended.stderr
    seen = json.loads(ended.stdout.strip().splitlines()[-1])
    assert not seen["still_running"], ended.stderr
    return Survived(run, seen)


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
