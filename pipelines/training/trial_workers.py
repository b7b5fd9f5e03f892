"""End of a trial's actors, and what ended them early: their node was lost, or a step does not fit in memory."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pipelines.errors import UserError
from pipelines.job.nodes import NodesMissingError

# Names of exceptions of Python and PyTorch, and words of PyTorch's on a CPU and of Ray's when it kills a process.
MEMORY_ERRORS = ("MemoryError", "OutOfMemoryError")
OUT_OF_MEMORY = ("CUDA out of memory", "DefaultCPUAllocator", "running low on memory")
SMALLER = "a smaller --batch-size or --crop-px"


@contextmanager
def trial_workers(workers: Sequence[Any]) -> Iterator[None]:
    """Kill the actors ``workers`` after the block, and explain in one line what ended them in it.

    Raises:
        NodesMissingError: the process of one is gone, most likely with its node.
        UserError: a step does not fit in memory.
    """
    import ray
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        if explained := _explained(error):
            raise explained from error
        raise
    finally:
        for worker in workers:
            ray.kill(worker)


def _explained(error: Exception) -> UserError | None:
    """Return an error that says what a user can do; None if there is nothing to do about ``error``."""
    from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, RayTaskError

    cause = getattr(error, "cause", None) or error
    lacks_memory = isinstance(error, OutOfMemoryError) or type(cause).__name__ in MEMORY_ERRORS
    if lacks_memory or any(words in str(cause) for words in OUT_OF_MEMORY):
        reason = str(cause).strip().partition("\n")[0]
        return UserError(f"a training step of the trial does not fit in memory ({reason}): choose {SMALLER}")
    if isinstance(error, RayActorError | NodeDiedError) and not isinstance(error, RayTaskError):
        return NodesMissingError(
            "the trial's process is gone: its node was lost, or the system killed it for its memory; run the same "
            f"command again, and with {SMALLER} if that happens again"
        )
    return None
