"""Claim: the time left is what replicas take at their present pace, however much of them was done before."""

from collections.abc import Iterator

import pytest

from pipelines.job import time_left
from pipelines.job.time_left import TrainingTimeLeft

HOURS_OF_A_REPLICA = 2.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that have passed, in a list of one."""
    now = [0.0]
    monkeypatch.setattr(time_left.time, "monotonic", lambda: now[0])
    return now


def training(shares: list[float], places: int) -> Iterator[tuple[dict[int, str], dict[int, float]]]:
    """Yield phases and shares after each minute of replicas of which so many run at once; they end all done."""
    started: set[int] = set()
    while True:
        unfinished = [replica for replica, share in enumerate(shares) if share < 1]
        started |= set(unfinished[:places])
        phases = {
            replica: "done" if share >= 1 else "training" if replica in unfinished[:places] else "waiting"
            for replica, share in enumerate(shares)
        }
        # What a replica did before is known once it has started.
        known = {replica: share * (replica in started or share >= 1) for replica, share in enumerate(shares)}
        yield phases, known
        if not unfinished:
            return
        for replica in unfinished[:places]:
            shares[replica] += 1 / (60 * HOURS_OF_A_REPLICA)


@pytest.mark.parametrize("shares", [[0.0] * 7, [1.0, 1.0, 0.3, 0.0, 0.0, 0.0, 0.0], [1.0] * 6 + [0.9]])
@pytest.mark.parametrize("places", [1, 2, 7])
def test_the_estimate_is_right_from_the_first_minutes_on(shares: list[float], places: int, clock: list[float]) -> None:
    estimate, estimated = TrainingTimeLeft(), {}
    for phases, known in training(list(shares), places):
        estimate.update(phases, known)
        estimated[clock[0]] = estimate.seconds
        clock[0] += 60.0
    end = max(estimated)
    assert sum(seconds is None for seconds in estimated.values()) <= 9
    for at, seconds in estimated.items():
        assert seconds is None or seconds == pytest.approx(end - at, rel=0.02, abs=120)


def test_nothing_is_estimated_before_a_replica_has_got_on(clock: list[float]) -> None:
    estimate = TrainingTimeLeft()
    for clock[0] in (0.0, 60.0):
        estimate.update({0: "training", 1: "waiting"}, {0: 0.3, 1: 0.0})
    assert estimate.seconds is None
