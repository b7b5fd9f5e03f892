"""Files with one JSON object per line: the metrics, the step log and the sheets of a replica."""

from typing import Any

from googlenet.images.rereading import read_again
from pipelines.errors import DamagedFileError
from pipelines.run.directory import ReplicaFiles
from pipelines.run.json_object import json_object
from pipelines.run.storage import Storage

# A line of metrics, of a step log, of the sheets, or of a node's load: values by name.
Line = dict[str, Any]


def read_metrics(run: Storage, replica: int) -> list[Line]:
    """Return the metrics of a replica's finished epochs, oldest first."""
    name = ReplicaFiles(replica).metrics
    return json_lines(run, name) if run.exists(name) else []


def read_steps(run: Storage, replica: int, after: int) -> list[Line]:
    """Return the lines of a replica's step log for steps later than ``after``, oldest first."""
    return lines_after(run, ReplicaFiles(replica).step_log, "step", after)


def lines_after(run: Storage, folder: str, key: str, after: int) -> list[Line]:
    """Return the lines of the files in ``folder`` whose ``key`` is greater than ``after``, oldest first.

    File names and lines must be sorted by ``key``.
    """
    lines: list[Line] = []
    # From the last file backwards, so that files read earlier are not read again.
    for name in reversed(run.files(folder)):
        of_file = json_lines(run, f"{folder}/{name}")
        news = [line for line in of_file if line[key] > after]
        lines = news + lines
        if len(news) < len(of_file):
            break
    return lines


def json_lines(run: Storage, name: str) -> list[Line]:
    """Return the values of a file with one JSON object per line, read again if it looks damaged.

    Raises:
        UserError: it is damaged.
    """

    def parsed() -> list[Line]:
        content = run.read(name)
        try:
            return [json_object(line) for line in content.splitlines()]
        except ValueError as error:
            fix = "restore it, or delete it and lose its metrics"
            raise DamagedFileError(f"{run.below(name)} is damaged ({error}); {fix}") from error

    return read_again(parsed, DamagedFileError)
