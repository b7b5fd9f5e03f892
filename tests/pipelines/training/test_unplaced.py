"""Claims: waiting for nodes is reported once, ends with an error that names what is missing, and only without them."""

import pytest
import ray

from pipelines.job.nodes import NodesMissingError
from pipelines.training.unplaced import LONGEST_WAIT_SECONDS, TOLD_AFTER_SECONDS, Unplaced, wait_for_place

NEEDS = {"CPU": 4.0, "GPU": 1.0}
SMALL, LARGE = {"CPU": 2.0}, {"CPU": 8.0, "GPU": 1.0}


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    found: list[dict[str, object]] = [{"NodeID": "a", "Alive": True, "Resources": SMALL}]
    monkeypatch.setattr(ray, "nodes", lambda: found)
    monkeypatch.setattr("ray._private.state.state.get_draining_nodes", dict)
    return found


class Clock:
    """Time that passes by ten seconds at each look at the trial."""

    def __init__(self, seconds_of_work: float = float("inf")) -> None:
        self.seconds, self._work = 0.0, seconds_of_work

    def __call__(self) -> float:
        return self.seconds

    def is_done(self, _seconds: float) -> bool:
        self.seconds += 10.0
        return self.seconds > self._work


def test_a_trial_says_what_it_waits_for_and_gives_up_with_the_way_out(
    nodes: list[dict[str, object]], capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    with pytest.raises(NodesMissingError, match=r"no node with 4 CPU, 1 GPU has joined within 30:00.*`ray status`"):
        wait_for_place(clock.is_done, NEEDS, Unplaced(clock))
    assert clock.seconds == LONGEST_WAIT_SECONDS
    told = " ".join(capsys.readouterr().out.split())
    assert told.count("the trial waits for a node with 4 CPU, 1 GPU, for 30:00 at most") == 1


def test_a_long_trial_on_a_node_that_is_there_is_not_ended(
    nodes: list[dict[str, object]], capsys: pytest.CaptureFixture[str]
) -> None:
    nodes.append({"NodeID": "b", "Alive": True, "Resources": LARGE})
    clock = Clock(seconds_of_work=2 * LONGEST_WAIT_SECONDS)
    wait_for_place(clock.is_done, NEEDS, Unplaced(clock))
    assert capsys.readouterr().out == ""


def test_the_wait_begins_anew_when_a_node_that_had_joined_is_lost() -> None:
    clock = Clock()
    unplaced = Unplaced(clock)
    clock.seconds = TOLD_AFTER_SECONDS
    assert unplaced.is_to_be_told(is_held=False)
    assert not unplaced.is_to_be_told(is_held=False)
    assert not unplaced.is_to_be_told(is_held=True)
    assert not unplaced.is_to_be_told(is_held=False)
    clock.seconds += TOLD_AFTER_SECONDS
    assert unplaced.is_to_be_told(is_held=False)
