"""Which replica to train, from what, into where."""

import math
from dataclasses import dataclass
from typing import Any

from googlenet.arithmetic import FP32, Arithmetic
from googlenet.data_parallel import ALONE, Share
from pipelines.run.directory import ReplicaFiles
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage


@dataclass(frozen=True)
class ReplicaTask:
    """Which replica to train, from what, into where.

    Attributes:
        run: the run directory.
        recipe: what to compute.
        replica: its number.
        checkpoint_seconds: time between two checkpoints within an epoch; there is one at each epoch's end in any case.
        arithmetic: of the training.
        loader_processes: that load samples beside the training; 0 loads between the steps.
        board: the handle of a ProgressBoard, or None.
        device: that computes, as PyTorch names it.
        share: of this worker in the replica's batches.
        shard_cache_bytes: of its disk that the node may use for copies of remote shards; None for most of what is free.
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

    @property
    def leads(self) -> bool:
        """Whether this worker is the one that writes files and speaks for the replica."""
        return self.share.rank == 0

    @property
    def sampling_seed(self) -> int:
        """Seed of its order, its samples and its dropout masks."""
        return self.recipe.replica_sampling_seed(self.replica)

    @property
    def files(self) -> ReplicaFiles:
        """Names of this replica's files."""
        return ReplicaFiles(self.replica)
