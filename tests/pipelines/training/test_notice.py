"""Tests of notices: a replica that has to end writes a checkpoint, and no step is done twice."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

import pipelines.training.epoch_report
import pipelines.training.notice
import pipelines.training.replica
from googlenet.training.loader import Batch
from googlenet.training.loop import TakenStep
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training.board import DRAINED, TrainingBoard, new_board
from pipelines.training.notice import EndedByNoticeError, notice_to, take_sigterm_as_notice
from pipelines.training.replica import train_replica
from pipelines.training.task import ReplicaTask

STEPS = 6  # 24 images in batches of 8, two epochs
FIGURES_ARE_READ_LATER = "cpu:0"  # as on a GPU: of any device that is not called cpu


@pytest.fixture
def sigterm_is_notice(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Heed SIGTERM as a worker does; return what it sets."""
    before, heard = signal.getsignal(signal.SIGTERM), threading.Event()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as in a new process; commands that tests called have another
    monkeypatch.setattr(pipelines.training.notice, "_terminated", heard)
    take_sigterm_as_notice()
    yield heard
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("step", "device"), [(1, "cpu"), (3, "cpu"), (5, FIGURES_ARE_READ_LATER)])
def test_a_worker_that_receives_sigterm_writes_a_checkpoint_of_its_last_step_and_no_step_is_done_twice(
    dataset: Path,
    undisturbed: Path,
    tiny_recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch,
    sigterm_is_notice: threading.Event,
    step: int,
    device: str,
) -> None:
    monkeypatch.setattr(pipelines.training.epoch_report, "LINES_PER_EPOCH", 1)
    taken: list[int] = []
    take = pipelines.training.replica.train_step

    def counted(*arguments: object) -> TakenStep:
        result = take(*arguments)  # type: ignore[arg-type]
        taken.append(result.step)
        if len(taken) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    monkeypatch.setattr(pipelines.training.replica, "train_step", counted)
    ended = ReplicaTask(Storage.at(str(dataset)), tiny_recipe, 0, device=device)
    with pytest.raises(EndedByNoticeError, match=f"SIGTERM; it wrote a checkpoint of step {step}"):
        train_replica(ended)
    sigterm_is_notice.clear()  # another worker
    train_replica(ended)
    assert taken == list(range(1, STEPS + 1))
    weights = [(run / "replicas/0/weights.safetensors").read_bytes() for run in (dataset, undisturbed)]
    assert weights[0] == weights[1]
    epochs = [json.loads(line) for line in (dataset / "replicas/0/metrics.jsonl").read_text().splitlines()]
    interrupted = [line["interrupted_at"] for line in epochs if line.get("interruptions") == 1]
    assert interrupted == [f"step {step}: its worker received SIGTERM"]


def test_a_worker_whose_loader_processes_received_sigterm_as_well_writes_a_checkpoint(
    dataset: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch, sigterm_is_notice: threading.Event
) -> None:
    """A machine that shuts down sends it to all processes; the training may wait for a batch at that moment."""
    load = pipelines.training.replica._batches

    def loaded(*arguments: Any) -> Iterator[Batch]:
        for number, batch in enumerate(load(*arguments)):
            if number == 2:
                if is_shut_down:
                    os.kill(os.getpid(), signal.SIGTERM)
                raise RuntimeError("DataLoader worker (pid(s) 71, 72) exited unexpectedly")
            yield batch

    monkeypatch.setattr(pipelines.training.replica, "_batches", loaded)
    task = ReplicaTask(Storage.at(str(dataset)), tiny_recipe, 0)
    is_shut_down = True
    with pytest.raises(EndedByNoticeError, match="SIGTERM; it wrote a checkpoint of step 2 "):
        train_replica(task)
    assert [path.name[:10] for path in (dataset / "replicas/0/checkpoints").iterdir()] == ["0000000002"]
    sigterm_is_notice.clear()
    is_shut_down = False
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        train_replica(task)


def test_a_notice_on_the_board_is_known_after_the_very_next_step(ray_cluster: str, tiny_recipe: Recipe) -> None:
    """A step may take a minute, and a spot node have two."""
    board = new_board()
    with notice_to(ReplicaTask(Storage.at("/run"), tiny_recipe, 0, board=board)) as notice:
        assert notice.reason() == ""
        ray.get(board.tell.remote(set(), "limit"))
        time.sleep(2.5)  # a step
        assert notice.reason() == "limit"
        ray.kill(board)
    assert notice.reason() == "limit"


def test_the_second_sigterm_ends_a_worker(sigterm_is_notice: threading.Event) -> None:
    signal.raise_signal(signal.SIGTERM)
    assert sigterm_is_notice.is_set()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_replica_gets_notice_if_one_of_its_workers_is_on_a_node_that_is_drained_or_if_the_job_stops() -> None:
    board = TrainingBoard()
    for replica, rank, node in ((0, 0, "first"), (1, 0, "first"), (1, 1, "second")):
        board.place(replica, rank, 2, node)
    assert [board.notice(replica) for replica in range(3)] == ["", "", ""]
    board.tell({"second"}, stop="")
    assert [board.notice(replica) for replica in range(3)] == ["", DRAINED, ""]
    board.place(1, 0, 1, "third")  # started again with one worker, elsewhere
    assert board.notice(1) == ""
    board.tell(set(), stop="the money is spent")
    assert [board.notice(replica) for replica in range(3)] == ["the money is spent"] * 3
