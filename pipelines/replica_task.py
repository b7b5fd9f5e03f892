"""Which replica to train, from what, into where."""

import math
from dataclasses import dataclass
from typing import Any

from pipelines.recipes import Recipe
from pipelines.run_directory import ReplicaFiles
from pipelines.storage import Storage


@dataclass(frozen=True)
class ReplicaTask:
    """Which replica to train, from what, into where.

    Attributes:
        run: the run directory.
        recipe: what to compute.
        replica: its number.
        checkpoint_seconds: time between two checkpoints within an epoch; one is written after each epoch in any case.
        board: the handle of a ProgressBoard, or None.
    """

    run: Storage
    recipe: Recipe
    replica: int
    checkpoint_seconds: float = math.inf
    board: Any = None

    @property
    def sampling_seed(self) -> int:
        """Seed of everything that tells this replica from the others."""
        return self.recipe.sampling_seed + self.replica

    @property
    def files(self) -> ReplicaFiles:
        """Names of this replica's files."""
        return ReplicaFiles(self.replica)
