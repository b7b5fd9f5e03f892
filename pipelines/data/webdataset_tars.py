"""WebDataset: tar archives in which an image and its label are neighbours with the same name before the extension.

``000017.jpg`` and ``000017.cls`` (the label's number), or ``000017.json`` with a number ``label``. An archive's split
is given by a word in its name: train, val or the like. ``classes.txt`` next to the archives has one class name per
line; without it, classes are named by their numbers.
"""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

from pipelines.data.listing import Entry, Found, ImageFile, splits_by_name
from pipelines.data.tar_archives import Member, TarImages, place_of, read_index
from pipelines.errors import UserError
from pipelines.run.storage import Storage

CLASS_NAMES = "classes.txt"
IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm")
READERS = 16


def find_in_webdataset(root: Storage, names: Sequence[str]) -> Found:
    """Return the images of the archives in ``names``, which are files directly in ``root``.

    Raises:
        UserError: an archive is damaged, or an image has no label.
    """
    splits = splits_by_name(name for name in names if name.endswith(".tar"))
    class_names = _class_names(root)
    entries: dict[str, list[Entry]] = {split: [] for split in splits.values()}
    with ThreadPoolExecutor(READERS) as readers:
        for archive, found in zip(splits, readers.map(lambda name: _samples(root, name), splits), strict=True):
            for image, label in found:
                name = _name_of(class_names, label, f"{root}/{archive}: {image.name}")
                entries[splits[archive]].append(Entry(f"{archive}/{image.name}", name, place_of(archive, image)))
    ignored = [name for name in names if name not in splits and name != CLASS_NAMES]
    numbers = {entry.class_name for found in entries.values() for entry in found}
    return Found({**entries}, class_names or tuple(sorted(numbers, key=int)), tuple(ignored))


def _samples(root: Storage, archive: str) -> list[tuple[Member, int]]:
    return list(_labelled_images(TarImages(root), archive, read_index(root, archive)))


def _labelled_images(reader: TarImages, archive: str, members: Sequence[Member]) -> Iterator[tuple[Member, int]]:
    for key, group in groupby(members, key=lambda member: _key(member.name)[0]):
        parts = {_key(member.name)[1]: member for member in group}
        images = [member for ending, member in parts.items() if ending.rpartition(".")[2] in IMAGE_ENDINGS]
        if len(images) != 1:
            has = ", ".join(member.name for member in parts.values())
            raise UserError(f"{reader.root}/{archive}: {key} has {len(images)} images, expected one ({has})")
        yield images[0], _label(reader, archive, key, parts)


def _key(name: str) -> tuple[str, str]:
    """Return a sample's key and the rest: the part after the first dot of the file's own name."""
    folder, slash, file = name.rpartition("/")
    stem, _, ending = file.partition(".")
    return f"{folder}{slash}{stem}", ending.lower()


def _label(reader: TarImages, archive: str, key: str, parts: dict[str, Member]) -> int:
    def content(member: Member) -> bytes:
        return reader.read(ImageFile(member.name, 0, place_of(archive, member)))

    try:
        if "cls" in parts:
            return int(content(parts["cls"]))
        return int(json.loads(content(parts["json"]))["label"])
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(
            f"{reader.root}/{archive}: {key} has no label; expected {key}.cls with a number, or {key}.json with a "
            f"number 'label'"
        ) from error


def _class_names(root: Storage) -> tuple[str, ...]:
    if not root.exists(CLASS_NAMES):
        return ()
    names = [line.strip() for line in root.read(CLASS_NAMES).decode().rstrip().splitlines()]
    if "" in names or len(set(names)) < len(names):
        raise UserError(
            f"{root}/{CLASS_NAMES} has an empty line or names a class twice; line n is the class of label n - 1"
        )
    return tuple(names)


def _name_of(class_names: tuple[str, ...], label: int, image: str) -> str:
    if label >= 0 and not class_names:
        return str(label)
    if not 0 <= label < len(class_names):
        raise UserError(f"{image} has label {label}, but {CLASS_NAMES} names {len(class_names)} classes")
    return class_names[label]
