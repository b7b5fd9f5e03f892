"""Sources of images: a reader and a listing for every kind of ``--data``."""

from typing import NamedTuple

from pipelines.data import embedded_dataset
from pipelines.data.huggingface_parquet import ParquetImages, find_in_parquet
from pipelines.data.image_folder import FlatFolderError, FolderImages, files_below, find_in_folder
from pipelines.data.imagenet import DEVKIT, TRAIN, VAL, find_in_imagenet_archives
from pipelines.data.listing import (
    SPLIT_WORDS,
    Found,
    ImageReader,
    Listing,
    list_for_evaluation,
    list_for_training,
    list_unlabelled,
)
from pipelines.data.tar_archives import TarImages
from pipelines.data.torchvision_sets import PREFIX as TORCHVISION
from pipelines.data.torchvision_sets import find_in_torchvision
from pipelines.data.webdataset_tars import find_in_webdataset
from pipelines.errors import UserError
from pipelines.job.console import say
from pipelines.run.storage import Storage

# Folder in which Hugging Face keeps the files of a data set.
PARQUET_FOLDER = "data"
# Folder of the images in Kaggle's download of ImageNet; the labels are at its top.
KAGGLE_FOLDER = "ILSVRC/Data/CLS-LOC"


class Images(NamedTuple):
    """A reader of images, and their listing."""

    reader: ImageReader
    listing: Listing


def images_to_train_on(data: str, val_percent: float, data_seed: int) -> Images:
    """Return the images of both splits. ``data_seed`` is the seed of the embedded data set.

    Raises:
        UserError: there are none, or they cannot be used.
    """
    if not data:
        raise UserError("no data: specify an image folder with --data, or --data embedded for the built-in digits")
    reader, found = _find(data, data_seed)
    return Images(reader, list_for_training(data, found, val_percent))


def images_to_evaluate(data: str, classes: tuple[str, ...], data_seed: int = 0) -> Images:
    """Return the labelled validation images; of ``classes``, if given.

    Raises:
        UserError: there are none, or they cannot be used.
    """
    try:
        reader, found = _find(data, data_seed)
    except FlatFolderError as error:
        raise UserError(f"{error.found}; --unlabelled is for them, or put each into a folder of its class") from error
    return Images(reader, list_for_evaluation(data, found, classes))


def unlabelled_images(data: str, classes: tuple[str, ...]) -> Images:
    """Return all images below a folder, without labels.

    Raises:
        UserError: there are none.
    """
    if not is_folder(data):
        raise UserError(f"images without labels must be in a folder, got {data}")
    root = Storage.at(data)
    return Images(FolderImages(root), list_unlabelled(data, files_below(root), classes))


def is_folder(data: str) -> bool:
    """Return whether ``data`` is a path or URI, not the name of a data set."""
    return data not in ("", embedded_dataset.NAME) and not data.startswith(TORCHVISION)


def absolute_data(data: str) -> str:
    """Return ``data`` as stored in a recipe, independent of the working directory."""
    return Storage.at(data).root if is_folder(data) else data


def _find(data: str, data_seed: int) -> tuple[ImageReader, Found]:
    if data == embedded_dataset.NAME:
        return embedded_dataset.EmbeddedImages(data_seed), embedded_dataset.find()
    if data.startswith(TORCHVISION):
        folder, found = find_in_torchvision(data)
        return FolderImages(folder), found
    return _find_at(Storage.at(data))


def _is_unpacked(root: Storage, names: list[str]) -> bool:
    """Return whether there are folders of images; archives next to them are leftovers of unpacking.

    Raises:
        UserError: only some of ImageNet's archives are unpacked.
    """
    folders = set(root.names("")) - set(names) - {PARQUET_FOLDER, DEVKIT}
    folders = {name for name in folders if not name.startswith(".")}
    parts = {split for split, known in SPLIT_WORDS.items() if {name.lower() for name in folders} & set(known)}
    archives = {split for split, name in (("train", TRAIN), ("val", VAL)) if name in names}
    if parts and archives - parts:
        raise UserError(
            f"{root} has {' and '.join(sorted(parts))} as a folder, {' and '.join(sorted(archives))} as an archive: "
            f"put all archives, or all folders, in one place"
        )
    return bool(parts) or len(folders) > 1


def _find_at(root: Storage) -> tuple[ImageReader, Found]:
    if root.is_file:
        raise UserError(f"{root} is a file; specify the folder that contains it")
    names = root.files("")
    if _is_unpacked(root, names):
        return FolderImages(root), find_in_folder(root, beside=root)
    if any(name.endswith(".tar") for name in names):
        say(f"data: reading the headers of the archives in {root}")  # ImageNet has 1.3 million, which takes minutes
    if TRAIN in names or VAL in names:
        return TarImages(root), find_in_imagenet_archives(root)
    files = [*names, *(f"{PARQUET_FOLDER}/{name}" for name in root.files(PARQUET_FOLDER))]
    if parquet := [name for name in files if name.endswith(".parquet")]:
        return ParquetImages(root), find_in_parquet(root, parquet)
    if any(name.endswith(".tar") for name in names):
        return TarImages(root), find_in_webdataset(root, names)
    images = root.below(KAGGLE_FOLDER) if root.exists(f"{KAGGLE_FOLDER}/train") else root
    return FolderImages(images), find_in_folder(images, beside=root)
