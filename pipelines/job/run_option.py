"""The run directory that a command is given, with a line before an object store is asked about it."""

from pipelines.errors import UserError
from pipelines.job.console import complain
from pipelines.run.directory import PLACES_TO_WRITE
from pipelines.run.places import shown
from pipelines.run.storage import Storage


def run_at(uri: str) -> Storage:
    """Return the run directory at a path or URI.

    Raises:
        UserError: see :meth:`Storage.at`.
    """
    run = Storage.at(uri)
    tell_look(run.root)
    return run


def run_to_write_at(uri: str) -> Storage:
    """Return the run directory at a path or URI, for processes that all write to it.

    Raises:
        UserError: see :meth:`Storage.at`; or each process would have one of its own.
    """
    if uri.startswith("memory:"):
        raise UserError(f"{uri}: no other process sees what is in this one's memory; choose {PLACES_TO_WRITE}")
    return run_at(uri)


def tell_look(root: str) -> None:
    """Print a line before an object store is read: one that does not answer is tried for a minute and a half."""
    if "://" in root:
        complain(f"looking at {shown(root)} ...")  # beside standard output, which holds the result
