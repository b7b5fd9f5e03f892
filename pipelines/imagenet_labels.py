"""The classes of ImageNet's validation images, which ILSVRC 2012 ships apart from the images.

Either the development kit, as archive or unpacked, or Kaggle's ``LOC_val_solution.csv``, beside the images. Classes are
WordNet ids such as ``n01440764``; in alphabetic order they are the labels that published weights use.
"""

import csv
import io
import tarfile
from typing import Any

from pipelines.errors import UserError
from pipelines.storage import Storage

DEVKIT = "ILSVRC2012_devkit_t12"
TRUTH = f"{DEVKIT}/data/ILSVRC2012_validation_ground_truth.txt"
META = f"{DEVKIT}/data/meta.mat"
KAGGLE = "LOC_val_solution.csv"
FLAT_VALIDATION = "ILSVRC2012_val_"
VALIDATION_IMAGE = FLAT_VALIDATION + "{:08d}"
LABEL_FILES = (f"{DEVKIT}.tar.gz", KAGGLE)
# The real kit is 2.5 MB; whatever unpacks to more than this is something else.
MAX_KIT_FILE_BYTES = 64 << 20


def validation_labels(root: Storage) -> dict[str, str]:
    """The class of each validation image, by its name without ending; empty where nothing tells.

    Raises:
        UserError: what should tell is damaged.
    """
    if root.exists(f"{DEVKIT}.tar.gz"):
        return _by_kit(*_unpack(root, f"{DEVKIT}.tar.gz"), f"{root}/{DEVKIT}.tar.gz")
    if root.exists(TRUTH):
        return _by_kit(root.read(TRUTH), root.read(META), f"{root}/{DEVKIT}")
    if root.exists(KAGGLE):
        return _by_table(root.read(KAGGLE).decode(), f"{root}/{KAGGLE}")
    return {}


def _unpack(root: Storage, archive: str) -> tuple[bytes, bytes]:
    try:
        with tarfile.open(fileobj=io.BytesIO(root.read(archive)), mode="r:gz") as kit:
            return _member(kit, TRUTH), _member(kit, META)
    except (tarfile.TarError, OSError, EOFError, KeyError) as error:
        raise UserError(f"{root}/{archive} is not ImageNet's development kit: {error}") from error


def _member(kit: tarfile.TarFile, name: str) -> bytes:
    stream = kit.extractfile(name)
    data = stream.read(MAX_KIT_FILE_BYTES + 1) if stream else b""
    if not data or len(data) > MAX_KIT_FILE_BYTES:
        raise OSError(f"{name} is empty or absurdly large")
    return data


def _by_kit(truth: bytes, meta: bytes, name: str) -> dict[str, str]:
    """Line n of the truth is the number of validation image n's class; the kit's table has each number's WordNet id."""
    wordnet_ids = _wordnet_ids(meta, name)
    try:
        numbers = [int(line) for line in truth.split()]
        return {VALIDATION_IMAGE.format(n): wordnet_ids[number] for n, number in enumerate(numbers, start=1)}
    except (ValueError, KeyError) as error:
        raise UserError(f"{name}: its ground truth and its table of classes do not fit together: {error}") from error


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
