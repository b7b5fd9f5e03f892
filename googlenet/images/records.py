"""Random access to (image bytes, label, image id) in Parquet shards, on any filesystem, in bounded memory."""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol, runtime_checkable

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from googlenet.images.record import Record

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
# Reading a record reads its row group, so groups are small; still smaller ones would make footers large. Encoded images
# do not compress further, and statistics would keep the smallest and largest image of a group in the footer.
ROW_GROUP_IMAGES = 8
WRITE_OPTIONS = {
    "row_group_size": ROW_GROUP_IMAGES,
    "compression": "none",
    "write_statistics": False,
    "write_page_checksum": True,
}
# Each worker has two such caches. A larger data set gains little from a larger one: the system caches local files, and
# nodes keep copies of remote ones.
DEFAULT_CACHE_BYTES = 1 << 28
# Parts of messages, Arrow's and the one of _file, about a file that can be read but not decoded.
DAMAGE = ("CRC", "deserialize", "Corrupt", "row groups have")
# An open file takes memory for its footer, 150 KB for 256 images, and a file descriptor.
OPEN_SHARDS = 256


@runtime_checkable
class OpensFiles(Protocol):
    """Interface that records need of a filesystem; those of pyarrow have it."""

    def open_input_file(self, path: str) -> pa.NativeFile:
        """Open a file for random access.

        Raises:
            OSError: the file cannot be read.
        """


@runtime_checkable
class KeepsCopies(Protocol):
    """A filesystem that opens copies of files stored elsewhere."""

    def forget(self, path: str) -> bool:
        """Drop the damaged copy of a file; return whether there was one."""


class RecordsError(OSError):
    """A shard cannot be reached; a later attempt may succeed."""


class ShardDamagedError(RecordsError):
    """A shard differs from what was written; another attempt does not help."""


class Records(Sequence[Record]):
    """Records of one split, by index, over shards on any pyarrow filesystem.

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

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # Sequence asks for an overload with slices
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        shard = bisect_right(self._ends, index)
        row = index - (self._ends[shard - 1] if shard else 0)
        group = self._readable_row_group(shard, row // ROW_GROUP_IMAGES)
        at = row % ROW_GROUP_IMAGES
        return Record(*(group.column(name)[at].as_py() for name in ("image_id", "image", "label")))

    def __getstate__(self) -> dict[str, object]:
        # Loader processes open their own files and fill their own cache.
        return {**self.__dict__, "_cache": OrderedDict(), "_cached_bytes": 0, "_files": OrderedDict()}

    def share_cache(self, processes: int) -> None:
        """Divide the bound of the cache by the number of processes that read in parallel."""
        self._cache_bytes //= processes

    def _readable_row_group(self, shard: int, group: int, is_fresh: bool = False) -> pa.Table:
        """Return the row group; a damaged copy is replaced once (``is_fresh``)."""
        try:
            return self._row_group(shard, group)
        except (OSError, pa.ArrowInvalid) as error:
            is_damaged = isinstance(error, pa.ArrowInvalid) or any(sign in str(error) for sign in DAMAGE)
            self._files.pop(shard, None)
            if is_damaged and not is_fresh and self._forget(shard):
                return self._readable_row_group(shard, group, is_fresh=True)
            if is_damaged:
                raise ShardDamagedError(f"{self._paths[shard]} is damaged: {error}") from error
            raise RecordsError(f"{self._paths[shard]} cannot be reached: {error}") from error

    def _forget(self, shard: int) -> bool:
        """Drop the copy of a shard; return whether there was one."""
        return isinstance(self._filesystem, KeepsCopies) and self._filesystem.forget(self._paths[shard])

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
                raise OSError(f"its row groups have {images} images, not {ROW_GROUP_IMAGES}; prepare the data again")
            self._files[shard] = file
            if len(self._files) > OPEN_SHARDS:
                self._files.popitem(last=False)[1].close(force=True)
        self._files.move_to_end(shard)
        return self._files[shard]
