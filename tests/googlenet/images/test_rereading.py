"""Reading again: after a pause where something looks damaged, and not after other failures."""

import pytest

from googlenet.images import rereading
from googlenet.images.rereading import PAUSE_SECONDS, READS, read_again


class TornError(Exception):
    pass


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    made: list[float] = []
    monkeypatch.setattr(rereading.time, "sleep", made.append)
    monkeypatch.setattr(rereading, "PAUSE_SECONDS", PAUSE_SECONDS)
    return made


@pytest.mark.parametrize("bad_reads", range(4))
def test_damage_is_believed_once_three_reads_with_pauses_have_shown_it(pauses: list[float], bad_reads: int) -> None:
    failures = [TornError(str(number)) for number in range(bad_reads)]

    def read() -> str:
        if failures:
            raise failures.pop(0)
        return "whole"

    if bad_reads < READS:
        assert read_again(read, TornError) == "whole"
    else:
        with pytest.raises(TornError, match=str(READS - 1)):
            read_again(read, TornError)
    assert pauses == [PAUSE_SECONDS] * min(bad_reads, READS - 1)


def test_another_failure_is_raised_at_once(pauses: list[float]) -> None:
    def read() -> str:
        raise OSError("the disk is away")

    with pytest.raises(OSError, match="away"):
        read_again(read, TornError)
    assert pauses == []
