"""The run directory that a command is given, with a line before an object store is asked about it."""

from pipelines.job.console import complain
from pipelines.run.storage import Storage


def run_at(uri: str) -> Storage:
    """Return the run directory at a path or URI.

    Raises:
        UserError: see :meth:`Storage.at`.
    """
    run = Storage.at(uri)
    if "://" in run.root:  # a store that is away is asked for a minute and a half
        complain(f"looking at {run} ...")  # beside standard output, which holds the result
    return run
