"""Handover: a worker that has trained a replica asks the scheduler for the next one, instead of ending.

A worker's start costs as much processor time as some epochs of a small network. The scheduler alone decides who trains
what; question and answer are left on the board, which both read.
"""

import time
from dataclasses import dataclass
from typing import Any

from googlenet.network.arithmetic import Arithmetic
from pipelines.job.progress import ProgressBoard
from pipelines.run.recipe import Recipe
from pipelines.training.resources import Resources

POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Answer:
    """The replica that a worker is to train next; None to end."""

    following: int | None


class TrainingBoard(ProgressBoard):
    """Progress board on which workers ask for their next replica; a repeated question or answer does no harm."""

    def __init__(self) -> None:
        super().__init__()
        # Answers by the replica that the asking worker has finished.
        self._answers: dict[int, Answer | None] = {}

    def ask(self, finished: int) -> None:
        """Ask for the replica to train after ``finished``."""
        self._answers[finished] = None

    def asking(self) -> list[int]:
        """Return the finished replicas whose workers wait for an answer."""
        return [finished for finished, answer in self._answers.items() if answer is None]

    def answer(self, finished: int, following: int | None) -> None:
        """Answer the worker that has trained ``finished``; None ends it."""
        self._answers[finished] = Answer(following)

    def answer_after(self, finished: int) -> Answer | None:
        """Return the answer for the worker that has trained ``finished``; None if it has to wait."""
        return self._answers.get(finished)


def trains_in_turn(recipe: Recipe, resources: Resources, arithmetic: Arithmetic) -> bool:
    """Return whether a worker trains several replicas, one after the other: a single worker without a GPU.

    On GPUs the start hardly counts, several workers would have to agree, and a compiled network may depend on what the
    process has compiled before.
    """
    return recipe.workers_per_replica == 1 and not resources.gpus_per_worker and not arithmetic.compiled


def next_replica(board: Any, finished: int) -> int | None:
    """Return the replica that the scheduler gives the worker that has trained ``finished``; None if it is to end.

    If the board is gone, the worker ends, and the scheduler starts others.
    """
    import ray

    try:
        ray.get(board.ask.remote(finished))
        while True:
            answer: Answer | None = ray.get(board.answer_after.remote(finished))
            if answer is not None:
                return answer.following
            time.sleep(POLL_SECONDS)
    except ray.exceptions.RayActorError:
        return None
