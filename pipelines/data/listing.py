"""Which images there are, in which split, of which class: the same for every way in which people keep images.

Where there is no validation, in each class the images are ordered by the SHA-256 of their id, and the first
``val_percent`` percent of them, rounded up, are validation. Adding a class or renaming the root moves no image.
"""

import hashlib
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from googlenet.images.records import NO_LABEL
from pipelines.errors import UserError
from pipelines.job.console import some

NAMES_IN_MESSAGE = 10
# What folders and files of a split are called.
SPLIT_WORDS = {"train": ("train", "training"), "val": ("val", "validation", "valid")}
TEST_WORDS = ("test",)
# The split of images that are not divided into training and validation yet.
UNSPLIT = ""


@dataclass(frozen=True)
class ImageFile:
    """One image. ``image_id`` is its path relative to the root, or the like; ``place`` finds it inside an archive."""

    image_id: str
    label: int
    place: str = ""


class ImageReader(Protocol):
    """Reads the images of a listing, in any process."""

    def read(self, image: ImageFile) -> bytes:
        """The original bytes.

        Raises:
            OSError: they cannot be read.
            ImageDecodeError: they cannot be an image.
        """


@dataclass(frozen=True)
class Entry:
    """An image as its layout tells of it."""

    image_id: str
    class_name: str
    place: str = ""


@dataclass(frozen=True)
class Found:
    """The images of a layout.

    Attributes:
        entries: by split: ``train``, ``val``, or both; all under :data:`UNSPLIT` if there is no split.
        classes: names by label, where the layout orders them; empty for alphabetic order.
        ignored: files that are no part of it, for the user to see.
    """

    entries: dict[str, Sequence[Entry]]
    classes: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listing:
    """Classes by label, and the images of each split in order of their ids.

    ``ignored`` are files that belong to no class, for the user to see.
    """

    classes: tuple[str, ...]
    splits: dict[str, tuple[ImageFile, ...]]
    ignored: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 over classes, ids and labels: another one where images were added, removed or moved."""
        images = {split: [(image.image_id, image.label) for image in found] for split, found in self.splits.items()}
        return hashlib.sha256(json.dumps([self.classes, images], sort_keys=True).encode()).hexdigest()

    def ignored_summary(self) -> str:
        """Files at the root by name, others counted by their first folder; empty where nothing is ignored."""
        at_root = [name for name in self.ignored if "/" not in name]
        folders = Counter(name.split("/")[0] for name in self.ignored if "/" in name)
        shown = at_root[:NAMES_IN_MESSAGE]
        if len(at_root) > len(shown):
            shown.append(f"{len(at_root) - len(shown)} other files beside them")
        return ", ".join([*shown, *(f"{count} files in {name}/" for name, count in sorted(folders.items()))])


def list_for_training(data: str, found: Found, val_percent: float) -> Listing:
    """Both splits, labelled. ``data`` is what the user calls the images.

    Raises:
        UserError: fewer than two classes, a class that only validation has, or a split without images.
    """
    entries = found.entries
    if len(entries) == 1 and "val" not in entries:
        entries = _divide(next(iter(entries.values())), val_percent)
    classes = _classes_to_train(data, found.classes, entries)
    labels = {name: label for label, name in enumerate(classes)}
    return Listing(classes, {split: _labelled(entries[split], labels) for split in ("train", "val")}, found.ignored)


def list_for_evaluation(data: str, found: Found, classes: tuple[str, ...] = ()) -> Listing:
    """The validation images, or all of them where there is no split, labelled.

    ``classes`` are the class folders' names in the order of the model's outputs, and may be more than the data have;
    without them the data's own.

    Raises:
        UserError: there are no images, or a class that ``classes`` lacks.
    """
    entries = found.entries.get("val") or found.entries.get(UNSPLIT) or ()
    names = {entry.class_name for entry in entries}
    if not names:
        raise UserError(f"no labelled images for an evaluation in {data}")
    classes = classes or tuple(name for name in found.classes or sorted(names) if name in names)
    if unknown := sorted(names - set(classes)):
        raise UserError(f"class {some(unknown)} in {data} is none of the model's {len(classes)} classes")
    labels = {name: label for label, name in enumerate(classes)}
    return Listing(classes, {"train": (), "val": _labelled(entries, labels)}, found.ignored)


def list_unlabelled(data: str, image_ids: Sequence[str], classes: tuple[str, ...]) -> Listing:
    """Images to be named as one of the model's ``classes``.

    Raises:
        UserError: there are none.
    """
    if not image_ids:
        raise UserError(f"no images in {data}")
    return Listing(classes, {"train": (), "val": tuple(ImageFile(name, NO_LABEL) for name in image_ids)})


def splits_by_name(files: Iterable[str]) -> dict[str, str]:
    """The split of each file, by the words of its name.

    All files are :data:`UNSPLIT` if no name holds a word for a split. Files of a test split are left out, and so are
    those without such a word beside files with one.
    """
    splits = {}
    for name in files:
        words = set(re.split(r"[^a-z]+", name.lower()))
        if not words & set(TEST_WORDS):
            splits[name] = next((split for split, known in SPLIT_WORDS.items() if words & set(known)), UNSPLIT)
    if set(splits.values()) <= {UNSPLIT}:
        return splits
    return {name: split for name, split in splits.items() if split != UNSPLIT}


def _labelled(entries: Iterable[Entry], labels: dict[str, int]) -> tuple[ImageFile, ...]:
    files = (ImageFile(entry.image_id, labels[entry.class_name], entry.place) for entry in entries)
    ordered = tuple(sorted(files, key=lambda file: file.image_id))
    for one, other in pairwise(ordered):
        if one.image_id == other.image_id:
            raise UserError(f"{one.image_id} is there twice; rename or remove one of them")
    return ordered


def _divide(entries: Sequence[Entry], val_percent: float) -> dict[str, Sequence[Entry]]:
    by_class: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_class[entry.class_name].append(entry)
    divided: dict[str, list[Entry]] = {"train": [], "val": []}
    for members in by_class.values():
        members.sort(key=lambda entry: hashlib.sha256(entry.image_id.encode()).digest())
        held_out = min(math.ceil(len(members) * val_percent / 100), len(members) - 1)
        divided["val"] += members[:held_out]
        divided["train"] += members[held_out:]
    return {**divided}


def _classes_to_train(data: str, ordered: tuple[str, ...], entries: dict[str, Sequence[Entry]]) -> tuple[str, ...]:
    """The class names in order, if the images can be trained and evaluated on."""
    train, val = ({entry.class_name for entry in entries.get(split, ())} for split in ("train", "val"))
    if not train:
        raise UserError(f"{data} has no training images (train/, or an archive with train in its name)")
    if len(train) == 1:
        raise UserError(f"only one class in {data} ({next(iter(train))}): a classifier needs two; one folder for each")
    if unknown := sorted(val - train):
        raise UserError(f"class {some(unknown)} has validation images but no training images in {data}")
    if not val:
        raise UserError(f"no validation images in {data}: add some to each class, or a val/ folder")
    return tuple(name for name in ordered or sorted(train) if name in train)
