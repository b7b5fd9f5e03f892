"""ImageNet (ILSVRC 2012) as downloaded: its archives of images, and the classes of the validation images.

The training images are in an archive of a thousand archives, the 50,000 validation images in one archive; nothing is
unpacked to disk. The classes of the validation images are in the development kit, or in Kaggle's table.
"""

import csv
import io
import tarfile
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any

from pipelines.data.listing import DataSet, Entry
from pipelines.data.tar_archives import Index, place_of, read_index, remarks_on_archives
from pipelines.data.text_files import decode_text
from pipelines.errors import UserError
from pipelines.run.storage import Storage

DEVKIT = "ILSVRC2012_devkit_t12"
TRUTH = f"{DEVKIT}/data/ILSVRC2012_validation_ground_truth.txt"
META = f"{DEVKIT}/data/meta.mat"
KAGGLE = "LOC_val_solution.csv"
FLAT_VALIDATION = "ILSVRC2012_val_"
VALIDATION_IMAGE = FLAT_VALIDATION + "{:08d}"
LABEL_FILES = (f"{DEVKIT}.tar.gz", KAGGLE)
# The real kit is 2.5 MB; a file that unpacks to more than this is not part of it.
MAX_KIT_FILE_BYTES = 64 << 20

TRAIN_ARCHIVE = "ILSVRC2012_img_train.tar"
VAL_ARCHIVE = "ILSVRC2012_img_val.tar"
ARCHIVES = {"train": TRAIN_ARCHIVE, "val": VAL_ARCHIVE}
# The headers are scattered over 138 GB; reading them is mostly waiting for a disk or an object store.
READERS = 32


def find_in_imagenet_archives(root: Storage, splits: Collection[str]) -> DataSet:
    """Return the images of the archives of ``splits``.

    Ids are those of the unpacked folder with one folder per class, also in ``val``.

    Raises:
        UserError: an archive is damaged, or a validation image has no label.
    """
    entries: dict[str, list[Entry]] = {}
    read: list[tuple[Index, int]] = []
    for split, find in _PARTS.items():
        if split in splits:
            entries[split], indexes = find(root)
            read += indexes
    return DataSet({**entries}, notes=remarks_on_archives(read))


_Part = tuple[list[Entry], list[tuple[Index, int]]]


def _train(root: Storage) -> _Part:
    """Return the training images, and each index with the number of images it led to."""
    outer = read_index(root, TRAIN_ARCHIVE)
    if wrong := next((member.name for member in outer.members if not member.name.endswith(".tar")), None):
        raise UserError(f"{root}/{TRAIN_ARCHIVE} contains {wrong}; expected one archive <class>.tar per class")
    with ThreadPoolExecutor(READERS) as readers:
        inner = list(readers.map(lambda member: read_index(root, TRAIN_ARCHIVE, within=member), outer.members))
    entries = []
    for archive, index in zip(outer.members, inner, strict=True):
        name = PurePosixPath(archive.name).stem
        entries += [
            Entry(f"train/{name}/{image.name}", name, place_of(TRAIN_ARCHIVE, image)) for image in index.members
        ]
    return entries, [(outer, len(entries)), *((index, len(index.members)) for index in inner)]


def _val(root: Storage) -> _Part:
    labels = validation_labels(root)
    index = read_index(root, VAL_ARCHIVE)
    if unknown := [image.name for image in index.members if PurePosixPath(image.name).stem not in labels]:
        raise UserError(f"no label for {unknown[0]} in {VAL_ARCHIVE}: put {' or '.join(LABEL_FILES)} into {root}")
    names = [labels[PurePosixPath(image.name).stem] for image in index.members]
    entries = [
        Entry(f"val/{name}/{image.name}", name, place_of(VAL_ARCHIVE, image))
        for name, image in zip(names, index.members, strict=True)
    ]
    return entries, [(index, len(entries))]


_PARTS: dict[str, Callable[[Storage], _Part]] = {"train": _train, "val": _val}


def validation_labels(root: Storage) -> dict[str, str]:
    """Return the class of each validation image, by its name without extension; empty if there are no labels.

    Raises:
        UserError: the file with the labels is damaged.
    """
    if root.has_file(f"{DEVKIT}.tar.gz"):
        return _by_kit(*_unpack(root, f"{DEVKIT}.tar.gz"), f"{root}/{DEVKIT}.tar.gz")
    if root.has_file(TRUTH):
        return _by_kit(root.read(TRUTH), root.read(META), f"{root}/{DEVKIT}")
    if root.has_file(KAGGLE):
        return _by_table(decode_text(root.read(KAGGLE), f"{root}/{KAGGLE}"), f"{root}/{KAGGLE}")
    return {}


def _unpack(root: Storage, archive: str) -> tuple[bytes, bytes]:
    content = root.read(archive)
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as kit:
            return _member(kit, TRUTH), _member(kit, META)
    except (tarfile.TarError, OSError, EOFError, KeyError) as error:
        raise UserError(f"{root}/{archive} is not ImageNet's development kit: {error}") from error


def _member(kit: tarfile.TarFile, name: str) -> bytes:
    stream = kit.extractfile(name)
    data = stream.read(MAX_KIT_FILE_BYTES + 1) if stream else b""
    if not data or len(data) > MAX_KIT_FILE_BYTES:
        raise OSError(f"{name} is empty or far too large")
    return data


def _by_kit(truth: bytes, meta: bytes, name: str) -> dict[str, str]:
    """Line n of the truth is the class number of validation image n; the kit's table has each number's WordNet id."""
    wordnet_ids = _wordnet_ids(meta, name)
    lines = decode_text(truth, name).split()
    try:
        numbers = [int(line) for line in lines]
        return {VALIDATION_IMAGE.format(n): wordnet_ids[number] for n, number in enumerate(numbers, start=1)}
    except (ValueError, KeyError) as error:
        raise UserError(f"{name}: its ground truth and its table of classes do not match: {error}") from error


def _wordnet_ids(meta: bytes, name: str) -> dict[int, str]:
    import scipy.io

    try:
        synsets: Any = scipy.io.loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        return {int(synset["ILSVRC2012_ID"]): str(synset["WNID"]) for synset in synsets}
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{name}: {META} is not the table of classes: {error}") from error


def _by_table(table: str, name: str) -> dict[str, str]:
    try:
        return {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(io.StringIO(table))}
    except (KeyError, IndexError, AttributeError) as error:
        raise UserError(f"{name} lacks the columns ImageId and PredictionString") from error
