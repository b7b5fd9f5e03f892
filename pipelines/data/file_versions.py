"""Sizes and times of the files that hold images, to notice that a file was replaced under the same name.

No file is opened. Data with versions of their own, the commits of a data set on Hugging Face, need neither.
"""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import pyarrow.fs as pafs

from pipelines.data.file_names import original, readable
from pipelines.data.huggingface_parquet import ParquetImages
from pipelines.data.listing import ImageFile, ImageReader, storage_read_by
from pipelines.data.published_data import commit_read_by
from pipelines.data.tar_archives import TarImages
from pipelines.run.storage import Storage

# A store names a thousand files in one answer, so that one by one is slower from here on.
MOST_ASKED_ONE_BY_ONE = 100
READERS = 16


@dataclass(frozen=True)
class FileVersions:
    """Versions of the files that ``reader`` reads."""

    reader: ImageReader

    def digest(self, images: Sequence[ImageFile]) -> str:
        """Return a digest of the sizes and times of the files that hold these images, or the commit.

        Empty for images that are in no files. A missing file does not fail here: whoever reads it will name it.
        """
        if commit := commit_read_by(self.reader):
            return commit
        if (root := storage_read_by(self.reader)) is None:
            return ""
        names = list(dict.fromkeys(_file_of(self.reader, image) for image in images))
        with ThreadPoolExecutor(READERS) as readers:
            if root.is_local:
                versions = readers.map(lambda name: _local_version(root, name), names, chunksize=1)
            elif len(names) <= MOST_ASKED_ONE_BY_ONE:
                versions = readers.map(
                    lambda name: _version(root.filesystem.get_file_info(root.path(original(name)))), names
                )
            else:
                versions = (self._listed.get(name, "") for name in names)
            lines = [f"{name}\0{version}\n" for name, version in zip(names, versions, strict=True)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def is_here(self, image: ImageFile) -> bool:
        """Return whether the file that holds an image is on a disk that this process sees."""
        root = storage_read_by(self.reader)
        if root is None or not root.is_local:
            return False
        return bool(_local_version(root, _file_of(self.reader, image)))

    @cached_property
    def _listed(self) -> dict[str, str]:
        if (root := storage_read_by(self.reader)) is None:
            return {}
        infos = root.filesystem.get_file_info(pafs.FileSelector(root.path(), recursive=True))
        return {readable(info.path[len(root.path()) + 1 :]): _version(info) for info in infos}


def _file_of(reader: ImageReader, image: ImageFile) -> str:
    """Return the name of the file that holds an image."""
    if isinstance(reader, ParquetImages):
        return image.place.rpartition("#")[0]
    return image.place.rpartition("@")[0] if isinstance(reader, TarImages) else image.image_id


def _local_version(root: Storage, name: str) -> str:
    with suppress(OSError):
        facts = os.stat(os.fsencode(root.path(original(name))))  # noqa: PTH116 - names are bytes
        return f"{facts.st_size} {facts.st_mtime_ns}"
    return ""


def _version(info: pafs.FileInfo) -> str:
    return f"{info.size} {info.mtime_ns}"
