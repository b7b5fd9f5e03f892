"""Folders that all processes of pytest-xdist share, each filled by the first process that needs it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock


@contextmanager
def made_once(factory: pytest.TempPathFactory, name: str) -> Iterator[tuple[Path, bool]]:
    """Yield a folder that all pytest processes share, and whether it is still to be filled, in this block."""
    own = factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / name
    done = folder / "done"
    with FileLock(f"{folder}.lock"):
        is_new = not done.exists()
        yield folder, is_new
        done.touch()
