"""Disk cache for the shards of a remote data set: random access reads each shard hundreds of times an epoch.

A shard is downloaded completely when it is first read, if there is room. No copy is evicted for another shard of the
same data set, since in random order all are equally likely to be needed. Shards without room are read from the object
store, an image at a time.
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

from googlenet.images.open_shards import OpensFiles
from pipelines.run.dataset import Manifest
from pipelines.run.directory import DATASET
from pipelines.run.storage import PARTIAL, Storage

# Without a bound, this share of the disk is left free.
FREE_SHARE = 0.2
# Copies of other data sets are evicted to make room when they have been unused for longer than this.
FORGOTTEN_SECONDS = 86400.0
# Size of a request to the object store.
DOWNLOAD_BYTES = 8 << 20


# Folders for temporary files that may be large; some systems keep those of the usual one in memory.
LARGE_FOLDER = Path("/var/tmp")  # noqa: S108
MOUNTS = Path("/proc/mounts")
IN_MEMORY = ("tmpfs", "ramfs")


def folder() -> Path:
    """Return the folder of this user's copies on this node: on a disk, if it has one for temporary files."""
    usual = Path(tempfile.gettempdir())
    is_better = _is_in_memory(usual) and not _is_in_memory(LARGE_FOLDER) and os.access(LARGE_FOLDER, os.W_OK)
    return (LARGE_FOLDER if is_better else usual) / f"googlenet-shards-{os.getuid()}"


def _is_in_memory(place: Path) -> bool:
    """Return whether files in ``place`` take memory; False where the system does not say."""
    with suppress(OSError, ValueError):
        mounts = [line.split(" ")[1:3] for line in MOUNTS.read_text().splitlines()]
        holding = [(len(Path(at).parts), kind) for at, kind in mounts if place.resolve().is_relative_to(at)]
        # Of two at the same place, the later one covers the other.
        return max(reversed(holding), key=lambda mount: mount[0], default=(0, ""))[1] in IN_MEMORY
    return False


@dataclass(frozen=True)
class ShardCache:
    """Opens shards for reading, from copies on disk where possible. All processes of a node share the copies.

    Attributes:
        filesystem: filesystem of the object store.
        folder: folder of the copies.
        names: name of the copy by the shard's path; it contains the shard's digest, so a copy is never out of date.
        max_bytes: upper bound of the copies; None to leave a fifth of the disk free.
    """

    filesystem: pafs.FileSystem
    folder: Path
    names: dict[str, str]
    max_bytes: int | None = None

    @classmethod
    def of(cls, run: Storage, manifest: Manifest, max_bytes: int | None) -> "ShardCache":
        """Return this node's cache for the data set of ``run``; no split's copies are evicted for another split."""
        shards = (shard for split in manifest.splits.values() for shard in split.shards)
        names = {run.path(f"{DATASET}/{shard.file}"): f"{shard.digest}.parquet" for shard in shards}
        return cls(run.filesystem, folder(), names, max_bytes)

    def open_input_file(self, path: str) -> pa.NativeFile:
        """Open the shard at ``path`` of the object store.

        Raises:
            OSError: the object store cannot be read.
        """
        copy = self.folder / self.names[path]
        if not self._is_ours():
            return self.filesystem.open_input_file(path)
        with suppress(OSError):  # no copy yet; the folder may also be cleared at any time
            return _open(copy)
        # The handle also tells the size, and serves the reads if there is no room for a copy: no request is repeated.
        shard = self.filesystem.open_input_file(path)
        with suppress(OSError):
            if self._keep(shard, copy):
                kept = _open(copy)
                shard.close()
                return kept
        shard.seek(0)
        return shard

    def forget(self, path: str) -> None:
        """Delete the damaged copy of the shard at ``path``, if there is one; the shard itself stays."""
        (self.folder / self.names[path]).unlink(missing_ok=True)

    def _is_ours(self) -> bool:
        """Create the folder if necessary; return whether only this user could have written to it."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return self.folder.stat().st_uid == os.getuid()
        except OSError:
            return False

    def _keep(self, shard: pa.NativeFile, copy: Path) -> bool:
        """Copy the shard to the disk, if there is room; return whether there is a copy now.

        Raises:
            OSError: another process is copying it, the disk fails, or the store does, which the next read will report.
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
        for leftover in self.folder.glob(f"{copy.name}{PARTIAL}*"):  # left by a killed process, since we hold the lock
            leftover.unlink(missing_ok=True)
        partial = copy.with_name(f"{copy.name}{PARTIAL}{os.getpid()}")
        try:
            with partial.open("wb") as file:
                shutil.copyfileobj(shard, file, DOWNLOAD_BYTES)
                file.flush()
                os.fsync(file.fileno())  # otherwise a copy could be empty after a power failure
            partial.replace(copy)
        finally:
            partial.unlink(missing_ok=True)

    def _has_room(self, size: int) -> bool:
        if self._fits(size):
            return True
        ours = set(self.names.values())
        # Of parts that killed downloads left, those of other data sets would stay for ever.
        files = ((path.name.partition(PARTIAL)[0], path) for path in self.folder.glob("*.parquet*"))
        others = ((path.stat().st_mtime, path) for shard, path in files if shard not in ours)
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
    os.utime(copy)  # marks the copy as used, for jobs on other data sets that need room
    return pa.OSFile(str(copy))


def open_shards_of(run: Storage, manifest: Manifest, max_bytes: int | None) -> OpensFiles:
    """Return what opens the shards of ``run``: its local filesystem, or a cache in front of the object store."""
    return run.filesystem if run.is_local else ShardCache.of(run, manifest, max_bytes)
