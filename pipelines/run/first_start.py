"""The start of evaluate_ensemble.py that began the predictions of a run, kept in preflight.json until others begin.

A repeat that finds all predictions changes nothing, so it is not the start that a report names.
"""

from collections.abc import Mapping
from typing import Any

from pipelines.run.directory import PREFLIGHT
from pipelines.run.storage import Storage

KEY = "evaluated_by"


def keep_start(run: Storage, start: Mapping[str, Any] | None) -> None:
    """Keep the start that begins the predictions, or none for those of a training job, whose log has its start."""
    kept = {name: value for name, value in run.read_json(PREFLIGHT).items() if name != KEY}
    run.write_json(PREFLIGHT, {**kept, KEY: start} if start else kept)


def read_start(run: Storage) -> Any:
    """Return what :func:`keep_start` kept; None if there is none, as by an earlier version."""
    return run.read_json(PREFLIGHT).get(KEY) if run.exists(PREFLIGHT) else None
