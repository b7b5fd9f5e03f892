"""Shards of a remote data set kept on the node's disk: random access reads each of them hundreds of times an epoch.

A shard is fetched whole when it is first read, while there is room. None is given up for another one of the same data
set: in random order none is likelier to be needed, and what has no room is read from the store, a row group at a time.
"""

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from googlenet.images.records import OpensFiles
from pipelines.run.dataset import Manifest
from pipelines.run.directory import DATASET
from pipelines.run.storage import PARTIAL, Storage

# Where no bound is given, so much of the disk is left to others.
FREE_SHARE = 0.2
# Copies of other data sets go when they are in the way and so old.
FORGOTTEN_SECONDS = 86400.0
# A request to the store for each.
DOWNLOAD_BYTES = 8 << 20


def folder() -> Path:
    """Where this user's copies are kept on this node."""
    return Path(tempfile.gettempdir()) / f"googlenet-shards-{os.getuid()}"


@dataclass(frozen=True)
class ShardCache:
    """Opens shards for reading, from the disk where they are kept there. All processes of a node share it.

    Attributes:
        filesystem: the store's.
        folder: where copies are kept.
        names: the copy's name by the shard's path; it holds the shard's digest, so that a copy is never out of date.
        max_bytes: bound on the copies; None to leave a share of the disk free.
    """

    filesystem: pafs.FileSystem
    folder: Path
    names: dict[str, str]
    max_bytes: int | None = None

    @classmethod
    def of(cls, run: Storage, manifest: Manifest, max_bytes: int | None) -> "ShardCache":
        """The cache of this node for the data set of ``run``, of which no split's copies make room for another's."""
        shards = (shard for split in manifest.splits.values() for shard in split.shards)
        names = {run.path(f"{DATASET}/{shard.file}"): f"{shard.digest}.parquet" for shard in shards}
        return cls(run.filesystem, folder(), names, max_bytes)

    def open_input_file(self, path: str) -> pa.NativeFile:
        """The shard at ``path`` of the store.

        Raises:
            OSError: the store cannot be read.
        """
        copy = self.folder / self.names[path]
        if not self._is_ours():
            return self.filesystem.open_input_file(path)
        with suppress(OSError):  # there is none yet; and somebody may clear the folder at any time
            return _open(copy)
        # This tells its size, too; where there is no room for a copy, it is read from here. Nothing is asked twice.
        shard = self.filesystem.open_input_file(path)
        with suppress(OSError):
            if self._keep(shard, copy):
                kept = _open(copy)
                shard.close()
                return kept
        shard.seek(0)
        return shard

    def forget(self, path: str) -> bool:
        """Drop the copy of the shard at ``path``, which is damaged; whether there was one."""
        copy = self.folder / self.names[path]
        had = copy.exists()
        copy.unlink(missing_ok=True)
        return had

    def _is_ours(self) -> bool:
        """Whether there is a folder that nobody else could have written to; it is made if there is none."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return self.folder.stat().st_uid == os.getuid()
        except OSError:
            return False

    def _keep(self, shard: pa.NativeFile, copy: Path) -> bool:
        """Copy the shard to the disk; whether there is a copy now, which no room or another process at it prevent.

        Raises:
            OSError: the disk fails and is none to keep copies on; or the store, which is told when the shard is read.
        """
        with (self.folder / f"{copy.stem}.lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if copy.exists():
                return True
            if not self._has_room(shard.size()):
                return False
            self._download(shard, copy)
            return True

    def _download(self, shard: pa.NativeFile, copy: Path) -> None:
        for leftover in self.folder.glob(f"{copy.name}{PARTIAL}*"):  # of a process that was killed: we hold the lock
            leftover.unlink(missing_ok=True)
        partial = copy.with_name(f"{copy.name}{PARTIAL}{os.getpid()}")
        try:
            with partial.open("wb") as file:
                shutil.copyfileobj(shard, file, DOWNLOAD_BYTES)
                file.flush()
                os.fsync(file.fileno())  # or a copy could be empty after a power cut
            partial.replace(copy)
        finally:
            partial.unlink(missing_ok=True)

    def _has_room(self, size: int) -> bool:
        if self._fits(size):
            return True
        ours = set(self.names.values())
        others = ((path.stat().st_mtime, path) for path in self.folder.glob("*.parquet") if path.name not in ours)
        for used, path in sorted(others):
            if time.time() - used <= FORGOTTEN_SECONDS:
                break
            path.unlink(missing_ok=True)
            if self._fits(size):
                return True
        return False

    def _fits(self, size: int) -> bool:
        if self.max_bytes is not None:
            return sum(entry.stat().st_size for entry in os.scandir(self.folder)) + size <= self.max_bytes
        disk = shutil.disk_usage(self.folder)
        return disk.free - size >= FREE_SHARE * disk.total


def _open(copy: Path) -> pa.NativeFile:
    os.utime(copy)  # in use, for other data sets' jobs that look for room
    return pa.OSFile(str(copy))


def open_shards_of(run: Storage, manifest: Manifest, max_bytes: int | None) -> OpensFiles:
    """What reads the shards of ``run``: the disk itself, or a cache before a store."""
    return run.filesystem if run.is_local else ShardCache.of(run, manifest, max_bytes)
