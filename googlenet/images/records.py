"""Random access to (image bytes, label, image id) in Parquet shards, on any filesystem, in bounded memory."""

import io
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, islice
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from googlenet.images.image_index import ENTRY, INDEX, Index, check_image, decode_index, encode_index, index_images
from googlenet.images.open_shards import OpensFiles, OpenShards
from googlenet.images.record import Record
from googlenet.images.rereading import read_again

T = TypeVar("T")
# The label of an unlabelled image.
NO_LABEL = -1
SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("image", pa.binary()),
        ("label", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)
# Without an index, reading a record reads its row group, so groups are small; still smaller ones would make footers
# large. Encoded images do not compress further, and statistics would keep the smallest and largest image of a group in
# the footer. A dictionary or compression would leave no image in one piece for the index to point at.
ROW_GROUP_IMAGES = 8
WRITE_OPTIONS: dict[str, Any] = {
    "row_group_size": ROW_GROUP_IMAGES,
    "compression": "none",
    "use_dictionary": ["label", "width", "height"],
    "write_statistics": False,
    "write_page_checksum": True,
}
# Each worker has two such caches. A larger data set gains little from a larger one: the system caches local files, and
# nodes keep copies of remote ones.
DEFAULT_CACHE_BYTES = 1 << 28
# Parts of Arrow's messages about a file that can be read but not decoded.
DAMAGE = ("CRC", "deserialize", "Corrupt", "too short", "end of stream")
# An open Parquet file takes memory for its footer, 150 KB for 256 images, and a file descriptor.
OPEN_SHARDS = 256


@runtime_checkable
class KeepsCopies(Protocol):
    """A filesystem that opens copies of files stored elsewhere."""

    def forget(self, path: str) -> None:
        """Drop the damaged copy of a file, if there is one."""


class RecordsError(OSError):
    """A shard cannot be reached; a later attempt may succeed."""


class ShardDamagedError(RecordsError):
    """A shard differs from what was written, as each of several reads shows; another attempt does not help."""


@runtime_checkable
class Sink(Protocol):
    """A stream that takes bytes."""

    def write(self, data: bytes, /) -> int:
        """Write all of ``data``."""


def write_records(stream: Sink, rows: Iterable[Sequence[Any]], metadata: Mapping[bytes, bytes]) -> None:
    """Write a shard with an index of its images, one row group after the other, so that little is held at once.

    Args:
        stream: where to write.
        rows: values in the order of :data:`SCHEMA`.
        metadata: added to the footer.
    """
    schema = SCHEMA.with_metadata(dict(metadata))
    options = {name: value for name, value in WRITE_OPTIONS.items() if name != "row_group_size"}
    written, position, indexes, rows = io.BytesIO(), 0, [np.zeros(0, ENTRY)], iter(rows)
    with pq.ParquetWriter(written, schema, **options) as writer:
        while group := list(islice(rows, ROW_GROUP_IMAGES)):
            columns = dict(zip(SCHEMA.names, map(list, zip(*group, strict=True)), strict=True))
            writer.write_table(pa.table(columns, schema), ROW_GROUP_IMAGES)
            content = _taken(written)
            indexes.append(index_images(content, position, columns["image"], columns["label"]))
            stream.write(content)
            position += len(content)
        if not position:  # readers expect a row group
            writer.write_table(schema.empty_table())
        writer.add_key_value_metadata({INDEX: encode_index(np.concatenate(indexes))})
    stream.write(_taken(written))


def _taken(buffer: io.BytesIO) -> bytes:
    """Return what is in a buffer, and empty it; Arrow counts by itself how much it has written."""
    content = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return content


class Records(Sequence[Record]):
    """Records of one split, by index, over shards on any pyarrow filesystem.

    ``records[i]`` reads a whole row group and keeps it, which suits reading in order; :meth:`labelled_image` reads one
    image.

    Args:
        filesystem: filesystem of the shards.
        paths: the shards in order.
        num_images: number of records in each shard, from the manifest; files are opened only when read.
        cache_bytes: bound on the row groups kept in memory.

    Raises:
        ShardDamagedError: on access, if a shard is damaged; pages have checksums.
        RecordsError: on access, if a shard cannot be reached.
    """

    def __init__(
        self,
        filesystem: OpensFiles,
        paths: Sequence[str],
        num_images: Sequence[int],
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        if len(paths) != len(num_images):
            raise ValueError(f"{len(paths)} shards, but {len(num_images)} counts of images")
        self._filesystem = filesystem
        self._paths = list(paths)
        self._ends = list(accumulate(num_images))
        self._cache: OrderedDict[tuple[int, int], pa.Table] = OrderedDict()
        self._cached_bytes = 0
        self._cache_bytes = cache_bytes
        self._files: OrderedDict[int, pq.ParquetFile] = OrderedDict()
        self._open = OpenShards(filesystem, self._paths)
        self._indexes: dict[int, Index | None] = {}

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # Sequence asks for an overload with slices
        shard, row = self._place_of(index)
        group = self._reading(shard, lambda: self._row_group(shard, row // ROW_GROUP_IMAGES))
        at = row % ROW_GROUP_IMAGES
        return Record(*(group.column(name)[at].as_py() for name in ("image_id", "image", "label")))

    def labelled_image(self, index: int) -> tuple[bytes, int]:
        """Return the bytes of an image and its label, by one read of these bytes if its shard has an index."""
        shard, row = self._place_of(index)
        indexed = self._reading(shard, lambda: self._indexed_image(shard, row))
        if indexed is None:
            record = self[index]
            return record.image, record.label
        return indexed

    def _place_of(self, index: int) -> tuple[int, int]:
        """Return the shard of a record, and its row there."""
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        shard = bisect_right(self._ends, index)
        return shard, index - (self._ends[shard - 1] if shard else 0)

    def __getstate__(self) -> dict[str, object]:
        # Loader processes open their own files and fill their own cache.
        opened = {"_files": OrderedDict(), "_open": OpenShards(self._filesystem, self._paths), "_indexes": {}}
        return {**self.__dict__, **opened, "_cache": OrderedDict(), "_cached_bytes": 0}

    def share_cache(self, processes: int) -> None:
        """Divide the bound of the cache by the number of processes that read in parallel."""
        self._cache_bytes //= processes

    def _reading(self, shard: int, read: Callable[[], T]) -> T:
        """Return what ``read`` returns of a shard; what looks damaged is read again, from a new copy if it was one."""
        try:
            return read_again(lambda: self._read_once(shard, read), ShardDamagedError)
        except RecordsError:
            # Not before: by the index, a shard that another one has replaced is noticed at each read.
            self._indexes.pop(shard, None)
            raise

    def _read_once(self, shard: int, read: Callable[[], T]) -> T:
        try:
            return read()
        except (OSError, ValueError) as error:  # Arrow's errors about content are ValueErrors
            self._files.pop(shard, None)
            self._open.close(shard)
            if not isinstance(error, ValueError) and not any(sign in str(error) for sign in DAMAGE):
                raise RecordsError(f"{self._paths[shard]} cannot be reached: {error}") from error
            if isinstance(self._filesystem, KeepsCopies):
                self._filesystem.forget(self._paths[shard])
            fix = "restore this file, or remove the folder of the prepared images and prepare them again"
            raise ShardDamagedError(f"{self._paths[shard]} is damaged: {error}; {fix}") from error

    def _row_group(self, shard: int, group: int) -> pa.Table:
        key = shard, group
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        table = self._file(shard).read_row_group(group, columns=["image_id", "image", "label"])
        self._cache[key] = table
        self._cached_bytes += table.nbytes
        while self._cached_bytes > self._cache_bytes and len(self._cache) > 1:
            _, dropped = self._cache.popitem(last=False)
            self._cached_bytes -= dropped.nbytes
        return table

    def _file(self, shard: int) -> pq.ParquetFile:
        if shard not in self._files:
            stream = self._filesystem.open_input_file(self._paths[shard])
            # Pre-buffering requests a row group's columns from remote storage at once, and keeps them until the next.
            is_remote = not isinstance(self._filesystem, pafs.LocalFileSystem)
            file = pq.ParquetFile(stream, page_checksum_verification=True, pre_buffer=is_remote)
            if (images := file.metadata.row_group(0).num_rows) > ROW_GROUP_IMAGES:
                raise ValueError(f"its row groups have {images} images, not {ROW_GROUP_IMAGES}")
            self._files[shard] = file
            if len(self._files) > OPEN_SHARDS:
                self._files.popitem(last=False)[1].close(force=True)
        self._files.move_to_end(shard)
        return self._files[shard]

    def _indexed_image(self, shard: int, row: int) -> tuple[bytes, int] | None:
        """Return an image and its label; None if the shard has no index."""
        index = self._index(shard)
        if index is None:
            return None
        entry = index[row]
        image = self._open.for_one_read(shard).read_at(int(entry["bytes"]), int(entry["offset"]))
        check_image(image, entry, row)
        return image, int(entry["label"])

    def _index(self, shard: int) -> Index | None:
        """Return the index of a shard, which stays in memory: 20 bytes an image."""
        if shard not in self._indexes:
            index = decode_index(pq.read_metadata(self._open.for_one_read(shard)).metadata or {})
            images = self._ends[shard] - (self._ends[shard - 1] if shard else 0)
            if index is None:
                self._open.close(shard)
            elif len(index) < images:
                raise ValueError(f"it has {len(index)} images instead of {images}")
            self._indexes[shard] = index
        return self._indexes[shard]
