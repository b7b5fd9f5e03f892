"""Tests of the scheduler: restarts, waiting for a cluster, and replicas with several workers."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import safetensors.torch
import torch

import pipelines.job.unplaced
from googlenet.network.arithmetic import FP32, Arithmetic
from pipelines.job.progress import ReplicaStatus
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training.board import Answer, new_board, read_board
from pipelines.training.failure import ReplicaFailure
from pipelines.training.handover import next_replica, trains_in_turn
from pipelines.training.replica import train_replica
from pipelines.training.resources import Resources
from pipelines.training.restarts import Tries
from pipelines.training.scheduler import _Schedule, train_replicas
from pipelines.training.task import ReplicaTask


def test_a_replica_that_gets_further_is_started_again_without_end_and_one_that_does_not_is_given_up() -> None:
    tries = Tries(most=2)
    assert [tries.has_another(0, step) for step in range(0, 100, 10)] == [True] * 10
    assert [tries.has_another(0, 90) for _ in range(3)] == [True, False, False]
    assert tries.has_another(1, 0)
    assert not Tries(most=0).has_another(0, 10)


def test_the_pause_before_a_restart_grows_until_there_is_progress() -> None:
    tries = Tries(most=20)
    pauses = []
    for _ in range(10):
        tries.has_another(0, 5)
        pauses.append(tries.pause_seconds(0))
    assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    tries.has_another(0, 6)
    assert tries.pause_seconds(0) == 2


def test_weights_that_are_not_finite_are_tried_once_more_and_a_paused_replica_is_not_started(
    ray_cluster: str, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    schedule = _Schedule(Storage.at(str(tmp_path)), replace(tiny_recipe, replicas=1), Resources(), FP32, [])
    lost, not_finite = (ReplicaFailure(0, "", "", may_pass=True, not_finite=is_so) for is_so in (False, True))
    failures = [lost, lost, not_finite, not_finite]
    assert [schedule._pause_before_restart(0, failure) for failure in failures] == [2, 4, 2, None]
    schedule._paused_until[0] = float("inf")
    schedule.fill(board=None)
    assert (schedule.waiting, schedule.running, schedule.collect(board=None)) == ([0], {}, [])


def test_what_does_not_end_at_a_limit_is_ended_with_a_line_on_what_is_kept_and_frees_its_places(
    ray_cluster: str, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, limit, board = Storage.at(str(tmp_path)), "the run has reached --max-hours 1", new_board()
    schedule = _Schedule(run, replace(tiny_recipe, replicas=3), Resources(), FP32, [])

    @ray.remote(num_cpus=0)
    def fit() -> None:
        time.sleep(1000)

    schedule.running, schedule.waiting = {fit.remote(): 0, fit.remote(): 1}, [2]
    run.write(f"replicas/1/checkpoints/0000000005.{16 * '0'}.safetensors", b"")
    reserved = ray.util.placement_group([{"CPU": 0.1}])
    board.note_reservation.remote(1, reserved)
    assert schedule.stop_if(limit, board) == []
    assert ray.get(reserved.ready()) is not None
    monkeypatch.setattr(schedule, "_stop_by", 0.0)
    ended = "was ended, since the run has reached --max-hours 1 and the replica did not stop within 120 s; "
    assert schedule.stop_if(limit, board) == [
        f"warning: replica 0 {ended}it has no checkpoint",
        f"warning: replica 1 {ended}it will continue from its checkpoint of step 5",
    ]
    assert (sorted(schedule.waiting), schedule.running, schedule.goes_on) == ([0, 1, 2], {}, False)
    assert ray.util.placement_group_table(reserved)["state"] == "REMOVED"
    ray.kill(board)


def test_a_worker_that_has_trained_a_replica_gets_the_next_one_that_is_ready_while_the_cluster_holds_its_fit(
    ray_cluster: str, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    run, board = Storage.at(str(tmp_path)), new_board()
    schedule = _Schedule(run, replace(tiny_recipe, replicas=5), Resources(parallel_replicas=2), FP32, [])
    schedule.running, schedule.waiting = {"first fit": 0, "second fit": 1}, [2, 3, 4]
    schedule._paused_until[2] = float("inf")
    for finished in (0, 1):
        board.ask.remote(finished)
    assert ray.get(board.asking.remote()) == [0, 1]
    schedule.hand_over(board, [0])
    assert ray.get(board.asking.remote()) == [1]
    assert ray.get(board.answer_after.remote(0)) == Answer(3)
    assert (schedule.running, schedule.waiting) == ({"first fit": 3, "second fit": 1}, [2, 4])
    assert (schedule.phases[0], schedule.phases[3]) == ("done", "starting")
    schedule.running["a third one, of a node that was lost"] = 2
    schedule.hand_over(board, [1])
    schedule.hand_over(board, [0])  # its fit has ended meanwhile
    assert [ray.get(board.answer_after.remote(finished)) for finished in (0, 1)] == [Answer(None)] * 2
    assert schedule.waiting == [2, 4]
    ray.kill(board)
    assert next_replica(board, 3) is None


def test_a_replica_that_is_started_again_is_not_shown_as_training_before_its_worker_has_a_place(
    ray_cluster: str, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    board = new_board()
    board.post.remote(0, ReplicaStatus("training", 1.5, 2))
    board.place.remote(0, 0, 1, "a node that is lost")
    schedule = _Schedule(Storage.at(str(tmp_path)), replace(tiny_recipe, replicas=1), Resources(), FP32, [])
    assert schedule._take_ready(board) == 0
    schedule.running = {"second fit": 0}
    state, _ = read_board(board)
    schedule.take(state)
    assert (schedule.phases, state.places) == ({0: "starting"}, {})
    board.post.remote(0, ReplicaStatus("training", 1.5, 2))
    schedule.take(read_board(board)[0])
    assert schedule.phases == {0: "training"}
    ray.kill(board)


def test_workers_together_on_gpus_or_with_a_compiled_network_train_one_replica_each(tiny_recipe: Recipe) -> None:
    assert trains_in_turn(tiny_recipe, Resources(), FP32)
    assert not trains_in_turn(replace(tiny_recipe, workers_per_replica=2), Resources(), FP32)
    assert not trains_in_turn(tiny_recipe, Resources(gpus_per_worker=1), FP32)
    assert not trains_in_turn(tiny_recipe, Resources(), Arithmetic(compiled=True))


def test_a_cluster_that_holds_nothing_for_a_while_is_told_of_once(
    ray_cluster: str, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Storage.at(str(tmp_path))
    grows = _Schedule(run, tiny_recipe, Resources(64, parallel_replicas=2), FP32, [])
    assert grows.unplaced() == []  # not yet
    monkeypatch.setattr(pipelines.job.unplaced, "TOLD_AFTER_SECONDS", 0.0)
    assert grows.unplaced() == ["warning: the cluster cannot hold a replica (workers of 64 CPU); waiting until it can"]
    assert grows.unplaced() == []
    assert _Schedule(run, tiny_recipe, Resources(), FP32, []).unplaced() == []


@pytest.mark.timeout(300)
def test_two_workers_learn_what_one_does(
    ray_cluster: str, prepared_run: Path, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as there are do so, too: test_changing_cluster.py compares the steps of one and two."""
    monkeypatch.setattr("pipelines.training.scheduler.POLL_SECONDS", 0.1)
    recipe = replace(tiny_recipe, replicas=1, variant="paper", batch_size=10)  # 24 images: 10, 10, 4
    runs = {name: Path(shutil.copytree(prepared_run, tmp_path / name)) for name in ("alone", "two")}
    train_replica(ReplicaTask(Storage.at(str(runs["alone"])), recipe, 0))
    of_two = replace(recipe, workers_per_replica=2)
    assert train_replicas(Storage.at(str(runs["two"])), of_two, Resources(1.0), FP32, lambda _: None) == []
    weights, lines = (
        {name: read(run / f"replicas/0/{file}") for name, run in runs.items()}
        for file, read in (("weights.safetensors", safetensors.torch.load_file), ("metrics.jsonl", last_line))
    )
    for layer, expected in weights["alone"].items():
        torch.testing.assert_close(weights["two"][layer], expected, rtol=1e-4, atol=1e-5, msg=layer)
    assert lines["two"]["val_top1_error"] == lines["alone"]["val_top1_error"]
    assert lines["two"]["train_loss_logits"] == pytest.approx(lines["alone"]["train_loss_logits"], rel=1e-4)


def last_line(path: Path) -> dict[str, float]:
    line: dict[str, float] = json.loads(path.read_text().splitlines()[-1])
    return line
