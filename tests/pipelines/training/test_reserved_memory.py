"""Memory that each worker reserves, so that no more of them start than a node holds."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from googlenet.network.arithmetic import FP32
from pipelines.job.nodes import affordable_memory, held_by
from pipelines.run.named_recipes import finetune
from pipelines.run.recipe import Recipe
from pipelines.training import arithmetic_choice
from pipelines.training.resources import Resources, replicas_at_once, reserving_memory
from pipelines.training.trial import Trial
from tests.pipelines.training.ray_nodes import node

LAPTOP = {"CPU": 8.0, "memory": 13e9}


def test_no_more_workers_are_started_than_the_memory_of_a_node_holds(
    nodes: list[dict[str, object]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Seven replicas of the variant bn that are fine-tuned at 224 px in batches of 32 would need 23 GB."""
    nodes[:] = [node(LAPTOP)]
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
    nodes[:] = [node({"CPU": 64.0, "memory": 400e9})]

    def reserved(**changes: object) -> int:
        recipe = replace(finetune(), batch_size=256, **changes)  # type: ignore[arg-type]
        return reserving_memory(recipe, Resources(), classes=10).memory_bytes

    fixed = {workers: reserved(workers_per_replica=workers) for workers in (2, 8)}
    assert reserved(workers_per_replica=8, min_workers_per_replica=2) == fixed[2] > 2 * fixed[8]
    # One worker computes its batch in parts, so that two need most.
    assert reserved(workers_per_replica=8, min_workers_per_replica=1) == fixed[2]
    narrow, wide = (reserved(variant="bn", width=width) for width in (1.0, 2.0))
    assert reserved(variant="bn", wide_replica_width=2.0) == wide > narrow


@pytest.mark.parametrize(("memory", "workers"), [(9.995e9, 1), (10e9 + 1, 3), (13_333_333_333.0, 7)])
def test_no_more_memory_is_reserved_than_a_node_has_to_the_byte(memory: float, workers: int) -> None:
    resources = {"CPU": 8.0, "memory": memory}
    reserved = affordable_memory(10**10, {"CPU": 1.0}, [resources], workers)
    assert reserved == memory // workers
    assert held_by(resources, {"CPU": 1.0, "memory": reserved}) == workers
    assert held_by(resources, {"CPU": 1.0, "memory": reserved + 1}) == workers - 1  # Ray would never place the last one


def test_one_worker_is_started_however_little_memory_there_is_and_the_danger_is_told(
    nodes: list[dict[str, object]], capsys: pytest.CaptureFixture[str]
) -> None:
    nodes[:] = [node({"CPU": 8.0, "memory": 1.5e9})]
    resources = reserving_memory(finetune(), Resources(), classes=10)
    assert replicas_at_once(finetune(), resources) == 1
    warning = " ".join(capsys.readouterr().out.split())
    assert warning.startswith("warning: a worker needs about 1.9")
    assert "of memory, but only 1.50 GB is available for each: the operating system may kill it" in warning
    assert warning.endswith("; use a machine with more memory, or a smaller --batch-size")


def test_all_workers_of_one_replica_are_started_however_little_memory_there_is(
    nodes: list[dict[str, object]], capsys: pytest.CaptureFixture[str]
) -> None:
    nodes[:] = [node({"CPU": 8.0, "memory": memory}) for memory in (3e9, 2e9)]
    recipe = replace(finetune(), workers_per_replica=3)
    resources = reserving_memory(recipe, Resources(), classes=10)
    assert resources.memory_bytes == 1_500_000_000  # two on the larger node
    assert replicas_at_once(recipe, resources) == 1
    assert "but only 1.50 GB is available for each" in " ".join(capsys.readouterr().out.split())


def test_what_nodes_will_have_that_join_on_demand_is_not_guessed(nodes: list[dict[str, object]]) -> None:
    nodes[:] = [node({"memory": 4e9})]  # a head without CPUs
    assert reserving_memory(finetune(), Resources(), classes=10) == Resources()


def test_memory_is_reserved_once_nodes_have_joined_of_a_cluster_that_was_empty(
    nodes: list[dict[str, object]], begin: Callable[..., Resources], tiny_recipe: Recipe
) -> None:
    planned = (Resources(), Resources(memory_bytes=10**9))  # on an empty cluster, and on one with nodes
    assert [begin(resources).memory_bytes for resources in planned] == [0, 10**9]
    nodes[:] = [node({"CPU": 8.0, "memory": 64e9})]
    needed = reserving_memory(tiny_recipe, Resources(), classes=3).memory_bytes
    assert begin(Resources()).memory_bytes == needed > 0


@pytest.mark.parametrize("taken", [10**8, 4 * 10**9])
def test_a_worker_that_takes_more_memory_in_the_trial_than_it_reserves_is_told_once_and_reserves_no_more(
    nodes: list[dict[str, object]], begin: Callable[..., Resources], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], taken: int,
) -> None:  # fmt: skip
    monkeypatch.setitem(arithmetic_choice.SMALL_TRAINING_FLOPS, "cpu", 0.0)
    trial = Trial((FP32,), (0.5,), (0.0,), 100.0, parameters=1, memory_bytes=taken)
    monkeypatch.setattr(arithmetic_choice, "run_trial", lambda *_: trial)
    nodes[:] = [node(LAPTOP)]
    planned = Resources(memory_bytes=2 * 10**9)
    for _ in range(2):  # the second start finds what the first has chosen
        assert begin(planned) == planned
    said = " ".join(capsys.readouterr().out.split())
    told = (
        "warning: a worker reserves 2.00 GB of memory, and the trial took 4.00 GB; "
        "including its images, a worker needs about 4.5"
    )
    assert said.count(told) == said.count("warning") == int(taken > planned.memory_bytes)
