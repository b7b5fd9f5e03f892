"""Parquet files that may be damaged: Arrow has one error, OSError, for those and for a disk or server that fails."""

from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.run.storage import Storage
from pipelines.run.storage_failures import storage_failure

T = TypeVar("T")


def read_table(storage: Storage, name: str) -> pa.Table | None:
    """Return the content of a Parquet file; None if it is damaged.

    Raises:
        OSError: it cannot be read.
    """
    return _parsed(storage.read(name), pq.read_table)


def read_schema(storage: Storage, name: str) -> pa.Schema | None:
    """Return the schema of a Parquet file, whose footer alone is read; None if it is damaged.

    Raises:
        OSError: it cannot be read.
    """
    try:
        return pq.read_schema(storage.path(name), filesystem=storage.filesystem)
    except (OSError, pa.ArrowException):  # callers may delete what is damaged, and so the file itself decides
        return _parsed(storage.read(name), pq.read_schema)


def is_damage(error: BaseException) -> bool:
    """Return whether an exception of Arrow is about the content of a file, as far as can be told."""
    if isinstance(error, OSError):
        return error.errno is None and storage_failure(error) is None
    return isinstance(error, pa.ArrowException)


def _parsed(content: bytes, read: Callable[[pa.BufferReader], T]) -> T | None:
    try:
        return read(pa.BufferReader(content))
    except (OSError, pa.ArrowException):
        return None
