"""Parquet tables with checksums of their pages; damage is told from a storage that does not answer."""

from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from googlenet.images.rereading import read_again
from pipelines.errors import DamagedFileError
from pipelines.run.storage import Storage
from pipelines.run.storage_failures import storage_failure

T = TypeVar("T")
# What Arrow raises about the content of a file: among others, an OSError where a page or the footer cannot be decoded.
CONTENT_ERRORS = (OSError, ValueError, pa.ArrowException)


def write_table(storage: Storage, name: str, table: pa.Table) -> None:
    """Write a table as one complete file; without checksums, most flipped bits would be read as other numbers."""
    with storage.writing(name) as stream:
        pq.write_table(table, stream, compression="zstd", write_page_checksum=True)


def read_table(storage: Storage, name: str) -> pa.Table | None:
    """Return the table in a file, None if it is damaged; files of earlier versions have no checksums.

    Raises:
        OSError: the storage does not answer, or has no such file.
    """
    return _of_content(storage, name, lambda file: file.read())


def read_schema(storage: Storage, name: str) -> pa.Schema | None:
    """Return the columns and metadata of the table in a file, from its footer alone; None if that is damaged.

    Raises:
        OSError: the storage does not answer, or has no such file.
    """
    try:
        return pq.read_schema(storage.path(name), filesystem=storage.filesystem)
    except CONTENT_ERRORS:  # also if the storage has failed: then it fails again, or now answers
        return _of_content(storage, name, lambda file: file.schema_arrow)


def _of_content(storage: Storage, name: str, look: Callable[[pq.ParquetFile], T]) -> T | None:
    """Return what ``look`` returns of a file that is in memory, where every error is about its content."""

    def looked_at() -> T:
        content = storage.read(name)
        try:
            with pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True) as file:
                return look(file)
        except CONTENT_ERRORS as error:
            raise DamagedFileError(f"{storage.below(name)} is damaged: {error}") from error

    try:
        return read_again(looked_at, DamagedFileError)
    except DamagedFileError:
        return None


def is_damage(error: Exception) -> bool:
    """Return whether an error while a table was read is about its content, as far as the error tells."""
    # pyarrow.parquet raises a FileNotFoundError without a number.
    has_number = isinstance(error, FileNotFoundError) or (isinstance(error, OSError) and error.errno is not None)
    return not has_number and storage_failure(error) is None
