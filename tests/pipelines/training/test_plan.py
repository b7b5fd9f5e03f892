"""Claims: the plan counts only what there is."""

from pathlib import Path

import pytest

from pipelines.run.directory import ReplicaFiles
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training.plan import placement_lines
from pipelines.training.resources import Resources


@pytest.mark.parametrize(
    ("replicas", "line"),
    [(3, "plan: 3 replicas of 1 CPU each, 3 finished"), (1, "plan: 1 replica of 1 CPU, finished")],
)
def test_nothing_waits_where_all_is_finished(tmp_path: Path, replicas: int, line: str) -> None:
    run = Storage.at(str(tmp_path))
    for replica in range(replicas):
        run.write(ReplicaFiles(replica).weights, b"")
    assert placement_lines(run, Recipe(replicas=replicas), Resources(parallel_replicas=2)) == [line]
