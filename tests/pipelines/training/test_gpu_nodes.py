"""Nodes with GPUs: the CPUs that a worker gets beside one, and the GPUs that no replica uses."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from pipelines.run.dataset import Counts
from pipelines.run.named_recipes import demo
from pipelines.run.recipe import Recipe
from pipelines.training.options import WorkerOptions
from pipelines.training.resources import Resources, cpus_beside_gpus
from pipelines.training.stage import on_cluster
from pipelines.training.unused_gpus import unused_gpus_line
from tests.pipelines.training.ray_nodes import CPU_NODE, node


@pytest.mark.parametrize(
    ("resources", "changes", "line"),
    [
        (Resources(), {}, "4 GPUs unused: add --gpus-per-worker 1 to train on them"),
        (Resources(4, 1), {"workers_per_replica": 1}, ""),
        (Resources(8, 1), {}, "2 GPUs unused: use --cpus-per-worker 4, so that every GPU gets a worker"),
        (Resources(4, 1), {"replicas": 2}, "2 GPUs unused: add --workers-per-replica 2, so that several train"),
        (Resources(4, 1), {"replicas": 3}, "1 GPU unused: 3 replicas of 4 CPU, 1 GPU cannot use more"),
        (Resources(4, 1, parallel_replicas=2), {"replicas": 7}, "2 GPUs unused: add --parallel-replicas 4, so that"),
        # A worker computes on the first of its GPUs.
        (
            Resources(4, 2),
            {"replicas": 1},
            "3 GPUs unused: a worker computes on one GPU: use --gpus-per-worker 1 --workers-per-replica 4",
        ),
        (Resources(4, 2), {}, "2 GPUs unused: a worker computes on one GPU: use --gpus-per-worker 1"),
        # Workers of one replica cannot share GPUs, and graphs are for replicas of one worker.
        (Resources(1, 0.5), {"replicas": 1}, "3 GPUs unused: add --gpus-per-worker 1 --workers-per-replica 4, so that"),
        (Resources(4, 1, cuda_graphs=True), {"replicas": 1}, "3 GPUs unused: 1 replica of 4 CPU, 1 GPU cannot use"),
    ],
)
def test_gpus_that_stay_unused_are_told_with_what_uses_them(
    nodes: list[dict[str, object]], resources: Resources, changes: dict[str, int], line: str
) -> None:
    recipe = replace(demo(), **changes)
    told = unused_gpus_line(recipe, resources, recipe.replicas)
    assert told.startswith(line)
    assert bool(told) == bool(line)


def test_gpus_that_the_last_replicas_of_a_run_leave_unused_are_told(nodes: list[dict[str, object]]) -> None:
    last = unused_gpus_line(demo(), Resources(4, 1), waiting=1)
    assert last == "3 GPUs unused: 1 replica of 4 CPU, 1 GPU cannot use more GPUs"


def test_a_worker_beside_a_gpu_gets_its_part_of_the_node(nodes: list[dict[str, object]]) -> None:
    assert cpus_beside_gpus(1) == 4
    assert cpus_beside_gpus(0.5) == 2
    assert cpus_beside_gpus(2) == 8
    nodes.append(node({"CPU": 2.0, "GPU": 4.0}))
    assert cpus_beside_gpus(1) == 1
    nodes[:] = [node(CPU_NODE)]
    assert cpus_beside_gpus(1) == 1  # no node with a GPU has joined yet
    assert unused_gpus_line(demo(), Resources(), 7) == ""


def test_loader_processes_run_beside_gpus_only() -> None:
    assert Resources(8, 1).loader_processes == 7
    assert Resources(1, 1).loader_processes == 1  # without any, the GPU would wait for each batch
    assert Resources(8).loader_processes == 0


def test_on_a_cold_cluster_the_share_of_a_gpus_node_is_told_to_be_unknown_and_taken_once_nodes_have_joined(
    nodes: list[dict[str, object]], begin: Callable[[Resources], Resources], tiny_recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:6379")
    head, joined = {"memory": 4e9}, {"CPU": 8.0, "GPU": 1.0, "memory": 64e9}
    told, reserved = [], []
    unknown = WorkerOptions(gpus_per_worker=1.0, parallel_replicas=3)
    for asked, at_start in ((unknown, head), (replace(unknown, cpus_per_worker=4.0), head), (unknown, joined)):
        nodes[:] = [node(at_start)]
        resources = on_cluster(tiny_recipe, asked.resources(), Counts(24, 42, 3))
        told.append("no node with a GPU has joined yet" in " ".join(capsys.readouterr().out.split()))
        nodes[:] = [node(joined)]
        reserved.append(begin(resources))
    assert told == [True, False, False]
    assert [resources.cpus_per_worker for resources in reserved] == [8.0, 4.0, 8.0]
    assert [resources.loader_processes for resources in reserved] == [7, 3, 7]
