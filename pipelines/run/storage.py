"""Files under a root on any filesystem, read and written whole: what is there is complete.

A root is a local path or a URI that pyarrow or fsspec knows (``s3://``, ``gs://``, ``abfs://``).
"""

import errno
import io
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow.fs as pafs

from pipelines.run.object_store import FEW_S3_ATTEMPTS, open_filesystem

# Every unfinished file carries this mark, so that a listing never takes one for a whole one.
PARTIAL = ".partial-"
# Failures of writing that do not say what was written.
WITHOUT_A_NAME = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def short_name(uri: str) -> str:
    """What people call a path or a URI by: its last part, without options."""
    return uri.partition("?")[0].rstrip("/").rpartition("/")[2]


@dataclass(frozen=True)
class Storage:
    """A root folder; names below it are relative and use ``/``. Cheap to send to another process."""

    root: str
    is_patient: bool = True

    @classmethod
    def at(cls, uri: str) -> "Storage":
        """The storage at ``uri``; a local path is made absolute, since Ray's workers run in other folders."""
        uri = uri.removeprefix("file://")
        return cls(uri.rstrip("/") if "://" in uri else str(Path(uri).expanduser().resolve()))

    @classmethod
    def of_file(cls, uri: str) -> tuple["Storage", str]:
        """The folder of a file, and the file's name in it."""
        file = cls.at(uri)
        location, mark, options = file._parts
        folder, _, name = location.rpartition("/")
        return replace(file, root=f"{folder or '/'}{mark}{options}"), name

    @property
    def _parts(self) -> tuple[str, str, str]:
        """The root without the options of its URI, their mark, and the options."""
        return self.root.partition("?") if "://" in self.root else (self.root, "", "")

    def below(self, name: str) -> "Storage":
        """The folder ``name`` of this one."""
        location, mark, options = self._parts
        return replace(self, root=f"{location.rstrip('/')}/{name}{mark}{options}")

    def impatient(self) -> "Storage":
        """The same storage, for what is better told at once that an object store is away."""
        return replace(self, is_patient=False)

    @cached_property
    def _resolved(self) -> tuple[pafs.FileSystem, str]:
        if "://" not in self.root:
            return pafs.LocalFileSystem(), self.root
        return open_filesystem(self.root, *(() if self.is_patient else (FEW_S3_ATTEMPTS,)))

    @property
    def filesystem(self) -> pafs.FileSystem:
        """The pyarrow filesystem behind the root."""
        return self._resolved[0]

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, value)

    @property
    def is_local(self) -> bool:
        """Whether the root is a folder of this machine."""
        return isinstance(self.filesystem, pafs.LocalFileSystem)

    def path(self, name: str = "") -> str:
        """``name`` as a path for :attr:`filesystem`."""
        return f"{self._resolved[1]}/{name}" if name else self._resolved[1]

    @property
    def is_file(self) -> bool:
        """Whether there is a file where a folder should be."""
        return bool(self.filesystem.get_file_info(self.path()).type == pafs.FileType.File)

    def exists(self, name: str) -> bool:
        """Whether there is a file or folder of this name."""
        return bool(self.filesystem.get_file_info(self.path(name)).type != pafs.FileType.NotFound)

    def files(self, folder: str) -> list[str]:
        """Names of the whole files directly in ``folder``, sorted; empty where there is no such folder."""
        selector = pafs.FileSelector(self.path(folder), allow_not_found=True)
        names = (info.base_name for info in self.filesystem.get_file_info(selector) if info.is_file)
        return sorted(name for name in names if PARTIAL not in name)

    def names(self, folder: str) -> list[str]:
        """Names of all files and folders directly in ``folder``, sorted; empty where there is no such folder."""
        selector = pafs.FileSelector(self.path(folder), allow_not_found=True)
        return sorted(info.base_name for info in self.filesystem.get_file_info(selector))

    def read(self, name: str) -> bytes:
        """The file's content.

        Raises:
            FileNotFoundError: there is no such file.
        """
        # Arrow would unpack what is called .gz.
        with self.filesystem.open_input_stream(self.path(name), compression=None) as stream:
            return cast(bytes, stream.read())

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """Write ``name`` as a stream; it appears whole at the end of the block, or not at all."""
        target = self.path(name)
        if not self.is_local:
            buffer = io.BytesIO()
            yield buffer
            # An object store shows an object once it is complete; it is begun only when the content is.
            with self.filesystem.open_output_stream(target, compression=None) as stream:
                stream.write(buffer.getbuffer())
            return
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        partial = Path(f"{target}{PARTIAL}{uuid.uuid4().hex[:8]}")
        try:
            with partial.open("wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())  # or the file could have its name and be empty after a power cut
            partial.replace(target)
        except OSError as error:
            if error.errno not in WITHOUT_A_NAME or error.filename is not None:
                raise
            raise OSError(error.errno, error.strerror, target) from error
        finally:
            with suppress(OSError):
                partial.unlink()

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file."""
        with self.writing(name) as stream:
            stream.write(data)

    def read_json(self, name: str) -> Any:
        """The parsed JSON file."""
        return json.loads(self.read(name))

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file, readable by people."""
        self.write(name, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())

    def write_json_lines(self, name: str, values: Iterable[Any]) -> None:
        """Write a file with a JSON value on each line."""
        self.write(name, "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values).encode())

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        if self.exists(name):
            with suppress(FileNotFoundError):  # somebody else was faster
                self.filesystem.delete_file(self.path(name))

    def remove_partial_files(self, folder: str) -> None:
        """Delete what a killed writer left behind in ``folder``; only while nobody writes there."""
        if self.is_local and (directory := Path(self.path(folder))).is_dir():
            for leftover in directory.glob(f"*{PARTIAL}*"):
                leftover.unlink(missing_ok=True)

    def __str__(self) -> str:
        return self.root
