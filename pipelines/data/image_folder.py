"""Images in class folders, ``train/<class>/*`` and ``val/<class>/*``, or ``<class>/*``, at any depth below the class.

ImageNet's ``val`` without class folders is labelled from the files that ImageNet ships with it.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import cast

from googlenet.images.decoding import check_number_of_bytes
from pipelines.data.file_endings import is_picture, lies_beside_pictures
from pipelines.data.file_names import original
from pipelines.data.imagenet import FLAT_VALIDATION, LABEL_FILES, validation_labels
from pipelines.data.left_out import (
    remarks_on_masks,
    remarks_on_masks_beside,
    remarks_on_other_files,
    remarks_on_thumbnails,
)
from pipelines.data.listing import DataSet, Entry, ImageFile
from pipelines.data.names_of_no_class import (
    are_photographs,
    folder_of_masks,
    folder_of_thumbnails,
    masks_beside_pictures,
)
from pipelines.data.split_names import VAL
from pipelines.errors import UserError
from pipelines.run.storage import Storage


@dataclass(frozen=True)
class FolderImages:
    """Reader of the files below a folder."""

    root: Storage

    def read(self, image: ImageFile) -> bytes:
        """Return the file's bytes."""
        with self.root.open(original(image.image_id)) as stream:
            check_number_of_bytes(stream.size())
            return cast(bytes, stream.read())


def find_in_folders(files: Sequence[str], parts: Mapping[str, Collection[str]], beside: Sequence[Storage]) -> DataSet:
    """Return the images among ``files`` in the class folders ``parts``, which are given by split.

    ``beside`` are the folders where ImageNet's labels may lie.

    Raises:
        UserError: ImageNet's validation images need labels, and there are none.
    """
    split_of = {path: split for split, paths in parts.items() for path in paths}
    labels = _validation_labels(files, parts, beside)
    entries: dict[str, list[Entry]] = {split: [] for split in parts}
    ignored: list[str] = []
    beside_pictures: list[str] = []
    thumbnails: Counter[str] = Counter()
    masks: Counter[str] = Counter()
    folders_with_pictures = {name.rpartition("/")[0] for name in files if is_picture(name)}
    with_photographs = {
        above
        for above, _, own_name in (folder.rpartition("/") for folder in folders_with_pictures)
        if are_photographs(own_name)
    }
    for name in files:
        split, class_name = _split_and_class(name, split_of, labels)
        depth = 1 if name.split("/")[0] in split_of else 2
        if class_name is None:
            if labels and name.rpartition("/")[0] in split_of and is_picture(name):
                raise UserError(f"no label for {name}: {' or '.join(LABEL_FILES)} in {beside[-1]} does not name it")
            ignored.append(name)
        elif lies_beside_pictures(name):
            beside_pictures.append(name)
        elif folder := folder_of_thumbnails(name, folders_with_pictures, depth):
            thumbnails[folder] += 1
        else:
            entries[split].append(Entry(name, class_name))
            if folder := folder_of_masks(name, depth, with_photographs):
                masks[folder] += 1
    masks_beside = masks_beside_pictures([entry.image_id for of_split in entries.values() for entry in of_split])
    notes = (
        *remarks_on_other_files(beside_pictures),
        *remarks_on_thumbnails(thumbnails),
        *remarks_on_masks(masks),
        *remarks_on_masks_beside(masks_beside),
    )
    return DataSet({**entries}, ignored=tuple(ignored), notes=notes)


def _validation_labels(
    files: Sequence[str], parts: Mapping[str, Collection[str]], beside: Sequence[Storage]
) -> dict[str, str]:
    """Return the classes of ImageNet's validation images by their names, if those lie in no class folder."""
    flat = [path for path in parts.get(VAL, ()) if "/" not in path]
    if not flat:
        return {}
    labels = next((labels for place in beside if (labels := validation_labels(place))), {})
    if not labels:
        image = next(name for name in files if name.startswith(f"{flat[0]}/{FLAT_VALIDATION}"))
        raise UserError(f"no label for {image}: put {' or '.join(LABEL_FILES)} into {beside[-1]}")
    return labels


def _split_and_class(name: str, split_of: Mapping[str, str], labels: Mapping[str, str]) -> tuple[str, str | None]:
    """Return the split and the class of a file; no class if it is not part of the data set."""
    folder, _, below = name.partition("/")
    subfolder, slash, _ = below.partition("/")
    if slash and (split := split_of.get(f"{folder}/{subfolder}")) is not None:
        return split, subfolder
    split = split_of.get(folder)
    if split is None or not below:
        return "", None
    return (split, labels.get(PurePosixPath(name).stem)) if split == VAL else (split, folder)
