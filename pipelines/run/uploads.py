"""Files written to remote filesystems, completely or not at all, even when a signal arrives."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pyarrow.fs as pafs


def put(filesystem: pafs.FileSystem, path: str, data: memoryview) -> None:
    """Write an object, which appears once its upload is complete."""
    # If a signal ends the call that opens a stream, Arrow closes the stream, and an empty object appears. So another
    # thread writes: only the main thread is interrupted, and Python waits for the others before it exits.
    with ThreadPoolExecutor(1, "upload") as thread:
        thread.submit(_write, filesystem, path, data).result()


def put_by_renaming(filesystem: pafs.PyFileSystem, path: str, partial: str, data: memoryview) -> None:
    """Write a file of fsspec's that may appear before it is complete: as ``partial`` first, in the same folder."""
    folder = path.rpartition("/")[0]
    if filesystem.get_file_info(folder).type == pafs.FileType.NotFound:
        filesystem.create_dir(folder)
    try:
        put(filesystem, partial, data)
        with ThreadPoolExecutor(1, "rename") as thread:
            thread.submit(_rename, filesystem.handler.fs, partial, path).result()
    except BaseException:
        with suppress(OSError):  # that it was not written is what is reported
            filesystem.delete_file(partial)
        raise


def _rename(files: Any, name: str, new_name: str) -> None:
    """Rename a file by fsspec itself: not all of its filesystems take the option that Arrow gives."""
    try:
        files.mv(name, new_name)
    except OSError:
        if not files.exists(new_name):
            raise
        # Some do not replace a file. Any other reason meets the next request too, before the old file is gone.
        aside = f"{name}.old"
        files.mv(new_name, aside)
        try:
            files.mv(name, new_name)
        except OSError:
            files.mv(aside, new_name)
            raise
        files.rm(aside)


def _write(filesystem: pafs.FileSystem, path: str, data: memoryview) -> None:
    with filesystem.open_output_stream(path, compression=None) as stream:
        stream.write(data)
