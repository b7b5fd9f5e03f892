"""Sources of images: a reader and a listing for every kind of ``--data``."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from pipelines.data import embedded_dataset
from pipelines.data.advice import advice_on_file
from pipelines.data.class_folders import FlatFolderError
from pipelines.data.file_endings import (
    CONTAINERS,
    ending,
    has_ending_of_picture,
    has_known_ending,
    is_compressed,
    is_picture,
    lies_beside_pictures,
)
from pipelines.data.file_names import case_twins
from pipelines.data.file_versions import FileVersions
from pipelines.data.folder_tree import LINK_TO_NOTHING, Tree, tree_at
from pipelines.data.huggingface_parquet import ParquetImages, find_in_parquet
from pipelines.data.image_folder import FolderImages, find_in_folders
from pipelines.data.imagenet import find_in_imagenet_archives
from pipelines.data.layout import Kind, Layout
from pipelines.data.left_out import ICLOUD, remarks, remarks_on_classes, remarks_on_ids, remarks_on_other_files
from pipelines.data.listing import (
    DataSet,
    ImageReader,
    Listing,
    list_for_evaluation,
    list_for_training,
    list_unlabelled,
)
from pipelines.data.names_of_no_class import has_word_for_labels, is_kind_of_files
from pipelines.data.packed_files import is_packed
from pipelines.data.published_data import storage_of
from pipelines.data.recognition import recognise
from pipelines.data.split_names import (
    EVALUATED_FIRST,
    PURPOSES,
    TEST,
    TRAIN,
    UNSPLIT,
    VAL,
    split_of_archive,
    split_of_folder,
)
from pipelines.data.tar_archives import TarImages
from pipelines.data.torchvision_sets import PREFIX as TORCHVISION
from pipelines.data.torchvision_sets import find_in_torchvision, names_of_sets
from pipelines.data.webdataset_tars import class_list_beside, class_list_of, find_in_webdataset
from pipelines.errors import UserError, did_you_mean
from pipelines.job.console import say, some
from pipelines.run.lock import FOLDER_OF_COPIES
from pipelines.run.places import shown
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.run.teacher import absolute_teacher
from pipelines.run.weights import absolute_weights

NOTHING: Mapping[str, Any] = MappingProxyType({})
# Chooses the splits that are needed of those in a layout; the tree is that of its base.
Choice = Callable[[Layout, Tree], tuple[str, ...]]


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
    reader, data_set = _find(data, data_seed, _splits_to_train_on)
    listing = list_for_training(data, data_set, val_percent)
    if VAL not in data_set.entries:
        say(f"data: no validation images are given, so {val_percent:g} % of each class is held out")
    if twins := case_twins(listing.classes):
        say(f"data: classes whose names differ only in case: {some([' and '.join(group) for group in twins])}")
    judged = {image.label for image in listing.splits["val"]}
    if without := [name for label, name in enumerate(listing.classes) if label not in judged]:
        say(f"data: no validation images, so no class error, for these classes: {some(without)}")
    return _told(Images(reader, listing))


def images_to_evaluate(data: str, classes: tuple[str, ...], data_seed: int = 0) -> Images:
    """Return the labelled validation images; of ``classes``, if given.

    Raises:
        UserError: there are none, or they cannot be used.
    """
    try:
        reader, data_set = _find(data, data_seed, lambda layout, _: (_split_to_evaluate(layout.parts),))
    except FlatFolderError as error:
        fix = "--unlabelled is for images without labels, or put each into a folder of its class"
        raise UserError(f"{error.where}; {fix}") from error
    if (split := _split_to_evaluate(data_set.entries)) in (TEST, TRAIN):
        say(f"data: there are no validation images; the {PURPOSES[split]} images are evaluated")
    elif split == UNSPLIT:
        say("data: there are no folders or files for training and validation; all images are evaluated")
    return _with_versions(_told(Images(reader, list_for_evaluation(data, data_set, classes))))


def unlabelled_images(data: str, classes: tuple[str, ...]) -> Images:
    """Return all images below a folder, or a single one, without labels.

    Raises:
        UserError: there are none.
    """
    if not is_folder(data):
        raise UserError(f"images without labels must be in a folder, got {data}")
    _tell_look(data)
    root, tree = _pictures_at(storage_of(data))
    pictures = [name for name in tree.files if not lies_beside_pictures(name)]
    _tell((*remarks(tree), *remarks_on_other_files(sorted({*tree.files} - {*pictures}))))
    return _with_versions(_told(Images(FolderImages(root), list_unlabelled(data, pictures, classes))))


def _pictures_at(root: Storage) -> tuple[Storage, Tree]:
    """Return a folder and the names in it; of a single picture, its folder and its name."""
    if not root.is_file:
        return root, tree_at(root)
    folder, name = Storage.of_file(root.root)
    if not is_picture(name):
        advice = "archives are read with labels only: unpack it" if is_packed(name) else advice_on_file(name)
        raise UserError(f"{root} is not a picture; {advice}")
    return folder, Tree.of_names([name])


def is_folder(data: str) -> bool:
    """Return whether ``data`` is a path or URI, not the name of a data set."""
    return data not in ("", embedded_dataset.NAME) and not data.startswith(TORCHVISION)


def absolute_data(data: str) -> str:
    """Return ``data`` as stored in a recipe, independent of the working directory."""
    return Storage.at(data).root if is_folder(data) else data


def with_absolute_paths(recipe: Recipe, begun: Mapping[str, Any] = NOTHING) -> Recipe:
    """Return the recipe with absolute paths, independent of the working directory; ``begun`` is that of a run.

    Raises:
        UserError: a path leads into the copy of the project that Ray made for a submitted job.
    """
    absolute = replace(
        recipe,
        data=absolute_data(recipe.data),
        init_weights=absolute_weights(recipe.init_weights),
        teacher=absolute_teacher(recipe.teacher),
    )
    for name in ("data", "init_weights", "teacher"):
        place = getattr(absolute, name)
        # Another start of the job has another copy; a run that is bound to one goes on with what it keeps.
        if FOLDER_OF_COPIES in place.split("/") and begun.get(name) != place:
            raise UserError(
                f"--{name.replace('_', '-')} {getattr(recipe, name)} lies in Ray's copy of the project, which Ray "
                "removes: give a path from / that all nodes share, or a URI"
            )
    return absolute


def _told(images: Images) -> Images:
    """Return the images, having said what is left out of them."""
    if ignored := images.listing.ignored_summary():
        say(f"data: ignored: {ignored}")
    _tell(remarks_on_ids(image.image_id for files in images.listing.splits.values() for image in files))
    return images


def _with_versions(images: Images) -> Images:
    versions = FileVersions(images.reader).digest(images.listing.splits["val"])
    return images._replace(listing=replace(images.listing, versions=versions))


def _splits_to_train_on(layout: Layout, tree: Tree) -> tuple[str, ...]:
    """Return all splits but that for tests.

    Raises:
        UserError: the folder of the validation images is there without them, so that others would be held out.
    """
    if layout.parts.keys() & {TRAIN, UNSPLIT} and VAL not in layout.parts:
        top = {name.partition("/")[0] for name in tree.files if "/" in name} | {*tree.empty_folders}
        empty = {name for name in top if "/" not in name and split_of_folder(name) == VAL}
        packed = _packed_or_away(tree, beside_classes=UNSPLIT in layout.parts)
        if empty or packed:
            archives, folders = some(sorted(packed)), some([f"{name}/" for name in sorted(empty)])
            missing = f"there are no images in {folders}: add the validation images"
            doubt = f"{archives} may hold the validation images: add them"
            raise UserError(
                f"{missing if empty else doubt} (unpack {archives or 'them'}, or fix a link), or remove "
                f"{' and '.join(filter(None, [archives, folders]))} from here to have part of each training class held "
                "out for validation"
            )
    return tuple(split for split in layout.parts if split != TEST)


def _packed_or_away(tree: Tree, *, beside_classes: bool) -> dict[str, str]:
    """Return what in the root is no folder and may become one of validation images, each with that folder's name.

    These are archives, also in iCloud alone, and links to nothing. An archive beside the folder of its name, such as
    the class ``valid_tickets``, has been unpacked to it. ``beside_classes`` says that classes are in no ``train``: they
    may have been unpacked from ``pets-val.zip``.
    """
    folders_with_files = {name.partition("/")[0] for name in tree.files if "/" in name}
    unpacked = {name for name in folders_with_files if split_of_folder(name) != VAL}  # val/ has no images
    files = [name for name in tree.files if "/" not in name and name.partition(".")[0] not in unpacked]
    own_names = {name: name for name in files}
    in_icloud = (name for name in tree.litter if name.endswith(ICLOUD) and "/" not in name)
    own_names |= {name: name.removeprefix(".").removesuffix(ICLOUD) for name in in_icloud}
    folders = {name: _folder_of_packed(own, beside_classes=beside_classes) for name, own in own_names.items()}
    folders |= {name: name for name in (special.removesuffix(f" ({LINK_TO_NOTHING})") for special in tree.specials)}
    return {name: folder for name, folder in folders.items() if "/" not in name and split_of_folder(folder) == VAL}


def _folder_of_packed(name: str, *, beside_classes: bool) -> str:
    """Return the folder that an archive would become, by its name: val.zip.001, val-20240101T000000Z-001.zip."""
    is_other = has_known_ending(name) and ending(name) not in CONTAINERS
    if is_other or lies_beside_pictures(name.rpartition(".")[0]):  # val.txt, val.csv.gz
        return ""
    stem = name.partition(".")[0]
    if split_of_folder(stem) or is_kind_of_files(stem) or has_word_for_labels(stem):  # val_labels.zip
        return stem
    return split_of_archive(stem, is_alone=beside_classes) if is_compressed(name) or is_packed(name) else ""


def _split_to_evaluate(splits: Collection[str]) -> str:
    return next(split for split in EVALUATED_FIRST if split in splits)


def _tell_look(data: str) -> None:
    # This downloads, waits for a store, or lists a million files.
    say(f"data: looking for images in {shown(data)} ...")


def _find(data: str, data_seed: int, choose: Choice) -> tuple[ImageReader, DataSet]:
    if data == embedded_dataset.NAME:
        if Path(data).exists():
            say(f"data: the built-in digits; for the folder of that name, specify ./{data}")
        return embedded_dataset.EmbeddedImages(data_seed), embedded_dataset.find()
    _tell_look(data)
    if data.startswith(TORCHVISION):
        folder, data_set = find_in_torchvision(data)
        return FolderImages(folder), data_set
    _refuse_misspelt_name(data)
    root = storage_of(data)
    if not root.is_file:
        return _find_in(root, tree_at(root), choose)
    folder, name = Storage.of_file(root.root)
    if has_ending_of_picture(name):  # its folder may hold others, of which nobody has asked
        raise FlatFolderError(f"{root} is a single file, so its class is not known")
    if not is_packed(name):
        raise UserError(f"{root} is a file; {advice_on_file(name)}")
    return _find_in(folder, Tree.of_names([name, *class_list_of(folder, name)]), choose)


def _refuse_misspelt_name(data: str) -> None:
    """Refuse what is no folder, but nearly ``embedded`` or the name of a data set of torchvision."""
    if Path(data).exists():
        return
    word = data.removeprefix(f"{Path.cwd()}/").removesuffix("/")  # as it was specified; recipes have absolute paths
    prefix, colon, name = word.partition(":")
    if colon and did_you_mean(prefix, [TORCHVISION.removesuffix(":")]):
        raise UserError(f"there is no folder {data} (did you mean {TORCHVISION}{name}?)")
    if colon or "/" in word:
        return
    if meant := did_you_mean(word, [embedded_dataset.NAME]):
        raise UserError(f"there is no folder {data}{meant}")
    if known := [name for name in names_of_sets() if name.lower() == word.lower()]:
        raise UserError(f"there is no folder {data} (did you mean {TORCHVISION}{known[0]}?)")


def _find_in(root: Storage, tree: Tree, choose: Choice) -> tuple[ImageReader, DataSet]:
    """Return the images of the data set in ``tree``, all names below ``root``, and say what it is taken for."""
    try:
        layout = recognise(tree, root)
    except UserError:
        _tell(remarks(tree))  # what is left out may be what is missed: pictures in iCloud alone, hidden folders
        raise
    inside = tree.below(layout.base) if layout.base else tree
    _tell((layout.description, *remarks(tree), *remarks_on_classes(inside, layout)))
    splits = choose(layout, inside)
    reader, data_set = _read(root, inside, layout, splits)
    _tell(data_set.notes)
    # Of the splits that are not needed, only the test split may be missed.
    other = {path for split, paths in layout.parts.items() if split not in (*splits, TEST) for path in paths}
    ignored = [name for name in data_set.ignored if not other & {name, *_two_folders(name)}]
    if layout.base:
        outside = (name for name in tree.files if not name.startswith(f"{layout.base}/"))
        ignored = sorted([*outside, *(f"{layout.base}/{name}" for name in ignored)])
    return reader, replace(data_set, ignored=tuple(ignored), hint=layout.hint or data_set.hint)


def _read(root: Storage, tree: Tree, layout: Layout, splits: tuple[str, ...]) -> tuple[ImageReader, DataSet]:
    """Return the images of ``splits``; ``tree`` is that of the layout's base, below ``root``."""
    base = root.below(layout.base) if layout.base else root
    parts = {split: layout.parts[split] for split in splits}
    if layout.kind == Kind.CLASS_FOLDERS:
        return FolderImages(base), find_in_folders(tree.files, parts, (base, root))
    used = {name for names in parts.values() for name in names}
    if layout.kind == Kind.PARQUET:
        reader: ImageReader = ParquetImages(base)
        data_set = find_in_parquet(base, parts)
    else:
        say(f"data: reading the headers of the archives in {base} ...")  # ImageNet has 1.3 million, which takes minutes
        reader = TarImages(base)
        if layout.kind == Kind.IMAGENET:
            data_set = find_in_imagenet_archives(base, parts)
        else:
            # Those of all splits, also of ones that are not needed: training and evaluation read the same list.
            class_list = class_list_beside(layout.parts, tree.files)
            used.add(class_list)
            data_set = find_in_webdataset(base, parts, class_list)
    return reader, replace(data_set, ignored=tuple(name for name in tree.files if name not in used))


def _two_folders(name: str) -> tuple[str, str]:
    """Return the first folder of a name, and the first two, where class folders are."""
    first, _, below = name.partition("/")
    return first, f"{first}/{below.partition('/')[0]}"


def _tell(lines: Iterable[str]) -> None:
    for line in lines:
        say(f"data: {line}")
