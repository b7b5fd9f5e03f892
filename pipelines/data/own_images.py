"""Images of an evaluation that the models were trained or fitted on, known by where they lie and what they hold."""

from collections.abc import Mapping

from googlenet.images.decoding import ImageDecodeError
from googlenet.network.hub import is_hub_name, parse_hub_name
from pipelines.data.listing import ImageFile, storage_read_by
from pipelines.data.packed_files import is_packed
from pipelines.data.shards import as_stored
from pipelines.data.sources import Images, is_folder
from pipelines.errors import UserError
from pipelines.job.console import count, say
from pipelines.run.dataset import SPLITS, Manifest, image_ids, open_records, read_manifest
from pipelines.run.storage import Storage
from pipelines.run.storage_failures import is_outage

# Images of equal names that are compared, about.
MOST_COMPARED = 16


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
            f"{seen['train']:,} of the {count(number, 'image')} in {data} are training images of {trained}, so the "
            f"measured error would be too low: to evaluate the run's validation images, give only --run-dir {trained}; "
            "to evaluate other images, give a folder without training images"
        )
    if seen["train"]:
        say(f"data: {seen['train']:,} of these images were trained on: probabilities are higher than for unseen ones")
    if seen["val"] and is_labelled:
        say(
            f"data: {seen['val']:,} of these images are validation images of the run, on which its temperatures, sets "
            "and budgets were fitted: here they are fitted again, by cross-validation over folds of these images"
        )
    return bool(seen["val"])


def count_own_images(trained: Storage, data: str, images: Images) -> dict[str, int]:
    """Return how many of the images are in each split of a training run: those of a name, if some have its content.

    A run whose shards are gone is taken for one of other images; a line says so.
    """
    manifest = read_manifest(trained)
    own = str(manifest.prepared_from.get("data", ""))
    names = _names_below(own, data, images)
    if not names:  # most evaluations, which are spared the names of all training images
        return dict.fromkeys(SPLITS, 0)
    say(f"data: comparing the images with those of {trained} ...")
    try:
        numbers = {
            split: {name: number for number, name in enumerate(image_ids(trained, manifest.splits[split]))}
            for split in SPLITS
        }
    except FileNotFoundError:
        say(f"data: the prepared images of {trained} are gone: whether it was trained on these is unknown")
        return dict.fromkeys(SPLITS, 0)
    all_names = set().union(*numbers.values())
    if all_names.isdisjoint(names.values()):
        names = _below_a_folder(names, all_names)
    counts = {}
    for split in SPLITS:
        same_names = {image: numbers[split][name] for image, name in names.items() if name in numbers[split]}
        counts[split] = len(same_names) if _some_are_same(trained, manifest, split, images, same_names) else 0
    return counts


def _some_are_same(
    trained: Storage, manifest: Manifest, split: str, images: Images, numbers: Mapping[ImageFile, int]
) -> bool:
    """Return whether one of a few of the images has the content of that of its number in the run's split.

    Other images may have the names: new ones in the same folder, or archives that count from one.

    Raises:
        OSError: the store or the network has failed, or a shard of the run: nothing is known then.
    """
    short_side_px = manifest.prepared_from.get("stored_short_side_px")
    prepared, files = open_records(trained, manifest.splits[split]), list(numbers)
    few = files[:: max(1, len(files) // MOST_COMPARED)]

    def is_same(image: ImageFile) -> bool:
        try:
            stored = as_stored(images.reader.read(image), short_side_px)
        except (OSError, ImageDecodeError) as error:
            if is_outage(error):
                raise
            return False
        return bool(prepared[numbers[image]].image == stored)

    return any(map(is_same, few))


def _names_below(own: str, data: str, images: Images) -> dict[ImageFile, str]:
    """Return the names of those images that lie in the training data ``own``, relative to it."""
    files = images.listing.splits["val"]
    if not is_folder(own):
        return {image: image.image_id for image in files} if data == own else {}
    if (root := storage_read_by(images.reader)) is None:
        return {}
    start, above = f"{_place(own)}/", _place(root.root)
    places = {image: f"{above}/{image.image_id}" for image in files}
    return {image: place.removeprefix(start) for image, place in places.items() if place.startswith(start)}


def _place(data: str) -> str:
    """Return a folder, that of a single file, without revision and options."""
    if is_hub_name(data):
        uri = parse_hub_name(data)
        path = f"{uri.id}/{uri.path_in_repo}"
    else:
        path = data.partition("?")[0] if "://" in data else data  # a local folder may have one in its name
    path = path.rstrip("/")
    return path.rpartition("/")[0] if is_packed(path) else path


def _below_a_folder(names: Mapping[ImageFile, str], own_names: set[str]) -> dict[ImageFile, str]:
    """Return the names below the folder that holds the whole data set, to which the run's names are relative."""
    folders = next(iter(names.values())).split("/")[:-1]
    for depth in range(1, len(folders) + 1):
        start = "/".join([*folders[:depth], ""])
        below = {image: name.removeprefix(start) for image, name in names.items() if name.startswith(start)}
        if not own_names.isdisjoint(below.values()):
            return below
    return {}
