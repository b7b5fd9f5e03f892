"""Tests of the number of predictors, counted by hand on nodes as Ray describes them."""

from dataclasses import replace

import pytest
import torch

from pipelines.errors import UserError
from pipelines.evaluation.predictors import (
    AS_MANY_AS_FIT,
    FEEDER_CPUS,
    PREDICTOR_CPUS,
    PredictorOptions,
    device_of,
    predictors_on,
)
from pipelines.job.worker_process import FEEDERS_PER_PREDICTOR

GPU_NODE = {"CPU": 16.0, "GPU": 4.0}
CPU_NODE = {"CPU": 6.0}
FEW_CPUS = {"CPU": 3.0, "GPU": 4.0}
NO_MEMORY = {"cpu": 0, "gpu": 0}
HEAD = {"node:__internal_head__": 1.0}


@pytest.mark.parametrize(
    ("nodes", "options", "number", "num_gpus"),
    [
        ([CPU_NODE, CPU_NODE], AS_MANY_AS_FIT, 12, 0.0),
        ([GPU_NODE, CPU_NODE], AS_MANY_AS_FIT, 4, 1.0),
        ([GPU_NODE, CPU_NODE], PredictorOptions(gpus=0.5), 8, 0.5),
        ([GPU_NODE], PredictorOptions(gpus=0.1), 16, 0.1),  # 40 by its GPUs, 16 by its CPUs
        ([FEW_CPUS], AS_MANY_AS_FIT, 3, 1.0),
        ([FEW_CPUS, FEW_CPUS], AS_MANY_AS_FIT, 6, 1.0),
        ([GPU_NODE], PredictorOptions(number=2), 2, 1.0),
        ([GPU_NODE], PredictorOptions(number=7), 4, 1.0),
        ([GPU_NODE, CPU_NODE], PredictorOptions(gpus=0.0), 22, 0.0),  # the GPUs are for others
        ([{"CPU": 0.0, "GPU": 1.0}, CPU_NODE], AS_MANY_AS_FIT, 6, 0.0),  # a head that is not to compute
        ([{"GPU": 1.0}, GPU_NODE], AS_MANY_AS_FIT, 4, 1.0),
    ],
)
def test_a_cluster_that_does_not_grow_gets_as_many_as_fit(
    nodes: list[dict[str, float]], options: PredictorOptions, number: int, num_gpus: float
) -> None:
    found = predictors_on(nodes, options, NO_MEMORY, may_grow=False)
    assert (found.number, found.grows, found.num_gpus) == (number, False, num_gpus)


@pytest.mark.parametrize(
    ("nodes", "options", "number", "num_gpus"),
    [
        ([HEAD, CPU_NODE], AS_MANY_AS_FIT, 6, 0.0),  # more if nodes join
        ([HEAD], PredictorOptions(number=8), 8, 0.0),
        ([HEAD], PredictorOptions(number=8, gpus=1.0), 8, 1.0),
        ([HEAD], PredictorOptions(expected=7, expects_gpus=True), 7, 1.0),
        ([HEAD], PredictorOptions(gpus=0.0).after(3, 2.0, 1.0), 6, 0.0),
        ([HEAD, GPU_NODE, GPU_NODE], PredictorOptions(expected=7, expects_gpus=True), 8, 1.0),
    ],
)
def test_a_cluster_that_grows_is_asked_for_what_is_expected(
    nodes: list[dict[str, float]], options: PredictorOptions, number: int, num_gpus: float
) -> None:
    found = predictors_on(nodes, options, NO_MEMORY, may_grow=True)
    assert (found.number, found.grows, found.num_gpus) == (number, options.number is None, num_gpus)


@pytest.mark.parametrize(
    ("nodes", "number", "per_node"),
    [([{"CPU": 2.0}, CPU_NODE, HEAD], None, 6), ([CPU_NODE], 4, 4), ([HEAD], 8, 1)],
)
def test_as_many_are_timed_together_as_the_largest_node_holds(
    nodes: list[dict[str, float]], number: int | None, per_node: int
) -> None:
    found = predictors_on(nodes, PredictorOptions(number), {"cpu": 2 << 30, "gpu": 0}, may_grow=True)
    assert found.per_node == per_node


def test_nodes_that_join_for_the_training_are_expected_for_the_evaluation_too() -> None:
    assert AS_MANY_AS_FIT.after(7, 7.0, 1.0) == PredictorOptions(expected=7, expects_gpus=True)
    assert PredictorOptions(gpus=0.5).after(4, 1.0, 0.5) == PredictorOptions(gpus=0.5, expected=4, expects_gpus=True)
    assert AS_MANY_AS_FIT.after(3, 2.0, 0.0) == PredictorOptions(expected=6)
    # A node has a whole GPU, or CPU, also for a single worker that reserves a part of one.
    assert AS_MANY_AS_FIT.after(1, 1.0, 0.5) == PredictorOptions(expected=1, expects_gpus=True)
    assert AS_MANY_AS_FIT.after(1, 0.5, 0.0) == PredictorOptions(expected=1)
    assert AS_MANY_AS_FIT.after(0, 1.0, 1.0) == AS_MANY_AS_FIT  # nothing is said to join


def test_predictors_leave_room_for_those_that_feed_them_on_a_node_of_any_size() -> None:
    """Also if Ray moves more of them to it than its share, since other nodes died."""
    sizes = range(1, 97)
    placed = {cpus: int(cpus / PREDICTOR_CPUS) for cpus in sizes}
    assert placed == {cpus: cpus for cpus in sizes}
    need = FEEDERS_PER_PREDICTOR["cpu"] * FEEDER_CPUS
    assert [n for n in sizes if n - placed[n] * PREDICTOR_CPUS < placed[n] * need - 1e-9] == [], "numbers of CPUs"


@pytest.mark.parametrize(
    ("nodes", "options", "may_grow", "seconds", "feeders"),
    [
        ([CPU_NODE], AS_MANY_AS_FIT, False, 0.5, 6),
        ([CPU_NODE], AS_MANY_AS_FIT, False, 0.05, 12),
        ([CPU_NODE], AS_MANY_AS_FIT, False, 0.0, 12),  # unknown
        ([CPU_NODE], PredictorOptions(number=4), False, 0.5, 8),  # two CPUs are idle
        ([CPU_NODE], AS_MANY_AS_FIT, True, 0.5, 12),  # more predictors may start
        ([CPU_NODE], PredictorOptions(number=8), True, 0.5, 16),  # nodes may join for two of them
        ([FEW_CPUS], AS_MANY_AS_FIT, False, 0.5, 3 * FEEDERS_PER_PREDICTOR["gpu"]),
    ],
)
def test_a_predictor_that_takes_long_for_an_image_is_fed_by_one_task_where_no_cpu_is_idle(
    nodes: list[dict[str, float]], options: PredictorOptions, may_grow: bool, seconds: float, feeders: int
) -> None:
    found = predictors_on(nodes, options, NO_MEMORY, may_grow=may_grow)
    assert replace(found, seconds_per_image=seconds).feeders == feeders


def test_what_limits_their_number_is_told() -> None:
    assert predictors_on([GPU_NODE, CPU_NODE], AS_MANY_AS_FIT, NO_MEMORY, may_grow=False).remark == ""
    assert predictors_on([FEW_CPUS], AS_MANY_AS_FIT, NO_MEMORY, may_grow=False).remark == (
        "the nodes hold 3 of 4 predictors, limited by CPU: each reserves 1 GPU, 1 CPU; "
        "the cluster has 4 GPU, 3 CPU on 1 node"
    )
    beside_cpus = predictors_on([FEW_CPUS, CPU_NODE], AS_MANY_AS_FIT, NO_MEMORY, may_grow=False)
    assert beside_cpus.remark.startswith("the nodes hold 3 of 4 predictors, limited by CPU")
    beside_a_head = predictors_on([{"GPU": 1.0}, GPU_NODE], AS_MANY_AS_FIT, NO_MEMORY, may_grow=False)
    assert beside_a_head.remark == ""
    asked = predictors_on([HEAD, CPU_NODE], PredictorOptions(number=8), NO_MEMORY, may_grow=True)
    assert asked.remark.startswith("the nodes hold 6 of 8 predictors, limited by CPU")


@pytest.mark.parametrize(
    ("nodes", "options", "may_grow", "code"),
    [
        ([HEAD], AS_MANY_AS_FIT, True, 75),  # the workers have not joined yet: submit.py tries again
        ([{**HEAD, "CPU": 0.0}], PredictorOptions(gpus=1.0), True, 75),
        ([HEAD], PredictorOptions(number=3), False, 2),
        ([GPU_NODE, GPU_NODE], PredictorOptions(gpus=8.0), True, 2),
        ([{"GPU": 1.0}], AS_MANY_AS_FIT, False, 2),
    ],
)
def test_what_no_node_holds_is_refused_with_what_to_do(
    nodes: list[dict[str, float]], options: PredictorOptions, may_grow: bool, code: int
) -> None:
    fix = "set --predictors if nodes join on demand" if code == 75 else ".*set --predictors if the cluster grows"
    with pytest.raises(UserError, match=rf"^no node holds a predictor, which reserves .* nodes?: {fix}") as refused:
        predictors_on(nodes, options, NO_MEMORY, may_grow=may_grow)
    assert refused.value.exit_code == code


def test_a_process_that_reserves_no_gpu_computes_on_the_cpu_though_pytorch_sees_the_gpus_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [device_of(num_gpus) for num_gpus in (0.0, 0.25, 1.0)] == ["cpu", "cuda", "cuda"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of(1.0) == "cpu"


@pytest.mark.parametrize("may_grow", [False, True])
def test_gpus_that_are_asked_for_where_no_node_has_one_are_refused(may_grow: bool) -> None:
    with pytest.raises(UserError, match=r"--gpus-per-predictor 0\.5: no node has both a GPU and a CPU; leave"):
        predictors_on([CPU_NODE, {"GPU": 1.0}], PredictorOptions(gpus=0.5), NO_MEMORY, may_grow=may_grow)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gpus": -1.0}, "--gpus-per-predictor must not be negative, got -1"),
        ({"gpus": 1.5}, r"--gpus-per-predictor must be whole, or a fraction of one GPU, got 1\.5"),
        ({"number": 0}, "--predictors must be at least 1"),
    ],
)
def test_impossible_predictors_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PredictorOptions(**options)  # type: ignore[arg-type]


def test_a_pool_has_no_more_predictors_than_shards_and_grows_with_its_cluster() -> None:
    fixed = predictors_on([CPU_NODE], AS_MANY_AS_FIT, NO_MEMORY, may_grow=False)
    grows = predictors_on([CPU_NODE], AS_MANY_AS_FIT, NO_MEMORY, may_grow=True)
    asked = predictors_on([CPU_NODE], PredictorOptions(number=8), NO_MEMORY, may_grow=True)
    assert [found.pool(4) for found in (fixed, grows, asked)] == [(4, 4)] * 3
    assert [found.pool(100) for found in (fixed, grows, asked)] == [(6, 6), (6, 100), (8, 8)]


def test_memory_limits_the_predictors_of_a_node_and_says_so() -> None:
    laptop = {"CPU": 8.0, "memory": 13e9}
    found = predictors_on([laptop], AS_MANY_AS_FIT, {"cpu": 3 * 10**9, "gpu": 0}, may_grow=False)
    assert (found.number, found.memory_bytes) == (4, 3 * 10**9)
    assert found.remark == (
        "the nodes hold 4 of 8 predictors, limited by memory: each reserves 1 CPU, 3.00 GB memory; "
        "the cluster has 8 CPU, 13.00 GB memory on 1 node"
    )
    small = predictors_on([{"CPU": 8.0, "memory": 2e9}], AS_MANY_AS_FIT, {"cpu": 3 * 10**9, "gpu": 0}, may_grow=False)
    assert (small.number, small.memory_bytes) == (1, 2 * 10**9)
    assert (
        "needs about 3.00 GB of memory, but only 2.00 GB is available for each: the operating system may kill it"
        in small.remark
    )
