"""Progress display: a live table on a terminal, plain lines elsewhere."""

import ast
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from pipelines.job import progress
from pipelines.job.console import count, duration, fitted, size
from pipelines.job.progress import EvaluationDisplay, ReplicaStatus, TrainingDisplay
from pipelines.run.storage import Storage
from pipelines.tracking.commands import how_to_use, replay_command
from tests.project import ROOT


def console(terminal: bool, width: int = 120) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, force_terminal=terminal, width=width, highlight=False), stream


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that have passed, in a list of one."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


TRAINING = ReplicaStatus("training", 1.5, 4, loss=1.25, images_per_second=200, error=30.0)


def test_plain_lines_hold_epoch_loss_rate_and_time_left(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_LINE_SECONDS", 0.0)
    plain, stream = console(terminal=False)
    display = TrainingDisplay(2, 4, plain)
    with display.showing():
        display.update({}, {0: "starting", 1: "done"})
        display.update({0: replace(TRAINING, epoch=0.5)}, {0: "training", 1: "done"})
        clock[0] = 30.0
        display.update({0: TRAINING}, {0: "training", 1: "done"})
    line = stream.getvalue().splitlines()[-1]
    assert "1/2 replicas done" in line
    assert "[0] epoch 1.5/4 loss 1.250, 200 images/s, val error 30.0 %" in line
    assert "1:15 left" in line  # one epoch in 30 s, and 2.5 are left
    assert "\x1b" not in stream.getvalue()


def test_a_message_is_printed_as_it_is() -> None:
    plain, stream = console(terminal=False)
    TrainingDisplay(1, 1, plain).message("replica 0 failed: [red] (see /runs/a:100:b/failure.txt)")
    assert stream.getvalue() == "replica 0 failed: [red] (see /runs/a:100:b/failure.txt)\n"


def test_what_cannot_be_drawn_on_gets_plain_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "PLAIN_LINE_SECONDS", 0.0)
    monkeypatch.setenv("FORCE_COLOR", "1")  # a log file of a CI service
    dumb = io.StringIO()
    consoles = [None, Console(file=dumb, force_terminal=True, _environ={"TERM": "dumb"})]
    for given in consoles:
        display = TrainingDisplay(2, 4, given)
        with display.showing():
            display.update({0: TRAINING}, {0: "training", 1: "done"})
            shown = dumb.getvalue() if given else capsys.readouterr().out
            assert "1/2 replicas done" in shown
    assert "\x1b" not in shown


def test_a_terminal_shows_every_replica() -> None:
    terminal, stream = console(terminal=True)
    display = TrainingDisplay(7, 4, terminal)
    with display.showing():
        display.update({3: TRAINING}, {3: "training", 0: "done", 5: "failed"})
    shown = stream.getvalue()
    for text in ("images/s", "1.5/4", "1.250", "30.0 %", "training", "done", "failed", "waiting"):
        assert text in shown


def test_a_replica_that_does_not_learn_is_told_in_one_line_although_its_message_changes() -> None:
    plain, stream = console(terminal=False)
    display = TrainingDisplay(2, 4, plain)
    for number in (100, 200):
        alarm = f"the classifier and auxiliary classifier 1 have learned nothing by step {number}: loss 2.3 and 2.3"
        display.update({0: replace(TRAINING, dead_heads=("logits", "aux_4a"), alarm=alarm)}, {0: "training"})
    display.update({0: replace(TRAINING, dead_heads=("aux_4a",), alarm="auxiliary classifier 1 has")}, {0: "training"})
    assert stream.getvalue().count("warning: replica 0: ") == 1
    display.update({1: replace(TRAINING, dead_heads=("aux_4a",), alarm="auxiliary classifier 1 has")}, {1: "training"})
    assert stream.getvalue().count("warning: ") == 2


WIDEST = ReplicaStatus("training", 249.5, 250, loss=6.908, images_per_second=1200, error=100.0)


@pytest.mark.parametrize(("columns", "has_bars"), [(120, True), (80, True), (70, False), (40, False)])
def test_a_narrow_terminal_keeps_epoch_loss_speed_and_error_and_gives_up_the_bars(columns: int, has_bars: bool) -> None:
    terminal, stream = console(terminal=True, width=columns)
    display = TrainingDisplay(7, 250, terminal)
    with display.showing():
        phases = {0: "training", 1: "done", 2: "starting", 3: "failed"}
        display.update({0: WIDEST, 1: WIDEST}, phases)
    shown_last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()).rpartition("training, ")[2]
    lines = shown_last.split("\n")
    assert max(len(line.rstrip()) for line in lines) <= columns
    [shown] = [line for line in lines if "249.5/250" in line]
    for fact in ("6.908", "1200", "100.0 %"):
        assert fact in shown
    assert ("━" in shown) == has_bars
    assert "…" not in "".join(lines)
    for phase in ("done", "starting", "failed", "waiting"):
        assert any(phase in line for line in lines)


@pytest.mark.parametrize(("columns", "has_bar"), [(80, True), (40, False)])
def test_an_evaluation_on_a_narrow_terminal_keeps_its_numbers_and_gives_up_the_bar(columns: int, has_bar: bool) -> None:
    terminal, stream = console(terminal=True, width=columns)
    display = EvaluationDisplay(total=50_000, done=0, console=terminal)
    with display.showing():
        display.advance(12_345)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()).rpartition("evaluation: ")[2]
    assert "12345/50,000 images" in shown
    assert "images/s" in shown
    assert "left" in shown
    assert max(len(line.rstrip()) for line in f"evaluation: {shown}".split("\n")) <= columns
    assert ("━" in shown) == has_bar


def test_messages_break_between_words_on_a_terminal_and_stay_whole_in_a_file() -> None:
    text = "warning: replica 0: " + "learned nothing so far " * 9
    for terminal in (True, False):
        shown, stream = console(terminal, width=40)
        TrainingDisplay(2, 4, shown).message(text.strip())
        lines = stream.getvalue().splitlines()
        assert all(len(line) <= 40 for line in lines) == terminal
        assert " ".join(line.strip() for line in lines) == text.strip()


def test_the_time_of_an_evaluation_that_is_left_leaves_out_what_comes_before_its_first_image(
    clock: list[float],
) -> None:
    plain, _ = console(terminal=False)
    display = EvaluationDisplay(total=1640, done=40, console=plain)
    clock[0] = 100.0  # to load the networks and to compile them
    while clock[0] < 260.0:
        clock[0] += 8.0
        display.advance(16)
    # 1,280 images are left, 16 in 8 s.
    assert display.line() == "evaluation: 360/1,640 images, 2.0 images/s, 10:40 left"


def test_a_finished_evaluation_says_so() -> None:
    plain, stream = console(terminal=False)
    display = EvaluationDisplay(total=40, done=10, console=plain)
    with display.showing():
        display.advance(30)
    assert "40/40 images" in stream.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (61, "1:01"), (3725, "1:02:05")])
def test_durations_read_like_a_clock(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (41_300, "41.3 KB"), (3.2e6, "3.2 MB"), (4.48e9, "4.48 GB")],
)
def test_sizes_are_never_zero_of_something(num_bytes: float, text: str) -> None:
    assert size(num_bytes) == text


def test_one_of_a_thing_is_singular() -> None:
    assert [count(n, "replica") for n in (0, 1, 1234)] == ["0 replicas", "1 replica", "1,234 replicas"]
    assert [count(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]


def test_a_long_line_breaks_between_words_and_a_path_stays_whole() -> None:
    path = "/a/very/long/path-with-hyphens/that/does/not/fit/into/the/line"
    assert fitted(f"error: {path} holds no run\nshort", 40) == f"error:\n  {path}\n  holds no run\nshort"


def test_what_commands_print_breaks_between_words() -> None:
    """All goes through the console, but for JSON and what is printed where it cannot be used."""
    files = [*(ROOT / "pipelines").rglob("*.py"), *(ROOT / "cluster").glob("*.py")]
    printing = {
        str(path.relative_to(ROOT))
        for path in files
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    rules_out = {"pipelines/job/interruption.py", "pipelines/run/lock.py"}  # a signal's handler; below the console
    assert printing == {"pipelines/job/console.py", "pipelines/report/schema.py", *rules_out}


def test_a_command_is_printed_in_one_line_so_that_it_can_be_copied(tmp_path: Path) -> None:
    run, uri = Storage.at(str(tmp_path / "two  spaces")), f"sqlite:///{tmp_path}/other.db"
    commands = [replay_command(run, uri, "--champion", "always")]
    commands += [f"ray job stop --address http://127.0.0.1:8265 raysubmit_{'x' * 16}"]
    commands += [line.partition(" ")[2].strip() for line in how_to_use(run, uri, "", "models:/a/1").splitlines()]
    assert len(commands) == 5
    for command in commands:
        lines = fitted(f"version 2 is no better than the first one; to make it champion: {command}", 60).splitlines()
        assert lines[-1].strip() == command
        assert max(map(len, lines[:-1])) <= 60
