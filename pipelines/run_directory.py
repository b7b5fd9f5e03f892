"""The run directory: the only interface between the stages. Its layout is defined here and nowhere else.

::

    run.json                          recipe and data of the run; a different one is refused
    dataset/manifest.json             classes, counts, shards, digest
    dataset/{train,val}/*.parquet     encoded images
    replicas/<k>/weights.safetensors  the averaged weights of a finished replica
    replicas/<k>/metrics.jsonl        one line an epoch
    replicas/<k>/failure.txt          the traceback of a replica that failed
    predictions/*.parquet             one row an image: probabilities of every replica and crop policy
    report/                           report.json, report.md
    mlflow.db, mlartifacts/           MLflow's store, unless another server is named
"""

import json
import uuid
from dataclasses import dataclass
from typing import Any

from pipelines.errors import UserError
from pipelines.recipes import Recipe, differences
from pipelines.storage import Storage

RUN = "run.json"
DATASET = "dataset"
PREDICTIONS = "predictions"
REPORT = "report"


@dataclass(frozen=True)
class ReplicaFiles:
    """Names of one replica's files, below the run directory."""

    replica: int

    @property
    def folder(self) -> str:
        """Everything of this replica, Ray Train's checkpoints included."""
        return f"replicas/{self.replica}"

    @property
    def weights(self) -> str:
        """Averaged weights; there once the replica is finished."""
        return f"{self.folder}/weights.safetensors"

    @property
    def metrics(self) -> str:
        """One JSON object a line, one line an epoch."""
        return f"{self.folder}/metrics.jsonl"

    @property
    def failure(self) -> str:
        """Traceback of the last failure."""
        return f"{self.folder}/failure.txt"


def claim(run: Storage, recipe: Recipe) -> None:
    """Bind ``run`` to ``recipe``, or check that it already is.

    Raises:
        UserError: it belongs to another recipe, or holds files that are no run.
    """
    if run.exists(RUN):
        if found := differences(run.read_json(RUN)["recipe"], recipe.to_dict()):
            raise UserError(
                f"{run} holds a run of another recipe:\n  "
                + "\n  ".join(found)
                + "\nRepeat it with the same options, or choose another --run-dir."
            )
        return
    if strangers := run.files(""):
        raise UserError(f"{run} is not empty and holds no run ({strangers[0]}, ...); choose another --run-dir")
    # The id tells this run from an earlier one at the same place, in trackers that remember both.
    run.write_json(RUN, {"id": uuid.uuid4().hex, "recipe": recipe.to_dict()})


def run_id(run: Storage) -> str:
    """The identity of a claimed run directory."""
    return str(run.read_json(RUN)["id"])


def replica_name(replica: int) -> str:
    """What a replica is called in predictions, reports and MLflow."""
    return f"replica_{replica}"


def read_metrics(run: Storage, replica: int) -> list[dict[str, Any]]:
    """The finished epochs of a replica, oldest first."""
    name = ReplicaFiles(replica).metrics
    return [json.loads(line) for line in run.read(name).decode().splitlines()] if run.exists(name) else []


def finished_replicas(run: Storage, replicas: int) -> list[int]:
    """The replicas whose weights are there."""
    return [replica for replica in range(replicas) if run.exists(ReplicaFiles(replica).weights)]
