"""Damaged files, kept under another name rather than deleted: they may be intact, and the storage not."""

from itertools import count

from pipelines.run.storage import DAMAGED, Storage


def set_aside(folder: Storage, name: str) -> str:
    """Rename a file that looks damaged, so that :meth:`Storage.files` leaves it out; return its new name."""
    endings = (DAMAGED if number == 1 else f"{DAMAGED}-{number}" for number in count(1))
    aside = next(new for ending in endings if not folder.exists(new := f"{name}{ending}"))
    folder.rename(name, aside)
    return aside
