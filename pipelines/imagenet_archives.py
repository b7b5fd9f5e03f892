"""ILSVRC 2012 as it is downloaded: an archive of a thousand archives, one of 50,000 images, and the development kit.

Nothing is unpacked to disk.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

from pipelines.errors import UserError
from pipelines.image_listing import Entry, Found
from pipelines.imagenet_labels import LABEL_FILES, validation_labels
from pipelines.storage import Storage
from pipelines.tar_archives import Member, place_of, read_index

TRAIN = "ILSVRC2012_img_train.tar"
VAL = "ILSVRC2012_img_val.tar"
# Headers are scattered over 138 GB, and reading them is waiting: for a disk, or for an object store.
READERS = 32


def find_in_imagenet_archives(root: Storage) -> Found:
    """The images of the archives that are there; one of the two is enough for what needs only that.

    Ids are those of the unpacked folder with a folder for each class, ``val`` included.

    Raises:
        UserError: an archive is damaged, or nothing tells the classes of the validation images.
    """
    entries = {split: find(root) for split, name, find in _PARTS if root.exists(name)}
    return Found({**entries})


def _train(root: Storage) -> list[Entry]:
    inner = read_index(root, TRAIN)
    if wrong := next((member.name for member in inner if not member.name.endswith(".tar")), None):
        raise UserError(f"{root}/{TRAIN} holds {wrong}; expected an archive <class>.tar for each class")
    with ThreadPoolExecutor(READERS) as readers:
        classes = readers.map(lambda member: _class(root, member), inner)
        return [entry for entries in classes for entry in entries]


def _class(root: Storage, archive: Member) -> list[Entry]:
    name = PurePosixPath(archive.name).stem
    images = read_index(root, TRAIN, within=archive)
    return [Entry(f"train/{name}/{image.name}", name, place_of(TRAIN, image)) for image in images]


def _val(root: Storage) -> list[Entry]:
    labels = validation_labels(root)
    images = read_index(root, VAL)
    if unknown := [image.name for image in images if PurePosixPath(image.name).stem not in labels]:
        raise UserError(f"nothing tells the class of {unknown[0]} in {VAL}: put {' or '.join(LABEL_FILES)} into {root}")
    return [
        Entry(f"val/{(name := labels[PurePosixPath(image.name).stem])}/{image.name}", name, place_of(VAL, image))
        for image in images
    ]


_PARTS = (("train", TRAIN, _train), ("val", VAL, _val))
