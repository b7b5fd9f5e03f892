"""The mark of a download by torchvision that has not ended.

torchvision takes a folder that exists for a whole data set, also if a killed process has unpacked half of it.
"""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from pipelines.errors import UserError
from pipelines.job.console import say, some

# What the folder held before: a JSON list while a download is under way, empty once it has ended.
MARK = ".googlenet_download"


@contextmanager
def marked_until_complete(folder: Path, besides: str, *, is_own: bool) -> Iterator[None]:
    """Mark ``folder`` as incomplete during the block; the mark stays if the block fails after something has arrived.

    What an interrupted earlier block left is renamed if nobody else uses the folder (``is_own``). Names that match the
    pattern ``besides`` are written by other means, and complete.

    Raises:
        UserError: an earlier block has left something in a folder that others may use.
    """
    try:
        mark = (folder / MARK).open("a+", encoding="utf-8")
    except OSError:  # a folder that may only be read, so that nothing can be downloaded to it
        yield
        return
    with mark:
        is_alone = _wait_until_alone(mark, folder)
        if left := _left_behind(mark, folder, besides):
            if not (is_own and is_alone):
                raise UserError(
                    f"an earlier download to {folder} was interrupted, so part of its data may be missing: delete "
                    f"{some(left)} there, or {MARK} if they are complete, and run the same command again"
                )
            say(f"data: the download to {folder} was interrupted and begins anew")
            for name in left:  # some may be a user's, who has fetched it by other means meanwhile
                aside = (folder / name).rename(folder / f"{name}.interrupted-{uuid.uuid4().hex[:8]}")
                say(f"data: the partial download of {name} is now {aside}; delete it unless you put {name} there")
        mark.truncate(0)
        before = _names_in(folder, besides)
        mark.write(json.dumps(sorted(before)))
        mark.flush()
        try:
            yield
        except BaseException:
            if _names_in(folder, besides) == before:  # nothing has come, so what comes later is the user's own
                mark.truncate(0)
            raise
        mark.truncate(0)  # not removed: another command may wait for its lock


def _wait_until_alone(mark: TextIO, folder: Path) -> bool:
    """Return once no other command downloads to the folder; False if the filesystem has no locks to tell."""
    import fcntl

    try:
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"data: waiting for another command that downloads to {folder}")
            fcntl.flock(mark, fcntl.LOCK_EX)
    except OSError:
        return False
    return True


def _left_behind(mark: TextIO, folder: Path, besides: str) -> list[str]:
    """Return what has come into the folder since a download began that has not ended."""
    mark.seek(0)
    with suppress(ValueError):  # empty, or killed while it was written, before the download
        before = {*json.loads(mark.read())}
        new = sorted(_names_in(folder, besides) - before)
        return [name for name in new if name.partition("/")[0] not in new or "/" not in name]
    return []


def _names_in(folder: Path, besides: str) -> set[str]:
    """Return the names in a folder, and those of the folders in its folders: some data sets share the upper one."""
    names = {path.name for path in folder.iterdir() if not path.match(besides)} - {MARK}
    below = [path for name in names if (path := folder / name).is_dir() and not path.is_symlink()]
    return names | {f"{path.name}/{inner.name}" for path in below for inner in _inside(path) if inner.is_dir()}


def _inside(folder: Path) -> list[Path]:
    with suppress(PermissionError):  # somebody else's, such as lost+found, and so not of a download
        return list(folder.iterdir())
    return []
