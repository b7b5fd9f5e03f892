"""Random access to (image bytes, label, image id) in Parquet shards, on any filesystem, in bounded memory."""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol, runtime_checkable

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

# The label of an image that has none.
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
# A record is read together with its row group, so groups are small; smaller ones make footers large. Encoded images do
# not compress further, and the smallest and largest image of a group would be kept in the footer as its statistics.
ROW_GROUP_IMAGES = 8
WRITE_OPTIONS = {
    "row_group_size": ROW_GROUP_IMAGES,
    "compression": "none",
    "write_statistics": False,
    "write_page_checksum": True,
}
DEFAULT_CACHE_BYTES = 1 << 30
# What Arrow says of a file that it can read and not understand.
DAMAGE = ("CRC", "deserialize", "Corrupt", "row groups are of")
# An open file costs memory for its footer, 150 KB for 256 images, and a descriptor.
OPEN_SHARDS = 256


@runtime_checkable
class OpensFiles(Protocol):
    """What records need of a filesystem: pyarrow's have it."""

    def open_input_file(self, path: str) -> pa.NativeFile:
        """A file for random access.

        Raises:
            OSError: it cannot be read.
        """


@runtime_checkable
class KeepsCopies(Protocol):
    """A filesystem that opens copies of files which lie elsewhere."""

    def forget(self, path: str) -> bool:
        """Drop the copy of a file, which is damaged; whether there was one."""


class RecordsError(OSError):
    """A shard cannot be read: it is out of reach, and may come back."""


class ShardDamagedError(RecordsError):
    """A shard is another one than was written, and stays so."""


@dataclass(frozen=True)
class Record:
    """One image as it is stored: ``image`` holds the original file's bytes."""

    image_id: str
    image: bytes
    label: int


class Records(Sequence[Record]):
    """Records of one split, by index, over shards on any pyarrow filesystem.

    Args:
        filesystem: where the shards are.
        paths: the shards in their order.
        num_images: for each shard the number of its records, from the manifest; files are opened only when read.
        cache_bytes: bound on the row groups kept in memory.

    Raises:
        ShardDamagedError: on access, a shard that is damaged; pages carry checksums.
        RecordsError: on access, a shard that cannot be reached.
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
        """Keep to a part of the bound, where so many processes read side by side."""
        self._cache_bytes //= processes

    def _readable_row_group(self, shard: int, group: int, is_fresh: bool = False) -> pa.Table:
        """The row group; a copy that is damaged is replaced once (``is_fresh``)."""
        try:
            return self._row_group(shard, group)
        except (OSError, pa.ArrowInvalid) as error:
            is_damaged = isinstance(error, pa.ArrowInvalid) or any(sign in str(error) for sign in DAMAGE)
            self._files.pop(shard, None)
            if is_damaged and not is_fresh and self._forget(shard):
                return self._readable_row_group(shard, group, is_fresh=True)
            if is_damaged:
                raise ShardDamagedError(f"{self._paths[shard]} is damaged: {error}") from error
            raise RecordsError(f"{self._paths[shard]} is out of reach: {error}") from error

    def _forget(self, shard: int) -> bool:
        """Drop the copy of a shard; whether there was one."""
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
            # Pre-buffering asks a remote store for a row group's columns at once, and keeps them until the next.
            is_remote = not isinstance(self._filesystem, pafs.LocalFileSystem)
            file = pq.ParquetFile(stream, page_checksum_verification=True, pre_buffer=is_remote)
            if (images := file.metadata.row_group(0).num_rows) > ROW_GROUP_IMAGES:
                raise OSError(f"its row groups are of {images} images, not of {ROW_GROUP_IMAGES}; prepare it again")
            self._files[shard] = file
            if len(self._files) > OPEN_SHARDS:
                self._files.popitem(last=False)[1].close(force=True)
        self._files.move_to_end(shard)
        return self._files[shard]
