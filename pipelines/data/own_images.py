"""Images of an evaluation that the models were trained or fitted on, known by where they lie."""

import re
from collections.abc import Sequence

from pipelines.data.file_names import original
from pipelines.data.image_folder import FolderImages
from pipelines.data.packed_files import is_packed
from pipelines.data.sources import Images, is_folder
from pipelines.errors import UserError
from pipelines.job.console import count, say
from pipelines.run.dataset import SPLITS, image_ids, read_manifest
from pipelines.run.storage import Storage

_REVISION = re.compile(r"^(hf://datasets/[^/@]+/[^/@]+)@[^/]*")


def has_validation_images(trained: Storage, data: str, images: Images, *, is_labelled: bool) -> bool:
    """Return whether some of the images to evaluate, ``images`` of ``data``, are validation images of a training run.

    A line says how many are, or how many are its training images where no errors are measured. Copies of images in
    other places are not known.

    Raises:
        UserError: errors are to be measured, and some are training images.
    """
    number = len(images.listing.splits["val"])
    seen = count_own_images(trained, data, images)
    if seen["train"] and is_labelled:
        raise UserError(
            f"{seen['train']:,} of the {count(number, 'image')} in {data} are training images of {trained}, so their "
            "errors say nothing of other images: leave out --data to evaluate the run's validation images, or give a "
            "folder of images that it was not trained with"
        )
    if seen["train"]:
        say(f"data: {seen['train']:,} of these images were trained with: answers are surer than for other images")
    if seen["val"] and is_labelled:
        say(
            f"data: {seen['val']:,} of these images are validation images of the run: temperatures, sets and budgets "
            "are fitted anew, each fold of the images judged with those of the others"
        )
    return bool(seen["val"])


def count_own_images(trained: Storage, data: str, images: Images) -> dict[str, int]:
    """Return how many of the images are in each split of a training run."""
    manifest = read_manifest(trained)
    own = str(manifest.prepared_from.get("data", ""))
    names = _names_below(own, data, images)
    if not names:  # most evaluations, which are spared the names of all training images
        return dict.fromkeys(SPLITS, 0)
    ids = {split: set(image_ids(trained, manifest.splits[split])) for split in SPLITS}
    own_names = set().union(*ids.values())
    if own_names.isdisjoint(names) and not _lies_at(own, next(iter(own_names), ""), images):
        names = _below_a_folder(names, own_names)
    return {split: sum(name in ids[split] for name in names) for split in SPLITS}


def _names_below(own: str, data: str, images: Images) -> list[str]:
    """Return the names of those images that lie in the training data ``own``, relative to it."""
    names = [image.image_id for image in images.listing.splits["val"]]
    if not is_folder(own):
        return names if data == own else []
    root = getattr(images.reader, "root", None)
    if not isinstance(root, Storage):
        return []
    start, above = f"{_place(own)}/", _place(root.root)
    return [place.removeprefix(start) for name in names if (place := f"{above}/{name}").startswith(start)]


def _place(data: str) -> str:
    """Return a folder, that of a single file, without revision and options."""
    path = _REVISION.sub(r"\1", data.partition("?")[0]).rstrip("/")
    return path.rpartition("/")[0] if is_packed(path) else path


def _lies_at(own: str, name: str, images: Images) -> bool:
    """Return whether an image of the run lies at its name in ``own``, not in a folder that holds the whole data set."""
    return isinstance(images.reader, FolderImages) and is_folder(own) and Storage.at(own).has_file(original(name))


def _below_a_folder(names: Sequence[str], own_names: set[str]) -> list[str]:
    """Return the names below the folder that holds the whole data set, to which the run's names are relative."""
    folders = names[0].split("/")[:-1]
    for depth in range(1, len(folders) + 1):
        start = "/".join([*folders[:depth], ""])
        below = [name.removeprefix(start) for name in names if name.startswith(start)]
        if not own_names.isdisjoint(below):
            return below
    return []
