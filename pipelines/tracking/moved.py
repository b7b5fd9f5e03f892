"""What an SQLite store keeps as absolute paths, corrected after the store or a run directory was moved or copied."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipelines.run.directory import RUN
from pipelines.run.storage import Storage

ARTIFACTS = "mlartifacts"
LOCK_SECONDS = 60.0
# Tables and columns in which MLflow keeps places of artifacts.
COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)


def artifacts_beside(database: Path) -> Path:
    """Return the folder of a store's artifacts: MLflow's default is relative to the process's current folder."""
    return database.parent / ARTIFACTS


def correct_artifact_places(database: Path) -> None:
    """Let a store that was moved or copied find its artifacts in the folder beside it.

    What is only in the old folder, since the database was copied without its artifacts, stays there.
    """
    here, is_writable = artifacts_beside(database), os.access(database, os.W_OK)
    with closing(sqlite3.connect(database, timeout=LOCK_SECONDS)) as store, store:
        for table, column in COLUMNS:
            for (old,) in store.execute(f"SELECT DISTINCT {column} FROM {table}").fetchall():  # noqa: S608
                new = _moved(old, here)
                if new and is_writable:  # without its artifacts, a store that can only be read still shows the numbers
                    store.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (new, old))  # noqa: S608


def _moved(place: str | None, here: Path) -> str:
    """Return where ``place`` is now; empty if it is where it was, or nowhere in a folder of artifacts."""
    path = _local_path(place or "")
    if path is None or ARTIFACTS not in path.parts or path.is_relative_to(here):
        return ""
    parts = path.parts
    last = len(parts) - 1 - parts[::-1].index(ARTIFACTS)
    new = here.joinpath(*parts[last + 1 :])
    return "" if path.exists() and not new.exists() else new.as_uri()


def _local_path(place: str) -> Path | None:
    """Return the path of a file URI, or of a path as old versions of MLflow keep it; None for any other place."""
    if place.startswith("/"):
        return Path(place)
    return Path(unquote(urlsplit(place).path)) if place.startswith("file:") else None


def find_directory(database: Path, directory: str, wanted: str) -> Storage | None:
    """Return the run directory with the id ``wanted``, which was at ``directory``; None if it is gone.

    A directory beside the database comes first: the old place may hold the original of a copy.
    """
    for place in (*_beside(database), directory):
        run = Storage.at(place).impatient()
        if run.exists(RUN) and wanted.encode() in run.read(RUN):
            return run
    return None


def _beside(database: Path) -> Iterator[str]:
    return (str(path.parent) for path in sorted(database.parent.glob(f"*/{RUN}")))
