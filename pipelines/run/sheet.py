"""Sheet of a few fixed validation images, and what a replica answers for them while it trains."""

from dataclasses import asdict, dataclass

import numpy as np

from googlenet.evaluation.temperature import hash_shares
from pipelines.run.dataset import Split, ids_of_shard
from pipelines.run.directory import ReplicaFiles
from pipelines.run.json_lines import json_lines
from pipelines.run.storage import Storage

MOST_IMAGES = 12
# The images come from so many shards at most: of a large data set in an object store, not all ids are read.
MOST_SHARDS = 12
MOST_SHEETS = 10


@dataclass(frozen=True)
class SheetAnswers:
    """Answers of a replica, with its averaged weights and one centre crop, after an epoch counted from 1.

    Attributes:
        epoch: the epoch.
        time_ms: when they were given.
        records: numbers of the images among the validation images.
        answers: the likeliest class of each image.
        probabilities: its probability.
    """

    epoch: int
    time_ms: int
    records: tuple[int, ...]
    answers: tuple[int, ...]
    probabilities: tuple[float, ...]


def has_sheet(epoch: int, epochs: int) -> bool:
    """Return whether a sheet belongs to ``epoch``, counted from 1: some of them evenly spread, and the last one."""
    return epoch % -(-epochs // MOST_SHEETS) == 0 or epoch == epochs


def sheet_records(run: Storage, split: Split) -> tuple[int, ...]:
    """Return the numbers of the images on the sheet, as a hash of their ids decides."""
    first = np.cumsum([0, *(shard.images for shard in split.shards)])
    chosen = np.argsort(hash_shares([shard.file for shard in split.shards]), kind="stable")[:MOST_SHARDS]
    numbers: list[int] = []
    ids: list[str] = []
    for number in chosen:
        ids += ids_of_shard(run, split.shards[number])
        numbers += range(first[number], first[number + 1])
    order = np.argsort(hash_shares(ids), kind="stable")[:MOST_IMAGES]
    return tuple(int(numbers[place]) for place in order)


def write_sheets(run: Storage, replica: int, sheets: list[SheetAnswers]) -> None:
    """Write the sheets of a replica so far."""
    run.write_json_lines(ReplicaFiles(replica).sheets, (asdict(sheet) for sheet in sheets))


def read_sheets(run: Storage, replica: int) -> list[SheetAnswers]:
    """Return the sheets of a replica so far, oldest first; none in runs of earlier versions."""
    name = ReplicaFiles(replica).sheets
    if not run.exists(name):
        return []
    lists = ("records", "answers", "probabilities")
    return [
        SheetAnswers(line["epoch"], line["time_ms"], *(tuple(line[key]) for key in lists))
        for line in json_lines(run, name)
    ]
