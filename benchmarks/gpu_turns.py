"""Turns of the contenders of `benchmarks.gpu`: the work that is timed, and the run-up before it that is not."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

OTHERS = ("plain", "torchvision")
# Batches that a DataLoader loads ahead with each of its processes.
BATCHES_AHEAD = 2
Work = Callable[[], int]


class Turn(NamedTuple):
    """What a contender does in its turn.

    Attributes:
        work: what is timed; returns how much it did.
        run_up: what comes before, and is not timed.
    """

    work: Work
    run_up: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Size:
    """How much each contender does."""

    crop_px: int = 224
    width: float = 1.0
    classes: int = 1000
    batch_size: int = 32
    steps: int = 40
    pictures: int = 512
    predicted: int = 4
    processes: int = max(1, min(12, (os.cpu_count() or 2) - 1))

    @classmethod
    def quick(cls) -> "Size":
        """Return a size that a CPU finishes in seconds."""
        return cls(35, 0.05, 10, 4, 2, 8, 1, 1)


@dataclass(frozen=True)
class Contender:
    """A name for the table, and what sets up its turns."""

    name: str
    make: Callable[[], Turn]

    def set_up(self) -> Turn:
        """Set up, work once to warm up, and return the turn.

        This project's processes let cuDNN choose its algorithms; a plain loop leaves it as it is.
        """
        turn, is_ours = self.make(), not self.name.startswith(OTHERS)

        def run_up() -> None:
            torch.backends.cudnn.benchmark = is_ours
            turn.run_up()

        run_up()
        turn.work()
        return Turn(turn.work, run_up)


def training_turn(
    take: Callable[[Any], Callable[[], object]], batches: Iterator[Any], size: Size, *, loads: bool
) -> Turn:
    """Return the turn of a training; ``take`` takes a step with a batch, and returns what waits for its figures.

    Between the turns of a training whose batches are loaded by processes, these load some ahead, which its time must
    not count: they are dropped. It then trains for a round, to which whatever the processes of the contender before
    still load belongs as well.
    """

    def work() -> int:
        for _ in range(size.steps):
            wait = take(next(batches))
        wait()
        return size.steps * size.batch_size

    def run_up() -> None:
        for _ in range(BATCHES_AHEAD * size.processes):
            next(batches)
        work()

    return Turn(work, run_up) if loads else Turn(work)
