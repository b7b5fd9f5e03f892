"""Progress display: a live table on a terminal, plain lines elsewhere."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from pipelines.job import progress
from pipelines.job.console import duration
from pipelines.job.progress import EvaluationDisplay, ReplicaStatus, TrainingDisplay


def console(terminal: bool) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, force_terminal=terminal, width=120, highlight=False), stream


TRAINING = ReplicaStatus("training", 1.5, 4, loss=1.25, images_per_second=200, error=30.0)


def test_plain_lines_hold_epoch_loss_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_LINE_SECONDS", 0.0)
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    plain, stream = console(terminal=False)
    display = TrainingDisplay(2, 4, plain)
    with display.showing():
        display.update({}, {0: "starting", 1: "waiting"})
        now[0] = 30.0
        display.update({0: TRAINING}, {0: "training", 1: "done"})
    line = stream.getvalue().splitlines()[-1]
    assert "1/2 replicas done" in line
    assert "[0] epoch 1.5/4 loss 1.250, 200 images/s, val error 30.0 %" in line
    # 5.5 of 8 epochs in 30 s leave 2.5 epochs: 14 s.
    assert "0:14 left" in line
    assert "\x1b" not in stream.getvalue()


def test_a_terminal_shows_every_replica() -> None:
    terminal, stream = console(terminal=True)
    display = TrainingDisplay(7, 4, terminal)
    with display.showing():
        display.update({3: TRAINING}, {3: "training", 0: "done", 5: "failed"})
    shown = stream.getvalue()
    for text in ("images/s", "1.5/4", "1.250", "30.0 %", "training", "done", "failed", "waiting"):
        assert text in shown


def test_a_dead_head_is_told_once_although_its_message_changes() -> None:
    plain, stream = console(terminal=False)
    display = TrainingDisplay(2, 4, plain)
    for step in (100, 200):
        status = replace(TRAINING, alarms={"aux_4a": f"head aux_4a has learned nothing by step {step}: loss 2.3"})
        display.update({0: status}, {0: "training"})
    assert stream.getvalue().count("warning: replica 0: head aux_4a has learned nothing") == 1


def test_a_finished_evaluation_says_so() -> None:
    plain, stream = console(terminal=False)
    display = EvaluationDisplay(total=40, done=10, console=plain)
    with display.showing():
        display.advance(30)
    assert "40/40 images" in stream.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (61, "1:01"), (3725, "1:02:05")])
def test_durations_read_like_a_clock(seconds: float, text: str) -> None:
    assert duration(seconds) == text
