"""Folders of other people: read by a test, and unchanged afterwards."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    """Fail if anything in a folder was made, written or removed during the block, if only for a moment."""
    before = _state(folder)
    yield
    assert _state(folder) == before


def _state(folder: Path) -> dict[str, tuple[int, int]]:
    # A folder keeps the time when something in it was made or removed.
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in [folder, *folder.rglob("*")]}


@contextmanager
def somebody_elses(content: Path) -> Iterator[Path]:
    """Yield a copy of a folder that this process may read and not write during the block; root becomes nobody."""
    place = Path(tempfile.mkdtemp())  # outside of pytest's folders, which only their owner may enter
    folder = place / content.name
    shutil.copytree(content, folder)
    for path in (place, folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222 | stat.S_IRGRP | stat.S_IROTH | (0o555 if path.is_dir() else 0))
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield folder
    finally:
        if is_root:
            os.seteuid(0)
        for path in (place, *(path for path in place.rglob("*") if path.is_dir())):
            path.chmod(0o700)
        shutil.rmtree(place)
