"""Claims: waiting for nodes is reported once, ends with an error that names what is missing, and only without them."""

import threading

import pytest
import ray

import pipelines.job.unplaced
from pipelines.job.nodes import NodesMissingError
from pipelines.job.unplaced import TOLD_AFTER_SECONDS, Unplaced, once_placed, told_while_unplaced

LIMIT_SECONDS = 1800.0
NEEDS = {"CPU": 4.0, "GPU": 1.0}
SMALL, LARGE = {"CPU": 2.0}, {"CPU": 8.0, "GPU": 1.0}


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    found: list[dict[str, object]] = [{"NodeID": "a", "Alive": True, "Resources": SMALL}]
    monkeypatch.setattr(ray, "nodes", lambda: found)
    monkeypatch.setattr("ray._private.state.state.get_draining_nodes", dict)
    return found


class Clock:
    """Time that passes by ten seconds at each look at the work, which then takes ``seconds_of_work``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds_of_work: float) -> None:
        self.seconds, self._work = 0.0, seconds_of_work
        monkeypatch.setattr(ray, "wait", lambda refs, **_: (refs if self._is_done() else [], []))
        monkeypatch.setattr(ray, "get", lambda ref: f"result of {ref}")

    def __call__(self) -> float:
        return self.seconds

    def _is_done(self) -> bool:
        self.seconds += 10.0
        return self.seconds > self._work


def test_work_says_what_it_waits_for_and_gives_up_with_the_way_out(
    nodes: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(monkeypatch, seconds_of_work=float("inf"))
    with pytest.raises(NodesMissingError, match=r"no node with 4 CPU, 1 GPU has joined within 30:00, and the trial"):
        once_placed("ref", "the trial", NEEDS, longest_wait_seconds=LIMIT_SECONDS, clock=clock)
    assert clock.seconds == LIMIT_SECONDS
    told = " ".join(capsys.readouterr().out.split())
    assert told.count("the trial waits for a node with 4 CPU, 1 GPU, for 30:00 at most; `ray status`") == 1


def test_long_work_on_a_node_that_is_there_is_not_ended(
    nodes: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes.append({"NodeID": "b", "Alive": True, "Resources": LARGE})
    clock = Clock(monkeypatch, seconds_of_work=2 * LIMIT_SECONDS)
    result = once_placed("ref", "the trial", NEEDS, longest_wait_seconds=LIMIT_SECONDS, clock=clock)
    assert (result, capsys.readouterr().out) == ("result of ref", "")


@pytest.mark.parametrize(("seconds", "lines"), [(TOLD_AFTER_SECONDS - 10, 0), (2 * LIMIT_SECONDS, 1)])
def test_a_start_on_nodes_that_other_jobs_use_is_told_once_and_waits_for_them(
    nodes: list[dict[str, object]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    seconds: float,
    lines: int,
) -> None:
    nodes.append({"NodeID": "b", "Alive": True, "Resources": LARGE})
    clock = Clock(monkeypatch, seconds)
    once_placed("ref", "the trial", NEEDS, longest_wait_seconds=LIMIT_SECONDS, is_start=True, clock=clock)
    told = " ".join(capsys.readouterr().out.split())
    assert told.count("the trial has not started yet: other jobs use the 4 CPU, 1 GPU that it needs, or") == lines
    assert bool(told) == bool(lines)


def test_work_without_a_limit_waits_as_the_training_does(
    nodes: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(monkeypatch, seconds_of_work=2 * LIMIT_SECONDS)
    assert once_placed("ref", "the choice", NEEDS, clock=clock) == "result of ref"
    told = " ".join(capsys.readouterr().out.split())
    assert told == "the choice waits for a node with 4 CPU, 1 GPU; `ray status` shows what the cluster adds"


def test_the_wait_begins_anew_when_a_node_that_had_joined_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, seconds_of_work=0.0)
    unplaced = Unplaced(clock)
    clock.seconds = TOLD_AFTER_SECONDS
    assert unplaced.is_to_be_told(is_held=False)
    assert not unplaced.is_to_be_told(is_held=False)
    assert not unplaced.is_to_be_told(is_held=True)
    assert not unplaced.is_to_be_told(is_held=False)
    clock.seconds += TOLD_AFTER_SECONDS
    assert unplaced.is_to_be_told(is_held=False)


def test_work_in_many_tasks_says_what_it_waits_for_too_and_nothing_where_it_is_held(
    nodes: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines.job.unplaced, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(pipelines.job.unplaced, "TOLD_AFTER_SECONDS", 0.05)
    told: list[str] = []
    is_told = threading.Event()

    def tell(text: str) -> None:
        told.append(text)
        is_told.set()

    with told_while_unplaced("the evaluation", NEEDS, tell):
        assert is_told.wait(60)
    line = "the evaluation waits for a node with 4 CPU, 1 GPU; `ray status` shows what the cluster adds"
    assert told == [line]
    nodes.append({"NodeID": "b", "Alive": True, "Resources": LARGE})
    is_told.clear()
    with told_while_unplaced("the evaluation", NEEDS, tell):
        assert not is_told.wait(0.5)
    assert told == [line]
