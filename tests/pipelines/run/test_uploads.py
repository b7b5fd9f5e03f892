"""Files on object stores and on filesystems of fsspec: whole or absent, also after Ctrl-C and failures."""

import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.fs as pafs
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import _registry

from pipelines.run.storage import Storage
from pipelines.run.uploads import put

CONTENT = b"whole" * 100
AWAY = "the server does not answer"


class Upload(io.BytesIO):
    """An upload that makes the object when it is closed, as Arrow's to S3 does, also when nobody refers to it."""

    def __init__(self, objects: dict[str, bytes], path: str) -> None:
        super().__init__()
        self._objects, self._path = objects, path

    def close(self) -> None:
        if not self.closed:
            self._objects[self._path] = self.getvalue()
        super().close()


class InterruptedStore(pafs.FSSpecHandler):  # type: ignore[misc]  # pyarrow has no types
    """An object store; Ctrl-C is pressed while an upload is opened."""

    def __init__(self) -> None:
        super().__init__(fsspec.filesystem("memory"))
        self.objects: dict[str, bytes] = {}

    def open_output_stream(self, path: str, _metadata: Any) -> pa.PythonFile:
        upload = Upload(self.objects, path)
        os.kill(os.getpid(), signal.SIGINT)
        return pa.PythonFile(upload, mode="w")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C interrupts this process also where it was started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_during_an_upload_leaves_no_object_that_is_not_whole(interruptible: None) -> None:
    store = InterruptedStore()
    with pytest.raises(KeyboardInterrupt):
        put(pafs.PyFileSystem(store), "run.json", memoryview(CONTENT))
    assert store.objects.get("run.json", CONTENT) == CONTENT


class Disk(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Files that appear once they are opened, on a disk that may be full; renamed with the options of sftp alone."""

    is_full = False

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        opened = super()._open(path, mode, **options)
        if self.is_full and "w" in mode:
            opened.write(CONTENT[:10])
            opened.flush()
            raise OSError("no space left")
        return opened

    def mv(self, old: str, new: str) -> None:
        super().mv(old, new)


class ReplacesNothing(Disk):
    """A disk on which renaming replaces no file, as with SMB."""

    def mv(self, old: str, new: str) -> None:
        if self.exists(new):
            raise FileExistsError(new)
        super().mv(old, new)


@pytest.fixture(params=[Disk, ReplacesNothing])
def disk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setitem(_registry, "local", request.param)
    return Storage.at(f"local://{tmp_path}/run")


def test_a_file_of_fsspec_appears_whole_and_replaces_another(disk: Storage, tmp_path: Path) -> None:
    for content in (CONTENT, b"new"):
        disk.write("a/b/1.txt", content)
        assert (tmp_path / "run/a/b/1.txt").read_bytes() == content
        assert [path.name for path in (tmp_path / "run/a/b").iterdir()] == ["1.txt"]


class Unreachable(Disk):
    """A server that is away when a file is renamed."""

    def mv(self, old: str, new: str) -> None:
        raise TimeoutError(f"{AWAY}: {old}, {new}")


def test_the_old_file_stays_where_the_new_one_cannot_be_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_registry, "local", Unreachable)
    (tmp_path / "old.txt").write_bytes(b"old")
    for name in ("old.txt", "new.txt"):
        with pytest.raises(TimeoutError, match=AWAY):
            Storage.at(f"local://{tmp_path}").write(name, CONTENT)
    assert [path.name for path in tmp_path.iterdir()] == ["old.txt"]
    assert (tmp_path / "old.txt").read_bytes() == b"old"


def test_a_file_of_fsspec_that_cannot_be_written_does_not_appear(
    disk: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.write("a/old.txt", b"old")
    monkeypatch.setattr(Disk, "is_full", True)
    for name in ("a/old.txt", "a/new.txt"):
        with pytest.raises(OSError, match="no space left"):
            disk.write(name, CONTENT)
    assert disk.names("a") == ["old.txt"]
    assert (tmp_path / "run/a/old.txt").read_bytes() == b"old"
    assert len(list((tmp_path / "run/a").iterdir())) == 1
