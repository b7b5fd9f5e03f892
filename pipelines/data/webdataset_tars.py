"""WebDataset: tar archives in which an image and its label have the same name before the extension.

``000017.jpg`` and ``000017.cls`` (the label's number), or ``000017.json`` with a number ``label``. ``classes.txt`` next
to the archives has one class name per line; without it, classes are named by their numbers.
"""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from pipelines.data.class_list import classes_by_label
from pipelines.data.file_names import original
from pipelines.data.listing import DataSet, Entry, ImageFile
from pipelines.data.tar_archives import Index, Member, TarImages, place_of, read_index, remarks_on_archives
from pipelines.data.text_files import decode_text
from pipelines.data.webdataset_samples import Sample, samples
from pipelines.errors import UserError
from pipelines.job.console import count, some
from pipelines.run.published_files import WEB_SCHEMES
from pipelines.run.storage import Storage

TAR = ".tar"
CLASS_NAMES = "classes.txt"
NEEDED = "add one, or add KEY.cls with a number for each KEY.jpg"
READERS = 16


def find_in_webdataset(root: Storage, archives: Mapping[str, Sequence[str]], class_list: str = "") -> DataSet:
    """Return the images of ``archives``, which are given by split, relative to ``root``.

    ``class_list`` is the file with the names of the classes, if there is one.

    Raises:
        UserError: an archive is damaged, or an image has no label.
    """
    class_names: tuple[str, ...] = ()
    if class_list:
        class_names = classes_by_label(root.read(original(class_list)), f"{root}/{class_list}")
    splits = {name: split for split, names in archives.items() for name in names}
    entries: dict[str, list[Entry]] = {split: [] for split in archives}
    read: list[tuple[Index, int]] = []
    with ThreadPoolExecutor(READERS) as readers:
        labelled_images = readers.map(lambda name: _labelled_images(root, name), splits)
        for (archive, split), (index, labelled) in zip(splits.items(), labelled_images, strict=True):
            for image, label in labelled:
                name = _name_of(class_names, label, f"{index.name}: {image.name}")
                entries[split].append(Entry(f"{archive}/{image.name}", name, place_of(archive, image)))
            read.append((index, len(labelled)))
    numbers = {entry.class_name for of_split in entries.values() for entry in of_split}
    hint = (
        ""
        if class_names
        else f"put {CLASS_NAMES}, with a name for each number in a line of its own, beside the archives"
    )
    return DataSet({**entries}, class_names or tuple(sorted(numbers, key=int)), (), remarks_on_archives(read), hint)


def class_list_beside(archives: Mapping[str, Sequence[str]], files: Sequence[str]) -> str:
    """Return the nearest file of class names above all archives; empty if there is none."""
    folders = [name.split("/")[:-1] for names in archives.values() for name in names]
    shared = min(folders, key=len) if folders else []
    while any(folder[: len(shared)] != shared for folder in folders):
        shared = shared[:-1]
    known = set(files)
    for depth in range(len(shared), -1, -1):
        if (name := "/".join([*shared[:depth], CLASS_NAMES])) in known:
            return name
    lists = sorted(known & {"/".join([*folder, CLASS_NAMES]) for folder in folders})
    if len(lists) > 1:
        raise UserError(f"{some(lists)}: put one {CLASS_NAMES} into the folder above all archives; they share one list")
    return lists[0] if lists else ""


def class_list_of(folder: Storage, archive: str) -> list[str]:
    """Return the name of the file of class names in the folder of a single archive, in a list; empty if there is none.

    On a web server, where a missing file may be answered by a page, it is not looked for.
    """
    if not archive.lower().endswith(TAR) or urlsplit(folder.root).scheme in WEB_SCHEMES:
        return []
    try:
        return [CLASS_NAMES] if folder.has_file(CLASS_NAMES) else []
    except OSError as error:
        if "ACCESS_DENIED" not in str(error):
            raise
        return []  # a store tells only those who may list it that an object is missing


def _labelled_images(root: Storage, archive: str) -> tuple[Index, list[tuple[Member, int]]]:
    index, reader = read_index(root, archive), TarImages(root)
    return index, [(sample.image, _label(reader, archive, index.name, sample)) for sample in samples(index)]


def _label(reader: TarImages, archive: str, name: str, sample: Sample) -> int:
    """Return the number of a sample's class.

    Raises:
        UserError: the label is not a whole number.
    """
    label = sample.label
    content = reader.read(ImageFile(label.name, 0, place_of(archive, label)))
    text = decode_text(content, f"{name}: {label.name}")
    value: Any = text.strip()
    if label.name.lower().endswith("json"):
        try:
            value = json.loads(text, object_pairs_hook=_with_one_label)["label"]
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(
                f"{name}: {sample.key} has no label: {label.name} must have exactly one number 'label'; {NEEDED}"
            ) from error
    number = _whole_number(value)
    if number is None or number < 0:
        shown = (value if isinstance(value, str) else json.dumps(value))[:40]
        raise UserError(f"{name}: {label.name} has label {shown}, expected a whole number from 0")
    return number


def _with_one_label(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, of which JSON itself would silently keep the last of two labels.

    Raises:
        ValueError: it has two.
    """
    if [name for name, _ in pairs].count("label") > 1:
        raise ValueError("two labels")
    return dict(pairs)


def _whole_number(value: Any) -> int | None:
    """Return the number that ``value`` is or spells; None for fractions, truth values and other text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = int(value)
    except (ValueError, OverflowError):
        return None
    return number if isinstance(value, str) or number == value else None


def _name_of(class_names: tuple[str, ...], label: int, image: str) -> str:
    if not class_names:
        return str(label)
    if label >= len(class_names):
        raise UserError(
            f"{image} has label {label}, but {CLASS_NAMES} names {count(len(class_names), 'class', 'classes')}"
        )
    return class_names[label]
