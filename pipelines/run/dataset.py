"""The prepared data set: its manifest, and access to the shards in it."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pyarrow.parquet as pq

from googlenet.images.open_shards import OpensFiles
from googlenet.images.records import Records
from googlenet.images.rereading import read_again
from pipelines.errors import DamagedFileError, UserError
from pipelines.run.concurrency import concurrently
from pipelines.run.directory import DATASET, MANIFEST
from pipelines.run.storage import Storage
from pipelines.run.tables import CONTENT_ERRORS, is_damage, read_schema

# A shard stores its own digest, so that a replaced shard is detected by its footer alone.
SHARD_DIGEST = b"googlenet_shard_digest"
SPLITS = ("train", "val")
# A shard and what is known of its images, in the folder of its split.
SHARD_FILE = re.compile(r"\d{5,}\.(parquet|json)")
# What to do about images that cannot be decoded.
BadImages = Literal["stop", "quarantine"]
RESTORED = "restore the prepared file, or prepare in a new --run-dir"


@dataclass(frozen=True)
class Shard:
    """A Parquet file of the data set. ``digest`` covers ids, labels and image bytes, not Parquet's framing."""

    file: str
    images: int
    digest: str


@dataclass(frozen=True)
class Split:
    """Shards of a split in order, and number of images by class name."""

    shards: tuple[Shard, ...]
    counts: dict[str, int]

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(shard.images for shard in self.shards)

    @property
    def digest(self) -> str:
        """SHA-256 over the digests of the shards."""
        return hashlib.sha256("".join(shard.digest for shard in self.shards).encode()).hexdigest()


@dataclass(frozen=True)
class Counts:
    """Numbers of images in each split, and of classes."""

    train: int
    val: int
    classes: int


@dataclass(frozen=True)
class Manifest:
    """Description of the prepared data: the classes by label, the splits, and one digest over everything.

    ``prepared_from`` holds the recipe fields that decided it, ``quarantined`` the number of files left out because
    they cannot be decoded, ``notes`` the ids of used images by what is peculiar about them.
    """

    prepared_from: dict[str, Any]
    classes: tuple[str, ...]
    splits: dict[str, Split]
    digest: str
    quarantined: int
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def listed(self) -> int:
        """Number of images before some were left out."""
        return self.quarantined + sum(split.images for split in self.splits.values())

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dict, with the number of images added for readability."""
        values = asdict(self)
        for name, split in self.splits.items():
            values["splits"][name]["images"] = split.images
        return values

    def summary(self, *, labelled: bool = True) -> str:
        """Return a summary in one line; images that are not ``labelled`` have classes for their answers alone."""
        # An evaluation has validation images only.
        splits = {name: split.images for name, split in self.splits.items() if split.images}
        sizes = ", ".join(f"{images:,}{f' {name}' if len(splits) > 1 else ''}" for name, images in splits.items())
        images = "image" if list(splits.values())[-1:] == [1] else "images"
        classes = "1 class" if len(self.classes) == 1 else f"{len(self.classes):,} classes"
        of_classes = f"of {classes}" if labelled else "without labels"
        left_out = f", {self.quarantined:,} quarantined" if self.quarantined else ""
        return f"{sizes} {images} {of_classes}{left_out} (digest {self.digest[:12]})"

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Manifest":
        """Inverse of :meth:`to_dict`."""
        splits = {
            name: Split(tuple(Shard(**shard) for shard in split["shards"]), split["counts"])
            for name, split in values["splits"].items()
        }
        # Manifests of earlier versions have no notes.
        notes = {note: tuple(image_ids) for note, image_ids in values.get("notes", {}).items()}
        facts = values["prepared_from"], tuple(values["classes"]), splits, values["digest"], values["quarantined"]
        return cls(*facts, notes)


def read_manifest(run: Storage) -> Manifest:
    """Read the manifest of a prepared run directory.

    Raises:
        UserError: nothing has been prepared, or the folder of the data set was removed.
    """
    try:
        manifest = Manifest.from_dict(run.read_json(MANIFEST, "prepare in a new --run-dir"))
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedFileError(f"{run.below(MANIFEST)} is damaged ({error!r}); {RESTORED}") from error
    except FileNotFoundError as error:
        raise UserError(
            f"{run} has no {MANIFEST}: restore its folder {DATASET}/ (at least that file), or repeat the command that "
            "made the run, which prepares the images again"
        ) from error
    if missing := [split for split in SPLITS if split not in manifest.splits]:
        raise DamagedFileError(f"{run.below(MANIFEST)} is damaged (it has no split {missing[0]!r}); {RESTORED}")
    return manifest


def digest_of(classes: Sequence[str], splits: Mapping[str, Split]) -> str:
    """Return the digest of a data set: SHA-256 over its classes and the digests of its shards."""
    digests = [shard.digest for split in SPLITS for shard in splits[split].shards]
    return hashlib.sha256("\n".join([*classes, *digests]).encode()).hexdigest()


def check_shards(run: Storage, manifest: Manifest) -> None:
    """Check by its footer that every shard exists and is the one that was prepared; reads no images.

    Raises:
        UserError: a shard is missing, damaged or replaced, or the manifest was edited; the message names it.
    """
    if manifest.digest != digest_of(manifest.classes, manifest.splits):
        raise UserError(f"the classes or shards in {run.below(MANIFEST)} were changed; {RESTORED}")
    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    checked = zip(shards, concurrently(lambda shard: problem_of(run, shard), shards), strict=True)
    if problems := [(shard.file, problem) for shard, problem in checked if problem]:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        file, problem = problems[0]
        raise UserError(f"{run.below(f'{DATASET}/{file}')} {problem}{more}; {RESTORED}")


def problem_of(run: Storage, shard: Shard) -> str | None:
    """Return what is wrong with a shard, to be said after its name; None if nothing is."""
    name = f"{DATASET}/{shard.file}"
    if not run.exists(name):
        return "is missing"
    if (schema := read_schema(run, name)) is None:
        return "is damaged"
    if (schema.metadata or {}).get(SHARD_DIGEST, b"") != shard.digest.encode():
        return "has changed since it was prepared"
    return None


def open_records(run: Storage, split: Split, files: OpensFiles | None = None) -> Records:
    """Return random access to the records of a split; ``files`` opens the shards, by default the run's filesystem."""
    paths = [run.path(f"{DATASET}/{shard.file}") for shard in split.shards]
    return Records(files or run.filesystem, paths, [shard.images for shard in split.shards])


def image_ids(run: Storage, split: Split) -> list[str]:
    """Return the ids of all images of a split, in order, without reading the images."""
    return [name for names in concurrently(lambda shard: ids_of_shard(run, shard), split.shards) for name in names]


def ids_of_shard(run: Storage, shard: Shard) -> list[str]:
    """Return the ids of the images of a shard, in order.

    Raises:
        DamagedFileError: the shard is damaged.
    """
    [ids] = _columns_of_shard(run, shard, "image_id")
    return ids


def image_sizes(run: Storage, split: Split) -> dict[str, tuple[int, int]]:
    """Return width and height in pixels of all images of a split by their ids, without reading the images."""
    tables = concurrently(lambda shard: _columns_of_shard(run, shard, "image_id", "width", "height"), split.shards)
    return {name: size for ids, *sides in tables for name, size in zip(ids, zip(*sides, strict=True), strict=True)}


def _columns_of_shard(run: Storage, shard: Shard, *columns: str) -> list[list[Any]]:
    return read_again(lambda: _columns_of_file(run, f"{DATASET}/{shard.file}", columns), DamagedFileError)


def _columns_of_file(run: Storage, name: str, columns: Sequence[str]) -> list[list[Any]]:
    options: dict[str, Any] = {"columns": list(columns), "page_checksum_verification": True}
    try:
        table = pq.read_table(run.path(name), filesystem=run.filesystem, **options)
        return [table.column(column).to_pylist() for column in columns]
    except (*CONTENT_ERRORS, KeyError) as error:
        if not is_damage(error):
            raise
        raise DamagedFileError(f"{run.below(name)} is damaged; {RESTORED}") from error
