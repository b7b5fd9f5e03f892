"""Files under a root on any filesystem, written atomically: a file under its final name is complete.

A root is a local path or a URI that pyarrow or fsspec knows (``s3://``, ``gs://``, ``abfs://``, and ``hf://`` and
``https://`` for reading).
"""

import errno
import io
import json
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import pyarrow as pa
import pyarrow.fs as pafs

from googlenet.images.rereading import read_again
from pipelines.errors import DamagedFileError, UserError
from pipelines.run.concurrency import concurrently
from pipelines.run.json_object import json_object
from pipelines.run.litter import litter_in
from pipelines.run.object_store import open_filesystem
from pipelines.run.places import root_of, without_file_scheme
from pipelines.run.published_files import is_published
from pipelines.run.uploads import put, put_by_renaming

T = TypeVar("T")
# Mark in the name of every unfinished file, so that listings can leave it out.
PARTIAL = ".partial-"
# Ending of the name of a damaged file that was set aside; further ones are numbered.
DAMAGED = ".damaged"
LEFT_OUT = re.compile(rf"{re.escape(PARTIAL)}|{re.escape(DAMAGED)}(-\d+)?$")
# Write errors that do not name the file.
WITHOUT_A_NAME = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
# What a user can do about a damaged file.
MADE_AGAIN = "delete it and run the command that wrote it again"


def short_name(place: str) -> str:
    """Return the short name of a path, a URI or a built-in data set: its last part, without options.

    Only behind a scheme, as in s3://BUCKET/photos?region=x, does a question mark begin options.
    """
    location = place.partition("?")[0] if SCHEME.match(place) else place
    return location.rstrip("/").rpartition("/")[2]


def may_write(path: Path) -> bool:
    """Return whether this user may write an existing file, or make files in an existing folder."""
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


@dataclass(frozen=True)
class Storage:
    """A root folder; names below it are relative and use ``/``. Cheap to send to another process."""

    root: str
    is_patient: bool = True

    @classmethod
    def at(cls, uri: str) -> "Storage":
        """Return the storage at ``uri``; a local path is made absolute, since Ray's workers run in other folders.

        Links are resolved, but for one to a file without an ending, as in the caches of hubs: it keeps its own name.

        Raises:
            UserError: the path is not UTF-8, so that no recipe or report could hold it, or leads nowhere.
        """
        root = root_of(without_file_scheme(uri))
        try:
            root.encode()
        except UnicodeEncodeError as error:
            shown = os.fsencode(root).decode(errors="backslashreplace")
            raise UserError(f"the path {shown} is not UTF-8: rename its folder") from error
        return cls(root)

    @classmethod
    def of_file(cls, uri: str) -> tuple["Storage", str]:
        """Return the folder of a file, and the file's name in it; a link keeps its own name, not that of its target."""
        uri = without_file_scheme(uri)
        if "://" not in uri:
            path = Path(uri)
            return cls.at(str(path.parent)), path.name
        file = cls.at(uri)
        location, mark, options = file._parts
        folder, _, name = location.rpartition("/")
        return replace(file, root=f"{folder or '/'}{mark}{options}"), name

    @property
    def _parts(self) -> tuple[str, str, str]:
        """The root without the options of its URI, the question mark, and the options."""
        return self.root.partition("?") if "://" in self.root else (self.root, "", "")

    def below(self, name: str) -> "Storage":
        """Return the storage of the folder ``name`` in this one."""
        location, mark, options = self._parts
        return replace(self, root=f"{location.rstrip('/')}/{name}{mark}{options}")

    def impatient(self) -> "Storage":
        """Return the same storage with few retries, so that an unreachable object store is reported at once."""
        return replace(self, is_patient=False)

    @cached_property
    def _resolved(self) -> tuple[pafs.FileSystem, str]:
        if "://" not in self.root:
            return pafs.LocalFileSystem(), self.root
        return open_filesystem(self.root, is_patient=self.is_patient)

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
        """Whether the root is a folder on this machine."""
        return isinstance(self.filesystem, pafs.LocalFileSystem)

    @property
    def _has_objects(self) -> bool:
        """Whether what is written appears once it is complete, if at all: on object stores, not on all of fsspec's."""
        return is_published(self.root) or not isinstance(self.filesystem, pafs.PyFileSystem)

    def path(self, name: str = "") -> str:
        """Return ``name`` as a path for :attr:`filesystem`."""
        return f"{self._resolved[1]}/{name}" if name else self._resolved[1]

    def check_writable(self, fix: str) -> None:
        """Refuse a folder of this machine that exists and cannot be written; ``fix`` is what to do then.

        Raises:
            UserError: it is one.
        """
        if self.is_local and self.exists("") and not may_write(Path(self.root)):
            raise UserError(f"{self} cannot be written; {fix}")

    @property
    def is_file(self) -> bool:
        """Whether the root is a file, not a folder."""
        return bool(self.filesystem.get_file_info(self.path()).type == pafs.FileType.File)

    def exists(self, name: str) -> bool:
        """Return whether a file or folder of this name exists."""
        return bool(self.filesystem.get_file_info(self.path(name)).type != pafs.FileType.NotFound)

    def has_file(self, name: str) -> bool:
        """Return whether a regular file of this name exists; a named pipe or a device is none."""
        return bool(self.filesystem.get_file_info(self.path(name)).type == pafs.FileType.File)

    def open(self, name: str) -> pa.NativeFile:
        """Open a file for random access; its name may have bytes that are not UTF-8, as surrogates."""
        return self.filesystem.open_input_file(self._path_to_open(name))

    def _path_to_open(self, name: str) -> str | bytes:
        return os.fsencode(self.path(name)) if self.is_local else self.path(name)

    def files(self, folder: str) -> list[str]:
        """Return the sorted names of the complete files directly in ``folder``; empty if the folder does not exist.

        Those that operating systems leave there do not count, nor damaged files that were set aside.
        """
        return self._listed(folder, with_folders=False)

    def names(self, folder: str) -> list[str]:
        """Return what :meth:`files` does, and the names of folders."""
        return self._listed(folder, with_folders=True)

    def _listed(self, folder: str, *, with_folders: bool) -> list[str]:
        infos = self.filesystem.get_file_info(pafs.FileSelector(self.path(folder), allow_not_found=True))
        named = ((info.base_name, "" if info.is_file else "/") for info in infos if info.is_file or with_folders)
        return sorted(name for name, end in named if not LEFT_OUT.search(name) and not litter_in(name + end))

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
            FileNotFoundError: the file does not exist.
        """
        # By default Arrow decompresses files named .gz.
        with self.filesystem.open_input_stream(self._path_to_open(name), compression=None) as stream:
            return cast(bytes, stream.read())

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """Write ``name`` as a stream; it appears complete at the end of the block, or not at all."""
        target = self.path(name)
        if not self.is_local:
            buffer = io.BytesIO()
            yield buffer  # the upload starts only once the content is complete
            if self._has_objects:
                put(self.filesystem, target, buffer.getbuffer())
            else:
                put_by_renaming(self.filesystem, target, _partial(target), buffer.getbuffer())
            return
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        partial = Path(_partial(target))
        try:
            with partial.open("wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())  # else a power cut could leave an empty file under the final name
            partial.replace(target)
        except OSError as error:
            if error.errno not in WITHOUT_A_NAME or error.filename is not None:
                raise
            raise OSError(error.errno, error.strerror, target) from error
        finally:
            with suppress(OSError):
                partial.unlink()

    def write(self, name: str, data: bytes) -> None:
        """Write a complete file."""
        with self.writing(name) as stream:
            stream.write(data)

    def read_json(self, name: str, fix: str = MADE_AGAIN, needed: Iterable[str] = ()) -> Any:
        """Return the JSON object in a file, a dict; ``fix`` is what a user can do if it is damaged.

        Raises:
            DamagedFileError: the file is damaged, holds no JSON object, or one that lacks a key that is ``needed``.
        """

        def parsed() -> dict[str, Any]:
            content = self.read(name)
            try:
                return json_object(content, needed)
            except ValueError as error:
                raise DamagedFileError(f"{self.below(name)} is damaged ({error}); restore it, or {fix}") from error

        return read_again(parsed, DamagedFileError)

    def read_as(self, name: str, made_of: Callable[[dict[str, Any]], T]) -> T:
        """Return what ``made_of`` makes of the JSON object in a file that the same command would write again.

        Raises:
            DamagedFileError: the file is damaged, or was edited so that the object lacks something.
        """
        values = self.read_json(name)
        try:
            return made_of(values)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DamagedFileError(f"{self.below(name)} is damaged ({error!r}); restore it, or {MADE_AGAIN}") from error

    def write_json(self, name: str, value: Any) -> None:
        """Write an indented JSON file."""
        self.write(name, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())

    def write_json_lines(self, name: str, values: Iterable[Any]) -> None:
        """Write a file with one JSON value per line."""
        self.write(name, "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values).encode())

    def delete(self, name: str) -> None:
        """Delete a file if it exists."""
        if self.exists(name):
            with suppress(FileNotFoundError):  # another process was faster
                self.filesystem.delete_file(self.path(name))

    def delete_all(self, names: Iterable[str]) -> None:
        """Delete files if they exist, several at a time."""
        for _ in concurrently(self.delete, names):
            pass

    def rename(self, name: str, new_name: str) -> None:
        """Rename a file; one that has the new name is replaced."""
        self.filesystem.move(self.path(name), self.path(new_name))

    def remove_partial_files(self, folder: str, of: str = "*") -> None:
        """Delete leftovers of killed writers, of files called ``of`` alone; only safe while nobody writes there."""
        if self.is_local and (directory := Path(self.path(folder))).is_dir():
            for leftover in directory.glob(f"{of}{PARTIAL}*"):
                leftover.unlink(missing_ok=True)

    def __str__(self) -> str:
        return self.root


def _partial(target: str) -> str:
    return f"{target}{PARTIAL}{uuid.uuid4().hex[:8]}"
