"""An image folder as a listing: which files there are, in which split, of which class. Reads no pixels.

``<root>/train/<class>/*`` and ``<root>/val/<class>/*``, at any depth below the class, in upper or lower case. A root
with ``train`` but no ``val``, or with ``<class>/*`` alone, is split: in each class the files are ordered by the SHA-256
of their path, and the first ``val_percent`` percent of them, rounded up, are validation. Adding a class or renaming the
root moves no file.
"""

import hashlib
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs as pafs

from googlenet.records import NO_LABEL
from pipelines.errors import UserError
from pipelines.storage import Storage

TRAINING_NAMES = ("train", "training")
VALIDATION_NAMES = ("val", "validation", "valid")
NAMES_IN_MESSAGE = 10
# What operating systems leave in folders.
LITTER = {"Thumbs.db", "desktop.ini", "ehthumbs.db"}


@dataclass(frozen=True)
class ImageFile:
    """One file of the folder; ``image_id`` is its path relative to the root."""

    image_id: str
    label: int


@dataclass(frozen=True)
class Listing:
    """Classes by label, and the files of each split in order of their ids.

    ``ignored`` are files that belong to no class, for the user to see.
    """

    classes: tuple[str, ...]
    splits: dict[str, tuple[ImageFile, ...]]
    ignored: tuple[str, ...] = ()

    def ignored_summary(self) -> str:
        """Files at the root by name, others counted by their first folder; empty where nothing is ignored."""
        at_root = [name for name in self.ignored if "/" not in name]
        folders = Counter(name.split("/")[0] for name in self.ignored if "/" in name)
        shown = at_root[:NAMES_IN_MESSAGE]
        if len(at_root) > len(shown):
            shown.append(f"{len(at_root) - len(shown)} other files beside them")
        return ", ".join([*shown, *(f"{count} files in {name}/" for name, count in sorted(folders.items()))])


def list_image_folder(root: Storage, val_percent: float) -> Listing:
    """List ``root``.

    Raises:
        UserError: there is no such folder, no image, fewer than two classes, a class that only validation has, or
            a split without images.
    """
    names = _walk(root)
    train, val = _top_folder(names, TRAINING_NAMES), _top_folder(names, VALIDATION_NAMES)
    if val and not train:
        raise UserError(f"{root} has {val} but no train/: put the training images there, or name another folder")
    is_split = bool(train and val)
    folders = {"train": train or "", "val": val or ""} if is_split else {"": train or ""}
    by_class: dict[str, dict[str, list[str]]] = {split: defaultdict(list) for split in folders}
    ignored = []
    for name in names:
        split = next((split for split, prefix in folders.items() if name.startswith(prefix)), None)
        parts = name.removeprefix(folders[split]).split("/") if split is not None else []
        if split is None or len(parts) < 2:
            ignored.append(name)
        else:
            by_class[split][parts[0]].append(name)
    if not is_split:
        by_class = _split(by_class[""], val_percent)
    classes = _check(root, by_class)
    splits = {
        split: tuple(
            sorted(
                (ImageFile(name, classes.index(cls)) for cls, files in folder.items() for name in files),
                key=lambda file: file.image_id,
            )
        )
        for split, folder in by_class.items()
    }
    return Listing(classes, splits, tuple(ignored))


def list_evaluation_folder(root: Storage, classes: tuple[str, ...] = ()) -> Listing:
    """List labelled images for evaluation alone: those of ``val/``, if there is one, else all ``<class>/*``.

    ``classes`` are the class folders' names in the order of the model's outputs, and may be more than the folder has;
    without them the folder's own, sorted.

    Raises:
        UserError: there is no such folder, no image, or a class folder that ``classes`` lacks.
    """
    names = _walk(root)
    prefix = _top_folder(names, VALIDATION_NAMES) or ""
    inside = {name: name.removeprefix(prefix).split("/") for name in names if name.startswith(prefix)}
    by_name = {name: parts[0] for name, parts in inside.items() if len(parts) > 1}
    if not by_name:
        raise UserError(f"no images in {root}: expected <class>/<image>")
    classes = classes or tuple(sorted(set(by_name.values())))
    if unknown := sorted(set(by_name.values()) - set(classes)):
        raise UserError(f"class folder {', '.join(unknown)} in {root} is none of the model's {len(classes)} classes")
    labels = {name: label for label, name in enumerate(classes)}
    files = tuple(ImageFile(name, labels[cls]) for name, cls in sorted(by_name.items()))
    ignored = tuple(name for name, parts in inside.items() if len(parts) == 1)
    return Listing(classes, {"train": (), "val": files}, ignored)


def list_unlabelled_folder(root: Storage, classes: tuple[str, ...]) -> Listing:
    """List all images below ``root``, whatever the folders are called, to be named as one of the model's ``classes``.

    Raises:
        UserError: there is no such folder, or no image.
    """
    names = _walk(root)
    if not names:
        raise UserError(f"no images in {root}")
    return Listing(classes, {"train": (), "val": tuple(ImageFile(name, NO_LABEL) for name in names)})


def _top_folder(names: Sequence[str], known: Sequence[str]) -> str | None:
    """The first folder of ``names`` that is called one of ``known`` in upper or lower case, with its slash."""
    folders = {name.split("/")[0] for name in names if "/" in name}
    return next((f"{folder}/" for folder in sorted(folders) if folder.lower() in known), None)


def _walk(root: Storage) -> list[str]:
    """Names of all files below ``root``, sorted; links to nothing included, so that they are named, not passed over."""
    if root.is_local:
        names = sorted(_walk_locally(Path(root.path())))
    else:
        infos = root.filesystem.get_file_info(pafs.FileSelector(root.path(), recursive=True, allow_not_found=True))
        names = sorted(info.path[len(root.path()) + 1 :] for info in infos if info.is_file)
    if not names and not root.exists(""):
        raise UserError(f"there is no folder {root}")
    return [name for name in names if not _is_litter(name)]


def _walk_locally(root: Path) -> Iterator[str]:
    """Relative names of files; linked folders are followed, but none is entered twice."""
    entered = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        entered.add(os.path.realpath(folder))
        subfolders[:] = [name for name in subfolders if os.path.realpath(f"{folder}/{name}") not in entered]
        yield from ((Path(folder) / name).relative_to(root).as_posix() for name in files)


def _is_litter(name: str) -> bool:
    parts = name.split("/")
    return any(part.startswith(".") for part in parts) or parts[-1] in LITTER


def _split(folder: dict[str, list[str]], val_percent: float) -> dict[str, dict[str, list[str]]]:
    splits: dict[str, dict[str, list[str]]] = {"train": {}, "val": {}}
    for cls, names in folder.items():
        ordered = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
        held_out = min(math.ceil(len(ordered) * val_percent / 100), len(ordered) - 1)
        splits["val"][cls], splits["train"][cls] = ordered[:held_out], ordered[held_out:]
    return splits


def _check(root: Storage, by_class: dict[str, dict[str, list[str]]]) -> tuple[str, ...]:
    """The class names in order, if the listing can be trained and evaluated on."""
    classes = tuple(sorted(cls for cls, names in by_class["train"].items() if names))
    if not classes:
        raise UserError(f"no images in {root}: expected <class>/<image> or train/<class>/<image>, val/<class>/<image>")
    if len(classes) == 1:
        raise UserError(f"only one class in {root} ({classes[0]}): a classifier needs two; one folder for each class")
    validation = {cls for cls, names in by_class["val"].items() if names}
    if only := sorted(validation - set(classes)):
        raise UserError(f"class {', '.join(only)} has validation images but no training images in {root}")
    if not validation:
        raise UserError(f"no validation images in {root}: add some to each class, or a val/ folder")
    return classes
