"""Handover: a worker that has trained a replica asks the scheduler for the next one, instead of ending.

A worker's start costs as much processor time as some epochs of a small network. The scheduler alone decides who trains
what; question and answer are left on the board, which both read.
"""

import time
from typing import TYPE_CHECKING, Any

from googlenet.network.arithmetic import Arithmetic
from pipelines.run.recipe import Recipe
from pipelines.training.resources import Resources

if TYPE_CHECKING:
    from pipelines.training.board import Answer

POLL_SECONDS = 0.1


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
