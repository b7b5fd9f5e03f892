"""Parameters of a training worker, and the outcome of a failed one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from googlenet.network.arithmetic import FP32, Arithmetic
from googlenet.training.data_parallel import ALONE, Share
from pipelines.job.console import count
from pipelines.run.directory import ReplicaFiles
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training.validation_plan import EVERY_EPOCH, ValidationPlan


@dataclass(frozen=True)
class ReplicaFailure:
    """A failed attempt to train a replica.

    Attributes:
        replica: the replica's number.
        reason: cause in one line.
        traceback: traceback of the process that failed.
        may_pass: whether another attempt may succeed.
        not_finite: whether a loss or the gradient was not finite; of such failures only one in a row is retried.
    """

    replica: int
    reason: str
    traceback: str
    may_pass: bool = False
    not_finite: bool = False


def summary_of_failures(failures: Sequence[ReplicaFailure], replicas: int) -> str:
    """Return in one line which of ``replicas`` replicas failed, what became of the others, and what to do."""
    finished = replicas - len(failures)
    others = "the other one is" if finished == 1 else f"the other {finished} are"
    kept = f"; {others} finished and kept" if finished else ""
    again = f"Run the same command again to retry {'it' if len(failures) == 1 else 'them'}."
    failed = ", ".join(str(failure.replica) for failure in failures)
    return f"{len(failures)} of {count(replicas, 'replica')} failed ({failed}){kept}. {again}"


@dataclass(frozen=True)
class ReplicaTask:
    """Parameters of a worker: which replica it trains, from what data, into which files.

    Attributes:
        run: the run directory.
        recipe: the recipe of the run.
        replica: the replica's number.
        checkpoint_seconds: time between two checkpoints within an epoch; every epoch also ends with one.
        arithmetic: precision of the training, and whether it is compiled.
        loader_processes: processes that load samples during training; with 0, they are loaded between steps.
        board: handle of a ProgressBoard, or None.
        device: PyTorch's name of the device to train on.
        share: this worker's share of the replica's batches.
        shard_cache_bytes: disk space of the node for copies of remote shards; None to leave a fifth of the disk free.
        validation: when to validate, and on how many images.
        gpu_augmentation: whether samples are made on the device, from encoded images.
    """

    run: Storage
    recipe: Recipe
    replica: int
    checkpoint_seconds: float = math.inf
    arithmetic: Arithmetic = FP32
    loader_processes: int = 0
    board: Any = None
    device: str = "cpu"
    share: Share = ALONE
    shard_cache_bytes: int | None = None
    validation: ValidationPlan = EVERY_EPOCH
    gpu_augmentation: bool = False

    @property
    def leads(self) -> bool:
        """Whether this worker writes the files and reports for the replica."""
        return self.share.rank == 0

    @property
    def sampling_seed(self) -> int:
        """Seed of the replica's order of images, samples and dropout masks."""
        return self.recipe.replica_sampling_seed(self.replica)

    @property
    def files(self) -> ReplicaFiles:
        """Names of this replica's files."""
        return ReplicaFiles(self.replica)
