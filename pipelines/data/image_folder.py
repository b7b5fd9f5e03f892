"""Image folders: ``train/<class>/*`` and ``val/<class>/*``, or ``<class>/*``, at any depth below the class.

``train`` and ``val`` may be in upper or lower case. A folder with ``train`` but no ``val`` counts as not split.
ImageNet's ``val`` without class folders is labelled from the files that ImageNet ships with it.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pyarrow.fs as pafs

from googlenet.images.decoding import check_number_of_bytes
from pipelines.data.imagenet import FLAT_VALIDATION, LABEL_FILES, validation_labels
from pipelines.data.listing import SPLIT_WORDS, UNSPLIT, Entry, Found, ImageFile
from pipelines.errors import UserError
from pipelines.job.console import count
from pipelines.run.storage import Storage

# Files that operating systems leave in folders.
LITTER = {"Thumbs.db", "desktop.ini", "ehthumbs.db"}
COMPRESSED = (".tar.gz", ".tgz", ".zip", ".tar.xz", ".tar.bz2", ".tar.zst", ".7z", ".rar")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif")
EXPECTED = "expected <class>/<image>, or train/<class>/<image> and val/<class>/<image>"


@dataclass(frozen=True)
class FolderImages:
    """Reader of the files below a folder."""

    root: Storage

    def read(self, image: ImageFile) -> bytes:
        """Return the file's bytes."""
        with self.root.filesystem.open_input_file(self.root.path(image.image_id)) as stream:
            check_number_of_bytes(stream.size())
            return cast(bytes, stream.read())


def find_in_folder(root: Storage, beside: Storage) -> Found:
    """Return the images of a folder. ``beside`` is the folder with ImageNet's labels, if they are needed.

    Raises:
        UserError: the folder does not exist, or has no image where one is expected.
    """
    names = files_below(root)
    train, val = (_top_folder(names, SPLIT_WORDS[split]) for split in ("train", "val"))
    flat = {name for name in names if val and name.startswith(val) and "/" not in name.removeprefix(val)}
    labels = validation_labels(beside) if flat else {}
    if not labels and (image := next((name for name in sorted(flat) if FLAT_VALIDATION in name), None)):
        raise UserError(f"no label for {image}: put {' or '.join(LABEL_FILES)} into {beside}")
    folders = {"train": train, "val": val} if train and val else {"val": val} if val else {UNSPLIT: train or ""}
    entries: dict[str, list[Entry]] = {split: [] for split in folders}
    ignored = []
    for name in names:
        split, class_name = _split_and_class(name, folders, labels if name in flat else {})
        if class_name is None:
            ignored.append(name)
        else:
            entries[split].append(Entry(name, class_name))
    if not any(entries.values()):
        raise _nothing_in_classes(root, ignored)
    _check_that_splits_have_classes(root, entries.get(UNSPLIT, ()))
    return Found({**entries}, ignored=tuple(ignored))


class FlatFolderError(UserError):
    """A folder has images, but none in a folder of its class. ``found`` says where they lie, without what to do."""

    def __init__(self, found: str) -> None:
        super().__init__(f"{found}; {EXPECTED}")
        self.found = found


def _nothing_in_classes(root: Storage, names: Sequence[str]) -> UserError:
    """Return the error for a folder in which no image has a class; ``names`` are its files."""
    if packed := next((name for name in names if name.endswith(COMPRESSED)), None):
        return UserError(f"no images in {root}: unpack {packed} first")
    if images := [name for name in names if name.lower().endswith(IMAGE_SUFFIXES)]:
        return FlatFolderError(f"no class folders in {root}: {_lie(len(images))} directly in it")
    return UserError(f"no images in {root}: {EXPECTED}")


def _check_that_splits_have_classes(root: Storage, entries: Sequence[Entry]) -> None:
    """Refuse train/*.jpg and val/*.jpg, which would otherwise be two classes, train and val."""
    names = {entry.class_name for entry in entries}
    if names and {name.lower() for name in names} <= {word for known in SPLIT_WORDS.values() for word in known}:
        folders = " and ".join(f"{name}/" for name in sorted(names))
        raise FlatFolderError(f"no class folders in {root}: {_lie(len(entries))} directly in {folders}")


def _lie(images: int) -> str:
    return f"{count(images, 'image')} {'lies' if images == 1 else 'lie'}"


def _split_and_class(name: str, folders: dict[str, str], labels: dict[str, str]) -> tuple[str, str | None]:
    for split, prefix in folders.items():
        if name.startswith(prefix):
            parts = name.removeprefix(prefix).split("/")
            return split, parts[0] if len(parts) > 1 else labels.get(Path(name).stem)
    return UNSPLIT, None


def files_below(root: Storage) -> list[str]:
    """Return the sorted names of all files, including broken links, so that those are reported, not skipped.

    Raises:
        UserError: the folder does not exist.
    """
    if root.is_local:
        names = sorted(_walk_locally(Path(root.path()))) if root.exists("") else []
    else:
        infos = root.filesystem.get_file_info(pafs.FileSelector(root.path(), recursive=True, allow_not_found=True))
        names = sorted(info.path[len(root.path()) + 1 :] for info in infos if info.is_file)
    if not names and not root.exists(""):
        raise UserError(f"there is no folder {root}")
    return [name for name in names if not _is_litter(name)]


def _top_folder(names: Sequence[str], known: Sequence[str]) -> str | None:
    """Return the first folder of ``names`` whose name is one of ``known`` in any case, with a trailing slash.

    It must contain folders or ImageNet's validation images; otherwise it is a class that happens to have that name.
    """
    folders = {name.split("/")[0] for name in names if name.count("/") > 1 or FLAT_VALIDATION in name}
    return next((f"{folder}/" for folder in sorted(folders) if folder.lower() in known), None)


def _walk_locally(root: Path) -> Iterator[str]:
    """Yield the relative names of files; linked folders are followed, but none is entered twice."""
    entered = set()
    for folder, subfolders, files in os.walk(root, onerror=_refuse, followlinks=True):
        entered.add(os.path.realpath(folder))
        subfolders[:] = [name for name in subfolders if os.path.realpath(f"{folder}/{name}") not in entered]
        yield from ((Path(folder) / name).relative_to(root).as_posix() for name in files)


def _refuse(error: OSError) -> None:
    """Raise an error: a folder that cannot be listed would otherwise look like a class without images."""
    raise UserError(f"the folder {error.filename} cannot be read ({error.strerror}); fix that or remove it") from error


def _is_litter(name: str) -> bool:
    parts = name.split("/")
    return any(part.startswith(".") for part in parts) or parts[-1] in LITTER
