"""Live progress display: a refreshing table on a terminal, plain lines elsewhere.

Workers post their state to a board, an actor without CPUs; the driver reads it about once a second. Posting never
waits, and a lost post only delays the display.
"""

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipelines.job.console import count, duration, fitted
from pipelines.job.time_left import TrainingTimeLeft

PLAIN_LINE_SECONDS = 20.0
PADDING, BAR_COLUMNS, LEAST_BAR_COLUMNS, EVALUATION_BAR_COLUMNS, UNLIMITED_COLUMNS = 1, 24, 8, 40, 1000


@dataclass(frozen=True)
class ReplicaStatus:
    """State of a replica for the display; ``epoch`` is fractional, ``alarm`` is one line about its ``dead_heads``."""

    phase: str = "waiting"
    epoch: float = 0.0
    epochs: int = 0
    loss: float | None = None
    images_per_second: float | None = None
    error: float | None = None
    dead_heads: tuple[str, ...] = ()
    alarm: str = ""

    @property
    def share_done(self) -> float:
        """Share of the epochs done, between 0 and 1."""
        return self.epoch / self.epochs if self.epochs else 0.0


class ProgressBoard:
    """Latest status by replica, and unread warnings; runs as a Ray actor."""

    def __init__(self) -> None:
        self._statuses: dict[int, ReplicaStatus] = {}
        self._warnings: list[str] = []

    def post(self, replica: int, status: ReplicaStatus) -> None:
        """Replace the status of ``replica``."""
        self._statuses[replica] = status

    def forget(self, replica: int) -> None:
        """Drop the status of ``replica``, which is about to start anew."""
        self._statuses.pop(replica, None)

    def warn(self, text: str) -> None:
        """Add a warning, to be shown once."""
        self._warnings.append(text)

    def read(self) -> tuple[dict[int, ReplicaStatus], list[str]]:
        """Return all statuses posted so far, and the warnings since the last call."""
        warnings, self._warnings = self._warnings, []
        return self._statuses, warnings


class _Display(ABC):
    """A live display on a terminal, periodic plain lines elsewhere."""

    def __init__(self, console: Console | None) -> None:
        self._console = console or Console(highlight=False, force_terminal=sys.stdout.isatty())
        self._live: Live | None = None
        self._last_line = time.monotonic()

    @abstractmethod
    def line(self) -> str:
        """Return the state in one line."""

    @abstractmethod
    def _picture(self) -> Group:
        """Return the state for a terminal."""

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Show the live display on the terminal during the block."""
        if not self._console.is_interactive:  # a dumb terminal cannot be drawn on
            yield
            return
        with Live(self._picture(), console=self._console, refresh_per_second=2) as self._live:
            yield
        self._live = None

    def _refresh(self, *, at_once: bool = False) -> None:
        """Show the state: always on a terminal that can redraw, elsewhere if a line is due or ``at_once`` is set."""
        if self._live:
            self._live.update(self._picture())
        elif not self._console.is_interactive and (at_once or time.monotonic() - self._last_line >= PLAIN_LINE_SECONDS):
            self._last_line = time.monotonic()
            self.message(self.line())

    def message(self, text: str) -> None:
        """Print a permanent line; on a terminal, a long one breaks between words."""
        shown = fitted(text, self._console.width) if self._console.is_terminal else text
        self._console.print(shown, soft_wrap=True, markup=False, emoji=False)


class TrainingDisplay(_Display):
    """Display of the replicas of a run; call :meth:`update` whenever there is news."""

    def __init__(self, replicas: int, epochs: int, console: Console | None = None) -> None:
        super().__init__(console)
        self._statuses = {replica: ReplicaStatus(epochs=epochs) for replica in range(replicas)}
        self._time_left = TrainingTimeLeft()
        self._alarmed: set[tuple[int, str]] = set()

    def update(self, posted: dict[int, ReplicaStatus], phases: dict[int, str]) -> None:
        """Show the posted statuses; the scheduler's ``phases`` override those that workers posted."""
        for replica, status in self._statuses.items():
            news = posted.get(replica, status)
            phase = phases.get(replica, news.phase)
            if phase == "done":
                news = replace(news, epoch=float(news.epochs or status.epochs), epochs=news.epochs or status.epochs)
            self._statuses[replica] = replace(news, phase=phase)
            self._print_new_alarm(replica, news)
        self._time_left.update(
            {replica: status.phase for replica, status in self._statuses.items()},
            {replica: status.share_done for replica, status in self._statuses.items()},
        )
        self._refresh()

    def _print_new_alarm(self, replica: int, status: ReplicaStatus) -> None:
        """Print one line for a replica, and another one only if more of its classifiers are dead."""
        heads = {(replica, head) for head in status.dead_heads}
        if heads - self._alarmed:
            self._alarmed |= heads
            self.message(f"warning: replica {replica}: {status.alarm}")

    def _left(self) -> str:
        seconds = self._time_left.seconds
        return "?" if seconds is None else duration(seconds)

    def line(self) -> str:
        """Return the state in one line."""
        statuses = self._statuses.values()
        done = sum(status.phase == "done" for status in statuses)
        running = [
            f"[{replica}] epoch {status.epoch:.1f}/{status.epochs} {_facts(status)}"
            for replica, status in self._statuses.items()
            if status.phase == "training"
        ]
        text = f"training: {done}/{count(len(self._statuses), 'replica')} done, {self._left()} left"
        return " | ".join([text, *running])

    def _picture(self) -> Group:
        """Return a table as wide as the terminal allows: with bars, without them, or with short headings."""
        columns = self._console.width
        wide = _table(self._statuses, bar_columns=0)
        needed = self._console.measure(wide, options=self._console.options.update(width=UNLIMITED_COLUMNS)).maximum
        if needed > columns:
            table = _narrow_table(self._statuses)
        else:
            free = min(BAR_COLUMNS, columns - needed - 2 * PADDING)
            table = _table(self._statuses, free) if free >= LEAST_BAR_COLUMNS else wide
        return Group(Text(f"training, {self._left()} left"), table)


def _table(statuses: Mapping[int, ReplicaStatus], bar_columns: int) -> Table:
    table = Table(box=None, padding=(0, PADDING))
    for heading in ("replica", *[""] * (bar_columns > 0), "epoch", "loss", "images/s", "val top-1 error", ""):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for replica, status in statuses.items():
        bar = [ProgressBar(total=1.0, completed=status.share_done, width=bar_columns)] if bar_columns else []
        table.add_row(str(replica), *bar, *_cells(status), status.phase)
    return table


def _narrow_table(statuses: Mapping[int, ReplicaStatus]) -> Table:
    """Return a table that fits 40 columns; a replica that is not training has its phase in place of the epoch."""
    table = Table(box=None, padding=(0, PADDING, 0, 0))
    for heading in ("", "epoch", "loss", "img/s", "error"):
        table.add_column(heading, justify="right", no_wrap=True)
    for replica, status in statuses.items():
        epoch, *others = _cells(status)
        table.add_row(str(replica), epoch if status.phase == "training" else status.phase, *others)
    return table


def _cells(status: ReplicaStatus) -> list[str]:
    return [
        f"{status.epoch:.1f}/{status.epochs}",
        _number(status.loss, ".3f"),
        _number(status.images_per_second, ".0f"),
        _number(status.error, ".1f", " %"),
    ]


class EvaluationDisplay(_Display):
    """Display of the progress of the evaluation, in images."""

    def __init__(self, total: int, done: int, console: Console | None = None) -> None:
        super().__init__(console)
        self._total, self._done = total, done
        self._reached = [(time.monotonic(), done)]

    def advance(self, images: int) -> None:
        """Add ``images`` to the images done."""
        self._done += images
        self._reached.append((time.monotonic(), self._done))
        self._refresh(at_once=self._done == self._total)

    def line(self) -> str:
        """Return the state in one line."""
        rate = self._images_per_second()
        left = duration((self._total - self._done) / rate) if rate else "?"
        return f"evaluation: {self._done}/{count(self._total, 'image')}, {rate:.1f} images/s, {left} left"

    def _images_per_second(self) -> float:
        """Return the rate in the second half of the time so far: loading and compiling come before the first image."""
        now, started = time.monotonic(), self._reached[0][0]
        since, done = max(reached for reached in self._reached if reached[0] <= (started + now) / 2)
        return (self._done - done) / max(now - since, 1e-9)

    def _picture(self) -> Group:
        line, columns = self.line(), self._console.width
        if len(line) > columns:  # it takes two lines: as many as it takes with the bar on a wider terminal
            return Group(Text(fitted(line, columns)))
        bar = ProgressBar(total=max(self._total, 1), completed=self._done, width=min(EVALUATION_BAR_COLUMNS, columns))
        return Group(Text(line), bar)


def _facts(status: ReplicaStatus) -> str:
    facts: Sequence[str] = (
        f"loss {status.loss:.3f}" if status.loss is not None else "",
        f"{status.images_per_second:.0f} images/s" if status.images_per_second else "",
        f"val error {status.error:.1f} %" if status.error is not None else "",
    )
    return ", ".join(fact for fact in facts if fact)


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "" if value is None else f"{value:{form}}{unit}"


def post(board: Any, replica: int, status: ReplicaStatus) -> None:
    """Post without waiting; the work continues if the board is gone."""
    if board is not None:
        board.post.remote(replica, status)


def warn(board: Any, replica: int, text: str) -> None:
    """Post a warning about the training of ``replica``."""
    if board is not None:
        board.warn.remote(f"warning: replica {replica}: {text}")
