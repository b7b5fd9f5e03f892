"""Absolute paths in an SQLite store, corrected after the store or a run directory was moved or copied."""

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipelines.errors import UserError
from pipelines.run.directory import RUN, read_run
from pipelines.run.storage import Storage

ARTIFACTS = "mlartifacts"
LOCK_SECONDS = 60.0
# The table of the folders in which new runs keep their artifacts.
EXPERIMENTS = "experiments"
# Tables and columns in which MLflow keeps places of artifacts.
COLUMNS = (
    (EXPERIMENTS, "artifact_location"),
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

    What is only in the old folder, since the database was copied without its artifacts, stays there, also while that
    folder's disk is away.
    """
    here, is_writable = artifacts_beside(database), os.access(database, os.W_OK)
    with closing(sqlite3.connect(database, timeout=LOCK_SECONDS)) as store, store:
        places = [
            (table, column, place)
            for table, column in COLUMNS
            for (text,) in store.execute(f"SELECT DISTINCT {column} FROM {table}").fetchall()  # noqa: S608
            if (place := _Place.of(text, here))
        ]
        is_empty = here.is_dir() and not any(here.iterdir())
        moved = {place.old_folder for _, _, place in places if is_empty or (place.name and place.new(here).exists())}
        for table, column, place in places:
            new = place.new(here)
            is_gone = not place.path.exists() and (place.old_folder in moved or table == EXPERIMENTS)
            # Without its artifacts, a store that can only be read still shows the numbers.
            if is_writable and (new.exists() or is_gone):
                store.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (new.as_uri(), place.text))  # noqa: S608


@dataclass(frozen=True)
class _Place:
    """A place of artifacts that is not in the folder beside the database, as text and as a path."""

    text: str
    path: Path
    old_folder: Path
    name: str

    @classmethod
    def of(cls, text: str | None, here: Path) -> "_Place | None":
        """Return the place that ``text`` names; None if it is in ``here``, or nowhere in a folder of artifacts."""
        path = _local_path(text or "")
        if text is None or path is None or ARTIFACTS not in path.parts or path.is_relative_to(here):
            return None
        last = len(path.parts) - path.parts[::-1].index(ARTIFACTS)
        return cls(text, path, Path(*path.parts[:last]), "/".join(path.parts[last:]))

    def new(self, here: Path) -> Path:
        """Return where it is if its folder is now ``here``."""
        return here / self.name


def _local_path(place: str) -> Path | None:
    """Return the path of a file URI, or of a path as old versions of MLflow keep it; None for any other place."""
    if place.startswith("/"):
        return Path(place)
    return Path(unquote(urlsplit(place).path)) if place.startswith("file:") else None


def find_directory(database: Path, directory: str, wanted: str) -> Storage | None:
    """Return the run directory with the id ``wanted``, which was at ``directory``; None if it is gone.

    Directories beside the database come first, since the old place may hold the original of a copied store; of those,
    the one at ``directory``, since the others may be copies of it.
    """
    beside = sorted(str(path.parent) for path in database.parent.glob(f"*/{RUN}"))
    places = sorted([*beside, directory], key=lambda place: (place not in beside, place != directory))
    for place in places:
        run = Storage.at(place).impatient()
        if run.exists(RUN) and _id_in(run) == wanted:
            return run
    return None


def _id_in(run: Storage) -> object:
    """Return the id of the run in a directory; None if its file is damaged or of something else."""
    try:
        values = read_run(run)
    except UserError:
        return None
    return values.get("id") if isinstance(values, dict) else None
