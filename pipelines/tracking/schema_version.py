"""Schema of an SQLite store: brought up to this MLflow's version, with a copy of what it was before."""

import sqlite3
from contextlib import closing
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from pipelines.errors import UserError
from pipelines.job.console import complain
from pipelines.run.storage import PARTIAL


def bring_up_to_this_version(database: Path, tracking_uri: str) -> None:
    """Migrate the store of an older MLflow; a copy of the database stays beside it.

    Raises:
        UserError: the file is no database, or a newer MLflow has migrated it.
    """
    older = _older_revision(database)
    if not older:
        return
    from mlflow.db import upgrade

    # A store that was restored from such a copy has changed since.
    endings = ("" if number == 1 else f"-{number}" for number in count(1))
    copies = (database.with_name(f"{database.name}.{older}{ending}") for ending in endings)
    copy = next(copy for copy in copies if not copy.exists())
    _copy(database, copy)
    complain(f"the MLflow store {database} has the schema of an older MLflow; migrating it (copy: {copy})")
    upgrade.callback(tracking_uri)


def check_version(database: Path) -> None:
    """Refuse a store that cannot be written, and would have to be migrated.

    Raises:
        UserError: the file is no database, or an older or newer MLflow has made it.
    """
    if _older_revision(database):
        raise UserError(
            f"the MLflow store {database} has the schema of an older MLflow, and you cannot write it: copy its folder, "
            "with mlartifacts, to one of your own, and open the copy"
        )


def _older_revision(database: Path) -> str:
    """Return the revision of a database if it has to be migrated; empty otherwise.

    Raises:
        UserError: the file is no database, or a newer MLflow has migrated it.
    """
    current = _revision(database)
    if not current or current == _revisions().get_current_head():
        return ""
    import mlflow
    from alembic.util import CommandError

    try:
        _revisions().get_revision(current)
    except CommandError as error:
        raise UserError(
            f"the MLflow store {database} was written by a newer MLflow than the {mlflow.__version__} here (schema "
            f"{current}): use that version, or name another store with --tracking-uri"
        ) from error
    return current


def _revision(database: Path) -> str:
    """Return the revision of a database's schema; empty if MLflow has made no tables in it."""
    try:
        with closing(sqlite3.connect(database)) as store:
            if not store.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchall():
                return ""
            rows = store.execute("SELECT version_num FROM alembic_version").fetchall()
    except sqlite3.DatabaseError as error:
        raise UserError(f"{database} cannot be used as an MLflow store: {error}") from error
    return str(rows[0][0]) if rows else ""


@cache
def _revisions() -> Any:
    """Return the revisions that this MLflow knows."""
    import mlflow
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(Path(mlflow.__file__).parent / "store/db_migrations"))


def _copy(database: Path, copy: Path) -> None:
    partial = copy.with_name(f"{copy.name}{PARTIAL}")
    try:
        with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(partial)) as target:
            source.backup(target)
        partial.replace(copy)
    finally:
        partial.unlink(missing_ok=True)
