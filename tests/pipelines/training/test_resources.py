"""Tests of resources: how many replicas a cluster holds, counted by hand on nodes as Ray describes them."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import torch  # noqa: F401  # its import starts a process, which the tests that need it may not

from googlenet.network.arithmetic import FP32
from pipelines.errors import UserError
from pipelines.job.nodes import NodesMissingError, check_that_a_node_stays
from pipelines.job.ray_session import affordable_memory, alive_nodes, held_by
from pipelines.run.dataset import Counts, read_manifest
from pipelines.run.directory import RUN
from pipelines.run.named_recipes import demo, finetune, modern
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training import arithmetic_choice
from pipelines.training.resources import (
    Resources,
    check_that_one_fits,
    cpus_beside_gpus,
    nodes_used,
    replicas_at_once,
    reserving_memory,
)
from pipelines.training.stage import check_before_start, on_cluster, train_run
from pipelines.training.trial import Trial
from pipelines.training.unused_gpus import unused_gpus_line

GPU_NODE = {"CPU": 16.0, "GPU": 4.0, "accelerator_type:A100": 1.0}
CPU_NODE = {"CPU": 6.0}
DRAINING = "ray._private.state.state.get_draining_nodes"


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    found: list[dict[str, object]] = [
        {"NodeID": "", "Alive": True, "Resources": GPU_NODE},
        {"NodeID": "", "Alive": True, "Resources": CPU_NODE},
        {"NodeID": "", "Alive": False, "Resources": GPU_NODE},
    ]
    monkeypatch.setattr(ray, "nodes", lambda: found)
    monkeypatch.setattr(DRAINING, dict)
    return found


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
    for address, at_once, used in (("", 2, 2), ("somewhere:6379", 7, 4)):  # two on the larger node
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert [replicas_at_once(demo(), resources) for resources in (seven, two)] == [at_once, 2]
        assert nodes_used(demo(), seven) == used


@pytest.mark.parametrize(
    ("resources", "workers", "message"),
    [
        (Resources(17), 1, "reserves 17 CPU, each worker on one node; the cluster has 22 CPU in total"),
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
    nodes[:] = [{"NodeID": "", "Alive": True, "Resources": {"CPU": 0.0, "memory": 4e9}}]
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
        ({"custom": {"GPU": 1}}, "not CPU or GPU"),
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


@pytest.mark.parametrize(
    ("resources", "changes", "line"),
    [
        (Resources(), {}, "4 GPUs unused: add --gpus-per-worker 1 to train on them"),
        (Resources(4, 1), {"workers_per_replica": 1}, ""),
        (Resources(8, 1), {}, "2 GPUs unused: add --cpus-per-worker 4, so that each of them gets a worker"),
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
    assert last == "3 GPUs unused: 1 replica of 4 CPU, 1 GPU cannot use more of these nodes"


def test_a_worker_beside_a_gpu_gets_its_part_of_the_node(nodes: list[dict[str, object]]) -> None:
    assert cpus_beside_gpus(1) == 4
    assert cpus_beside_gpus(0.5) == 2
    assert cpus_beside_gpus(2) == 8
    nodes.append({"NodeID": "", "Alive": True, "Resources": {"CPU": 2.0, "GPU": 4.0}})
    assert cpus_beside_gpus(1) == 1
    nodes[:] = [{"NodeID": "", "Alive": True, "Resources": CPU_NODE}]
    assert cpus_beside_gpus(1) == 1  # no node with a GPU has joined yet
    assert unused_gpus_line(demo(), Resources(), 7) == ""


def test_a_cluster_whose_nodes_are_all_about_to_go_is_refused_in_one_line_for_another_try(
    nodes: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    check_that_a_node_stays()
    nodes[:] = [{"NodeID": name, "Alive": True, "Resources": GPU_NODE} for name in ("a", "b")]
    nodes.append({"NodeID": "head", "Alive": True, "Resources": {"CPU": 0.0, "memory": 1e9}})
    monkeypatch.setattr(DRAINING, lambda: {"a", "b"})
    with pytest.raises(NodesMissingError, match=r"\(2 nodes, drained\).*run the same command again") as refused:
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


@pytest.mark.parametrize(("epochs", "told"), [(1, "use --warmup-epochs 0.25"), (2, "use --warmup-epochs 0.5"), (3, "")])
def test_a_warm_up_that_is_all_of_the_training_is_told_when_a_run_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], epochs: int, told: str
) -> None:
    recipe, run, counts = replace(modern(), epochs=epochs), Storage.at(str(tmp_path)), Counts(320, 10, 3)
    check_before_start(run, recipe, counts)
    line = " ".join(capsys.readouterr().out.split())
    assert line.endswith(told)
    assert bool(line) == bool(told)
    run.write_json(RUN, {})  # and it cannot be changed any more
    check_before_start(run, recipe, counts)
    assert capsys.readouterr().out == ""


def test_loader_processes_run_beside_gpus_only() -> None:
    assert Resources(8, 1).loader_processes == 7
    assert Resources(1, 1).loader_processes == 1  # without any, the GPU would wait for each batch
    assert Resources(8).loader_processes == 0


LAPTOP = {"CPU": 8.0, "memory": 13e9}


def test_no_more_workers_are_started_than_the_memory_of_a_node_holds(
    nodes: list[dict[str, object]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Seven replicas of the variant bn that are fine-tuned at 224 px in batches of 32 would need 23 GB."""
    nodes[:] = [{"NodeID": "", "Alive": True, "Resources": LAPTOP}]
    recipe = replace(finetune(), variant="bn")
    resources = reserving_memory(recipe, Resources(), classes=10)
    assert 3e9 < resources.memory_bytes < 4e9
    assert capsys.readouterr().out == ""
    assert replicas_at_once(recipe, Resources()) == 8
    assert replicas_at_once(recipe, resources) == 13e9 // resources.memory_bytes
    assert replicas_at_once(replace(recipe, workers_per_replica=2), resources) == 1
    half = reserving_memory(replace(recipe, workers_per_replica=2), Resources(), classes=10)
    assert half.memory_bytes < resources.memory_bytes  # each worker has half of a batch
    assert reserving_memory(finetune(), Resources(), classes=10).memory_bytes < 2.4e9  # in parts of a batch


def test_memory_is_that_of_the_wider_replica_and_of_the_fewest_workers_of_an_elastic_one(
    nodes: list[dict[str, object]],
) -> None:
    nodes[:] = [{"NodeID": "", "Alive": True, "Resources": {"CPU": 64.0, "memory": 400e9}}]

    def reserved(**changes: object) -> int:
        recipe = replace(finetune(), batch_size=256, **changes)  # type: ignore[arg-type]
        return reserving_memory(recipe, Resources(), classes=10).memory_bytes

    fixed = {workers: reserved(workers_per_replica=workers) for workers in (2, 8)}
    assert reserved(workers_per_replica=8, min_workers_per_replica=2) == fixed[2] > 2 * fixed[8]
    # One worker computes its batch in parts, so that two need most.
    assert reserved(workers_per_replica=8, min_workers_per_replica=1) == fixed[2]
    narrow, wide = (reserved(variant="bn", width=width) for width in (1.0, 2.0))
    assert reserved(variant="bn", wide_replica_width=2.0) == wide > narrow


def test_a_job_uses_at_least_one_node_also_where_none_has_joined_yet(nodes: list[dict[str, object]]) -> None:
    nodes[:] = [{"NodeID": "", "Alive": True, "Resources": {"memory": 4e9}}]  # a head without CPUs
    assert nodes_used(demo(), Resources()) == 1


@pytest.mark.parametrize(("memory", "workers"), [(9.995e9, 1), (10e9 + 1, 3), (13_333_333_333.0, 7)])
def test_no_more_memory_is_reserved_than_a_node_has_to_the_byte(memory: float, workers: int) -> None:
    node = {"CPU": 8.0, "memory": memory}
    reserved = affordable_memory(10**10, {"CPU": 1.0}, [node], workers)
    assert reserved == memory // workers
    assert held_by(node, {"CPU": 1.0, "memory": reserved}) == workers
    assert held_by(node, {"CPU": 1.0, "memory": reserved + 1}) == workers - 1  # Ray would never place the last one


def test_one_worker_is_started_however_little_memory_there_is_and_the_danger_is_told(
    nodes: list[dict[str, object]], capsys: pytest.CaptureFixture[str]
) -> None:
    nodes[:] = [{"NodeID": "", "Alive": True, "Resources": {"CPU": 8.0, "memory": 1.5e9}}]
    resources = reserving_memory(finetune(), Resources(), classes=10)
    assert replicas_at_once(finetune(), resources) == 1
    warning = " ".join(capsys.readouterr().out.split())
    assert warning.startswith("warning: a worker needs about 1.9")
    assert "of memory, and the nodes have 1.50 GB for each: the system may kill it" in warning
    assert warning.endswith("; use a machine with more memory, or a smaller --batch-size")


def test_all_workers_of_one_replica_are_started_however_little_memory_there_is(
    nodes: list[dict[str, object]], capsys: pytest.CaptureFixture[str]
) -> None:
    nodes[:] = [{"NodeID": "", "Alive": True, "Resources": {"CPU": 8.0, "memory": memory}} for memory in (3e9, 2e9)]
    recipe = replace(finetune(), workers_per_replica=3)
    resources = reserving_memory(recipe, Resources(), classes=10)
    assert resources.memory_bytes == 1_500_000_000  # two on the larger node
    assert replicas_at_once(recipe, resources) == 1
    assert "and the nodes have 1.50 GB for each" in " ".join(capsys.readouterr().out.split())


def test_what_nodes_will_have_that_join_on_demand_is_not_guessed(nodes: list[dict[str, object]]) -> None:
    nodes[:] = [{"NodeID": "", "Alive": True, "Resources": {"memory": 4e9}}]  # a head without CPUs
    assert reserving_memory(finetune(), Resources(), classes=10) == Resources()


def test_memory_is_reserved_once_nodes_have_joined_of_a_cluster_that_was_empty(
    nodes: list[dict[str, object]],
    prepared_run: Path,
    tiny_recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used: list[Resources] = []
    monkeypatch.setattr("pipelines.training.scheduler.train_replicas", lambda *of_run: used.append(of_run[2]) or [])
    manifest = read_manifest(Storage.at(str(prepared_run)))
    for resources in (Resources(), Resources(memory_bytes=10**9)):  # from an empty cluster, and from one with nodes
        train_run(Storage.at(str(tmp_path)), tiny_recipe, resources, None, manifest, lambda _: None, str)
    nodes[:] = [{"NodeID": "", "Alive": True, "Resources": {"CPU": 8.0, "memory": 64e9}}]
    train_run(Storage.at(str(tmp_path)), tiny_recipe, Resources(), None, manifest, lambda _: None, str)
    needed = reserving_memory(tiny_recipe, Resources(), len(manifest.classes)).memory_bytes
    assert [resources.memory_bytes for resources in used] == [0, 10**9, needed]
    assert needed > 0


@pytest.mark.parametrize("taken", [10**8, 4 * 10**9])
def test_a_worker_that_takes_more_memory_in_the_trial_than_it_reserves_is_told_once_and_reserves_no_more(
    nodes: list[dict[str, object]], prepared_run: Path, tiny_recipe: Recipe, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], taken: int,
) -> None:  # fmt: skip
    used: list[Resources] = []
    monkeypatch.setattr("pipelines.training.scheduler.train_replicas", lambda *of_run: used.append(of_run[2]) or [])
    monkeypatch.setitem(arithmetic_choice.SMALL_TRAINING_FLOPS, "cpu", 0.0)
    trial = Trial((FP32,), (0.5,), (0.0,), 100.0, parameters=1, memory_bytes=taken)
    monkeypatch.setattr(arithmetic_choice, "run_trial", lambda *_: trial)
    nodes[:] = [{"NodeID": "", "Alive": True, "Resources": LAPTOP}]
    manifest, planned = read_manifest(Storage.at(str(prepared_run))), Resources(memory_bytes=2 * 10**9)
    for _ in range(2):  # the second start finds what the first has chosen
        train_run(Storage.at(str(tmp_path)), tiny_recipe, planned, None, manifest, lambda _: None, str)
    assert used == [planned, planned]
    said = " ".join(capsys.readouterr().out.split())
    told = (
        "warning: a worker reserves 2.00 GB of memory, and the trial took 4.00 GB; with its images it needs about 4.5"
    )
    assert said.count(told) == said.count("warning") == int(taken > planned.memory_bytes)


def test_on_a_cold_cluster_the_share_of_a_gpus_node_is_told_to_be_unknown_and_taken_once_nodes_have_joined(
    nodes: list[dict[str, object]], prepared_run: Path, tiny_recipe: Recipe, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("RAY_ADDRESS", "somewhere:6379")
    used: list[Resources] = []
    monkeypatch.setattr("pipelines.training.scheduler.train_replicas", lambda *of_run: used.append(of_run[2]) or [])
    manifest, counts = read_manifest(Storage.at(str(prepared_run))), Counts(24, 42, 3)
    head, joined = {"memory": 4e9}, {"CPU": 8.0, "GPU": 1.0, "memory": 64e9}
    told = []
    for cpus, at_start in ((None, head), (4.0, head), (None, joined)):
        nodes[:] = [{"NodeID": "", "Alive": True, "Resources": at_start}]
        given = Resources(gpus_per_worker=1.0, parallel_replicas=3)
        resources = on_cluster(tiny_recipe, given, counts, cpus)
        told.append("no node with a GPU has joined yet" in " ".join(capsys.readouterr().out.split()))
        nodes[:] = [{"NodeID": "", "Alive": True, "Resources": joined}]
        train_run(Storage.at(str(tmp_path)), tiny_recipe, resources, cpus, manifest, lambda _: None, str)
    assert told == [True, False, False]
    assert [resources.cpus_per_worker for resources in used] == [8.0, 4.0, 8.0]
    assert [resources.loader_processes for resources in used] == [7, 3, 7]


def test_a_node_that_is_about_to_be_taken_away_takes_no_work(
    nodes: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes[0]["NodeID"] = "drained"
    monkeypatch.setattr(DRAINING, lambda: {"drained"})
    assert alive_nodes() == [CPU_NODE]
