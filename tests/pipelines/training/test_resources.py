"""Tests of resources: how many replicas a cluster holds, counted by hand on nodes as Ray describes them."""

import math
from dataclasses import replace

import pytest

from pipelines.errors import UserError
from pipelines.job.nodes import NodesMissingError, alive_nodes, check_that_a_node_stays
from pipelines.run.named_recipes import demo
from pipelines.training.resources import (
    Resources,
    check_that_one_fits,
    cpus_beside_gpus,
    nodes_used,
    replicas_at_once,
)
from pipelines.training.unused_gpus import unused_gpus_line
from tests.pipelines.training.ray_nodes import CPU_NODE, DRAINING, GPU_NODE, node


@pytest.mark.parametrize(
    ("resources", "workers", "least", "expected"),
    [
        (Resources(), 1, None, 22),
        (Resources(4), 1, None, 5),  # 4 on one node, 1 on the other, whose last 2 CPUs are too few
        (Resources(2, 1), 1, None, 4),
        (Resources(8, 1), 1, None, 2),
        (Resources(1, 0.5), 1, None, 8),
        (Resources(1, 0.4), 1, None, 8),  # two on each GPU: the remainders of four GPUs hold no more
        (Resources(1, 0.1), 1, None, 16),
        (Resources(1, 2), 1, None, 2),
        (Resources(0.1), 1, None, 220),
        (Resources(2, 1), 2, None, 2),
        (Resources(2, 1), 3, None, 1),
        (Resources(2, 1), 4, 1, 1),  # an elastic one takes all workers that it may have
        (Resources(2, 1), 3, 1, 2),  # and the last one those that are left
        (Resources(2, 1), 3, 2, 1),
        (Resources(2, 1), 5, 2, 1),
        (Resources(1, 0, {"accelerator_type:A100": 0.25}), 1, None, 4),
        (Resources(64, parallel_replicas=7), 1, None, 7),  # for nodes that an autoscaler will add
    ],
)
def test_replicas_at_once(
    nodes: list[dict[str, object]],
    monkeypatch: pytest.MonkeyPatch,
    resources: Resources,
    workers: int,
    least: int | None,
    expected: int,
) -> None:
    recipe = replace(demo(), workers_per_replica=workers, min_workers_per_replica=least)
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:6379")
    assert replicas_at_once(recipe, resources) == expected
    check_that_one_fits(recipe, resources)


def test_a_cluster_that_cannot_grow_is_not_asked_for_more_replicas_than_it_holds(
    nodes: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seven, two = Resources(8, parallel_replicas=7), Resources(1, parallel_replicas=2)
    # Two on the larger node. With Ray's word "local", a command starts its own cluster, too.
    for address, at_once, used in (("", 2, 2), ("local", 2, 2), ("somewhere:6379", 7, 4)):
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert [replicas_at_once(demo(), resources) for resources in (seven, two)] == [at_once, 2]
        assert nodes_used(demo(), seven) == used


@pytest.mark.parametrize(
    ("resources", "workers", "message"),
    [
        (Resources(17), 1, "reserves 17 CPU, and each worker must fit on one node; the cluster has 22 CPU in total"),
        (Resources(1, 8), 1, "reserves 1 CPU, 8 GPU"),
        (Resources(2, 1), 5, "reserves 5 workers of 2 CPU, 1 GPU"),
        (Resources(1, 0, {"lightning": 1}), 1, "1 CPU, 1 lightning.*has 22 CPU, 0 lightning"),
    ],
)
def test_what_can_never_be_placed_is_refused(
    nodes: list[dict[str, object]], resources: Resources, workers: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_that_one_fits(replace(demo(), workers_per_replica=workers), resources)


def test_a_cluster_that_only_its_head_has_joined_is_refused_for_another_try(
    nodes: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:6379")
    with pytest.raises(UserError, match="reserve less, add nodes") as refused:
        check_that_one_fits(demo(), Resources(17))
    assert refused.value.exit_code == 2
    nodes[:] = [node({"CPU": 0.0, "memory": 4e9})]
    with pytest.raises(NodesMissingError, match="has 0 CPU in total: set --parallel-replicas if nodes join on demand"):
        check_that_one_fits(demo(), Resources())


def test_a_cluster_of_the_commands_own_is_not_waited_for_to_grow(
    nodes: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")  # as compose files have it; it names no cluster
    with pytest.raises(UserError, match="reserves 64 CPU"):
        check_that_one_fits(demo(), Resources(64, parallel_replicas=7))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cpus_per_worker": 0}, "--cpus-per-worker must be positive, got 0"),
        ({"max_failures": -1}, "--max-failures must not be negative, got -1"),
        ({"gpus_per_worker": 1.5}, "whole, or a fraction of one GPU, got 1.5"),
        ({"custom": {"GPU": 1}}, "CPU and GPU have options of their own"),
        ({"custom": {"lightning": 0}}, "lightning=0"),
        ({"checkpoint_minutes": 0}, "--checkpoint-minutes"),
        ({"shard_cache_gb": math.inf}, "--shard-cache-gb must not be infinite, got inf"),
        ({"cpus_per_worker": math.inf}, "--cpus-per-worker must not be infinite"),
        ({"gpus_per_worker": math.inf}, "--gpus-per-worker must not be infinite"),
        ({"custom": {"lightning": math.inf}}, "lightning=inf"),
        ({"parallel_replicas": 0}, "--parallel-replicas"),
    ],
)
def test_impossible_resources_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Resources(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "resources", "message"),
    [
        ({"workers_per_replica": 2}, Resources(), "batch normalisation over several workers needs GPUs"),
        ({"workers_per_replica": 2}, Resources(1, 0.5), "cannot share a GPU"),
        ({}, Resources(gpu_augmentation=True), "--gpu-augmentation makes samples on GPUs: add --gpus-per-worker 1"),
        ({}, Resources(cuda_graphs=True), "--cuda-graphs takes training steps on GPUs: add --gpus-per-worker 1"),
        ({"workers_per_replica": 2}, Resources(1, 1, cuda_graphs=True), "--cuda-graphs is for replicas of one worker"),
    ],
)
def test_workers_that_cannot_train_together_are_refused(
    changes: dict[str, int], resources: Resources, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        resources.check(replace(demo(), **changes))


def test_a_cluster_whose_nodes_are_all_about_to_go_is_refused_in_one_line_for_another_try(
    nodes: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    check_that_a_node_stays()
    nodes[:] = [node(GPU_NODE, name) for name in ("a", "b")]
    nodes.append(node({"CPU": 0.0, "memory": 1e9}, "head"))
    monkeypatch.setattr(DRAINING, lambda: {"a", "b"})
    with pytest.raises(NodesMissingError, match=r"\(2 nodes\).*run the same command again") as refused:
        check_that_a_node_stays()
    assert refused.value.exit_code == 75  # submit.py tries again
    # Nothing is counted on them, if they are drained a moment later.
    assert (cpus_beside_gpus(1), unused_gpus_line(demo(), Resources(), 7)) == (1, "")
    with pytest.raises(
        NodesMissingError, match="the cluster has 0 CPU, without 2 nodes about to be taken away, in total"
    ):
        check_that_one_fits(demo(), Resources())
    monkeypatch.setattr(DRAINING, lambda: {"a"})
    check_that_a_node_stays()
    check_that_one_fits(demo(), Resources())


def test_a_job_uses_at_least_one_node_also_where_none_has_joined_yet(nodes: list[dict[str, object]]) -> None:
    nodes[:] = [node({"memory": 4e9})]  # a head without CPUs
    assert nodes_used(demo(), Resources()) == 1


def test_a_node_that_is_about_to_be_taken_away_takes_no_work(
    nodes: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes[0]["NodeID"] = "drained"
    monkeypatch.setattr(DRAINING, lambda: {"drained"})
    assert alive_nodes() == [CPU_NODE]
