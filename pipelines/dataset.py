"""The prepared data set: its manifest, and how to read what the manifest names."""

from dataclasses import asdict, dataclass
from typing import Any

import pyarrow.parquet as pq

from googlenet.records import Records
from pipelines.run_directory import DATASET
from pipelines.storage import Storage

MANIFEST = f"{DATASET}/manifest.json"
SPLITS = ("train", "val")


@dataclass(frozen=True)
class Shard:
    """A Parquet file of the data set. ``digest`` is over ids, labels and image bytes, not over Parquet's framing."""

    file: str
    images: int
    digest: str


@dataclass(frozen=True)
class Split:
    """Shards of a split in their order, and images by class name."""

    shards: tuple[Shard, ...]
    counts: dict[str, int]

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(shard.images for shard in self.shards)


@dataclass(frozen=True)
class Manifest:
    """What was prepared: the classes by label, the splits, and one digest over everything.

    ``prepared_from`` holds the fields of the recipe that decided it, ``quarantined`` how many files were left out
    because they cannot be decoded.
    """

    prepared_from: dict[str, Any]
    classes: tuple[str, ...]
    splits: dict[str, Split]
    digest: str
    quarantined: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; repeats the number of images for people who read it."""
        values = asdict(self)
        for name, split in self.splits.items():
            values["splits"][name]["images"] = split.images
        return values

    def summary(self) -> str:
        """One line for people."""
        sizes = ", ".join(f"{split.images} {name}" for name, split in self.splits.items())
        left_out = f", {self.quarantined} quarantined" if self.quarantined else ""
        return f"{sizes} images of {len(self.classes)} classes{left_out} (digest {self.digest[:12]})"

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Manifest":
        """Inverse of :meth:`to_dict`."""
        splits = {
            name: Split(tuple(Shard(**shard) for shard in split["shards"]), split["counts"])
            for name, split in values["splits"].items()
        }
        return cls(values["prepared_from"], tuple(values["classes"]), splits, values["digest"], values["quarantined"])


def read_manifest(run: Storage) -> Manifest:
    """The manifest of a prepared run directory.

    Raises:
        FileNotFoundError: nothing has been prepared.
    """
    return Manifest.from_dict(run.read_json(MANIFEST))


def open_records(run: Storage, split: Split) -> Records:
    """Random access to the records of a split."""
    paths = [run.path(f"{DATASET}/{shard.file}") for shard in split.shards]
    return Records(run.filesystem, paths, [shard.images for shard in split.shards])


def image_ids(run: Storage, split: Split) -> list[str]:
    """The ids of all images of a split, in order, without reading the images."""
    ids: list[str] = []
    for shard in split.shards:
        table = pq.read_table(run.path(f"{DATASET}/{shard.file}"), columns=["image_id"], filesystem=run.filesystem)
        ids += table.column("image_id").to_pylist()
    return ids
