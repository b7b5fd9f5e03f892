"""Exports of the run of an earlier version: the run, its ensemble, and the files of an export."""

from pathlib import Path

from googlenet import Ensemble
from pipelines.export.ensemble_folder import export_ensemble
from pipelines.run.storage import Storage
from tests.pipelines.test_old_run import OLD

NAMES = ["README.md", "config.json", "recipe.json", "replica_0.safetensors", "replica_1.safetensors", "report.json"]
RUN = Storage.at(str(OLD))


def of_the_run() -> Ensemble:
    return Ensemble.load([OLD / f"replicas/{replica}/weights.safetensors" for replica in (0, 1)])


def export_beside(run: Path) -> Path:
    """Export a run; return the folder, beside that of the run."""
    export_ensemble(Storage.at(str(run)), str(run.parent / "exported"))
    return run.parent / "exported"
