"""Parameters of a training worker."""

import math
from dataclasses import dataclass
from typing import Any

from googlenet.network.arithmetic import FP32, Arithmetic
from googlenet.training.data_parallel import ALONE, Share
from pipelines.run.directory import ReplicaFiles
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training.validation_plan import EVERY_EPOCH, ValidationPlan


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
        board: handle of a TrainingBoard, or None.
        device: PyTorch's name of the device to train on.
        share: this worker's share of the replica's batches.
        shard_cache_bytes: disk space of the node for copies of remote shards; None to leave a fifth of the disk free.
        validation: when to validate, and on how many images.
        gpu_augmentation: whether samples are made on the device, from encoded images.
        cuda_graphs: whether steps are taken as CUDA graphs, on a GPU by one worker.
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
    cuda_graphs: bool = False

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
