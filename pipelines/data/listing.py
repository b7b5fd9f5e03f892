"""Listings of images by split and class, the same for every layout of images.

If there is no validation split, the images of each class are ordered by the SHA-256 of their ids, and the first
``val_percent`` percent, rounded up, become validation. Adding a class or renaming the root moves no image.
"""

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from googlenet.images.records import NO_LABEL
from pipelines.data.file_endings import is_compressed
from pipelines.data.file_names import case_twins, look_alikes
from pipelines.data.names_of_no_class import is_kind_of_files
from pipelines.data.split_names import EVALUATED_FIRST, TRAIN, VAL
from pipelines.errors import UserError
from pipelines.job.console import count, some
from pipelines.run.storage import Storage

NAMES_IN_MESSAGE = 10


@dataclass(frozen=True)
class ImageFile:
    """One image. ``image_id`` is its path relative to the root or similar; ``place`` locates it inside an archive."""

    image_id: str
    label: int
    place: str = ""


class ImageReader(Protocol):
    """Reader of the images of a listing, usable in any process."""

    def read(self, image: ImageFile) -> bytes:
        """Return the original bytes.

        Raises:
            OSError: they cannot be read.
            ImageDecodeError: they are not an image.
        """


def storage_read_by(reader: ImageReader) -> Storage | None:
    """Return the storage whose files ``reader`` reads, its ``root``; None for images that are in no files."""
    root = getattr(reader, "root", None)
    return root if isinstance(root, Storage) else None


@dataclass(frozen=True)
class Entry:
    """An image as its layout describes it."""

    image_id: str
    class_name: str
    place: str = ""


@dataclass(frozen=True)
class DataSet:
    """Images and classes of a data set as its layout describes them.

    Attributes:
        entries: by split; all under ``UNSPLIT`` if there is none (:mod:`pipelines.data.split_names`).
        classes: names by label, if the layout orders them; empty for alphabetical order.
        ignored: files that are not part of it, shown to the user.
        notes: lines for the user.
        hint: what to try if the classes are not those that were meant.
    """

    entries: dict[str, Sequence[Entry]]
    classes: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    hint: str = ""


@dataclass(frozen=True)
class Listing:
    """Classes by label, and the images of each split in order of their ids.

    ``ignored`` are files that belong to no class, shown to the user. ``versions`` is a digest that tells of images to
    evaluate whether one was replaced under its name (:mod:`pipelines.data.file_versions`); empty if that is unknown.
    """

    classes: tuple[str, ...]
    splits: dict[str, tuple[ImageFile, ...]]
    ignored: tuple[str, ...] = ()
    versions: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 over classes, ids and labels; changes if images are added, removed or moved."""
        images = {split: [(image.image_id, image.label) for image in files] for split, files in self.splits.items()}
        return hashlib.sha256(json.dumps([self.classes, images], sort_keys=True).encode()).hexdigest()

    def ignored_summary(self) -> str:
        """Return files at the root by name, others counted by their first folder; empty if nothing is ignored."""
        at_root = [name for name in self.ignored if "/" not in name]
        folders = Counter(name.split("/")[0] for name in self.ignored if "/" in name)
        shown = at_root[:NAMES_IN_MESSAGE]
        if len(at_root) > len(shown):
            shown.append(count(len(at_root) - len(shown), "more file"))
        in_folders = [f"{count(number, 'file')} in {name}/" for name, number in sorted(folders.items())]
        return ", ".join([*shown, *([some(in_folders)] if in_folders else [])])


def list_for_training(data: str, data_set: DataSet, val_percent: float) -> Listing:
    """Return both splits, labelled. ``data`` is the user's name for the images, used in messages.

    Raises:
        UserError: there are fewer than two classes, a class without training images, or a split without images.
    """
    entries = data_set.entries
    if len(entries) == 1 and VAL not in entries:
        entries = _divide(next(iter(entries.values())), val_percent)
    classes = _classes_to_train(data, data_set, entries)
    labels = {name: label for label, name in enumerate(classes)}
    return Listing(classes, {split: _labelled(entries[split], labels) for split in ("train", "val")}, data_set.ignored)


def list_for_evaluation(data: str, data_set: DataSet, classes: tuple[str, ...] = ()) -> Listing:
    """Return the validation images, labelled; the test images or all images if there are none.

    ``classes`` are the class folders' names in the order of the model's outputs; the data may lack some of them. By
    default, they are those of the data.

    Raises:
        UserError: there are no images, or the data have a class that is not in ``classes``.
    """
    entries = next((entries for split in EVALUATED_FIRST if (entries := data_set.entries.get(split))), ())
    names = {entry.class_name for entry in entries}
    if not names:
        raise UserError(f"no labelled images to evaluate in {data}")
    _refuse_twins(data, names)
    classes = classes or tuple(name for name in data_set.classes or sorted(names) if name in names)
    if unknown := sorted(names - set(classes)):
        _refuse_twins(data, {*names, *classes})
        its = f"{count(len(classes), 'class', 'classes')} ({some(classes, 3)})"
        fix = _about_case(unknown, {*classes} - names) or data_set.hint or "--unlabelled is for such images"
        raise UserError(f"class {some(unknown)} in {data} is not among the model's {its}; {fix}")
    labels = {name: label for label, name in enumerate(classes)}
    return Listing(classes, {"train": (), "val": _labelled(entries, labels)}, data_set.ignored)


def list_unlabelled(data: str, image_ids: Sequence[str], classes: tuple[str, ...]) -> Listing:
    """Return unlabelled images, to be classified into the model's ``classes``.

    Raises:
        UserError: there are none.
    """
    if not image_ids:
        raise UserError(f"no images in {data}")
    return Listing(classes, {"train": (), "val": tuple(ImageFile(name, NO_LABEL) for name in image_ids)})


def _labelled(entries: Iterable[Entry], labels: dict[str, int]) -> tuple[ImageFile, ...]:
    files = (ImageFile(entry.image_id, labels[entry.class_name], entry.place) for entry in entries)
    ordered = tuple(sorted(files, key=lambda file: file.image_id))
    for one, other in pairwise(ordered):
        if one.image_id == other.image_id:
            raise UserError(f"{one.image_id} occurs twice; rename or remove one of them")
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


def _classes_to_train(data: str, data_set: DataSet, entries: Mapping[str, Sequence[Entry]]) -> tuple[str, ...]:
    """Return the class names in order, if the images can be used for training and evaluation."""
    train, val = ({entry.class_name for entry in entries.get(split, ())} for split in (TRAIN, VAL))
    if data_set.entries and not any(data_set.entries.values()):
        raise UserError(f"no labelled images to train on in {data}")
    if not train:
        packed = [name for name in data_set.ignored if is_compressed(name)]
        fix = f"; unpack {some(packed, 3)} if they are there" if packed else ""
        raise UserError(f"{data} has no training images (train/, or an archive with train in its name){fix}")
    _refuse_twins(data, train | val)
    if len(train) == 1:
        hint = f"; {data_set.hint}" if data_set.hint else ""
        raise UserError(
            f"only one class in {data} ({next(iter(train))}): a classifier needs two, one folder each{hint}"
        )
    if unknown := sorted(val - train):
        fix = "add some, or leave the class out"
        if all(map(is_kind_of_files, unknown)):
            fix = (
                "its name suggests a kind of file, not a class: put each picture into a folder of its class (labels in "
                "tables are not read), or remove the validation images to have part of each class held out"
            )
        fix = _about_case(unknown, train - val) or fix
        raise UserError(f"class {some(unknown)} has validation images but no training images in {data}: {fix}")
    if not val:
        raise UserError(f"no validation images in {data}: add images to each class, or a val/ folder")
    return tuple(name for name in data_set.classes or sorted(train) if name in train)


def _about_case(unknown: Collection[str], known: Collection[str]) -> str:
    """Return that an unknown name is known in another case, and what to do; empty if none is."""
    for group in case_twins([*unknown, *known]):
        if not {*unknown}.isdisjoint(group) and not {*known}.isdisjoint(group):
            return f"{' and '.join(map(repr, group))} differ only in case; rename one of them"
    return ""


def _refuse_twins(data: str, names: Iterable[str]) -> None:
    """Refuse classes that nobody could tell apart, neither in a folder nor in a report."""
    if twins := look_alikes(names):
        raise UserError(
            f"class names in {data} look the same and differ only by Unicode normalisation (NFC, NFD), inner or outer "
            f"spaces or invisible characters: {some(list(map(repr, twins[0])))}; rename the folders, or the classes, "
            "so that they are equal"
        )
