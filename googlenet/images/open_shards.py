"""Shards kept open for reads of single images."""

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import pyarrow as pa
import pyarrow.fs as pafs

# A local file takes a file descriptor.
OPEN_FILES = 256
# Opening an object costs a request, so objects stay open, but are opened anew after so many reads: there may be a local
# copy by then.
READS_OF_AN_OBJECT = 64


@runtime_checkable
class OpensFiles(Protocol):
    """Interface that records need of a filesystem; those of pyarrow have it."""

    def open_input_file(self, path: str) -> pa.NativeFile:
        """Open a file for random access.

        Raises:
            OSError: the file cannot be read.
        """


@dataclass
class _Object:
    file: pa.NativeFile
    reads_left: int = READS_OF_AN_OBJECT


class OpenShards:
    """Open shards by their number: few local files, and any number of objects, which hold no file descriptor.

    Args:
        filesystem: filesystem of the shards; it may open local copies.
        paths: the shards in order.
    """

    def __init__(self, filesystem: OpensFiles, paths: Sequence[str]) -> None:
        self._filesystem, self._paths = filesystem, paths
        self._files: OrderedDict[int, pa.NativeFile] = OrderedDict()
        self._objects: dict[int, _Object] = {}

    def __len__(self) -> int:
        return len(self._files) + len(self._objects)

    def for_one_read(self, shard: int) -> pa.NativeFile:
        """Return the open shard."""
        if (kept := self._objects.get(shard)) and not kept.reads_left:
            self.close(shard)
        if shard not in self._files and shard not in self._objects:
            self._open(shard)
        if shard in self._files:
            self._files.move_to_end(shard)
            return self._files[shard]
        self._objects[shard].reads_left -= 1
        return self._objects[shard].file

    def close(self, shard: int) -> None:
        """Close a shard if it is open."""
        if (file := self._files.pop(shard, None)) is not None:
            file.close()
        if (kept := self._objects.pop(shard, None)) is not None:
            kept.file.close()

    def _open(self, shard: int) -> None:
        path = self._paths[shard]
        is_local = isinstance(self._filesystem, pafs.LocalFileSystem)
        file = pa.OSFile(path) if is_local else self._filesystem.open_input_file(path)
        if not isinstance(file, pa.OSFile):
            self._objects[shard] = _Object(file)
            return
        if hasattr(os, "posix_fadvise"):  # otherwise the system reads ahead, which is in vain
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        self._files[shard] = file
        if len(self._files) > OPEN_FILES:
            self._files.popitem(last=False)[1].close()
