"""Recognition of a data set from the names in it: what it is taken for and why, or a refusal that names the fix.

Nothing is opened, so that the same step serves a folder, an object store and a hub. docs/data.md has the rules.
"""

from collections.abc import Sequence
from dataclasses import replace

from pipelines.data.advice import advice_on_labels, advice_on_nothing
from pipelines.data.class_folders import (
    EXPECTED,
    FlatFolderError,
    Survey,
    lie,
    listed,
    recognise_class_folders,
)
from pipelines.data.file_endings import is_compressed, is_further_part, is_picture
from pipelines.data.file_names import original
from pipelines.data.folder_tree import Tree
from pipelines.data.imagenet import ARCHIVES
from pipelines.data.layout import Kind, Layout
from pipelines.data.packed_files import is_packed, recognise_packed_files
from pipelines.data.split_names import TRAIN, VAL
from pipelines.errors import UserError
from pipelines.run.storage import Storage

# Folder of the images in Kaggle's download of ImageNet; the labels are at its top.
KAGGLE_FOLDER = "ILSVRC/Data/CLS-LOC"


def recognise(tree: Tree, root: Storage) -> Layout:
    """Return the layout of the data set in ``tree``. ``root`` is where it lies, used in messages only.

    Raises:
        UserError: there are no images, or it is doubtful what the names mean.
    """
    if any(name.startswith(f"{KAGGLE_FOLDER}/{TRAIN}/") for name in tree.files):
        return _within(tree, KAGGLE_FOLDER, root)
    survey = Survey.of(tree.files)
    packed = _packed_files(tree, survey)
    _refuse_parts_of_a_download(survey, packed, root)
    if not survey.folders and not packed:
        raise _no_images(tree.files, root)
    if _is_unpacked(survey, packed, root):
        only = _only_folder_with_a_layout(tree, survey)
        return _within(tree, only, root) if only else recognise_class_folders(survey, tree.files, root)
    if archives := {split: (name,) for split, name in ARCHIVES.items() if name in packed}:
        names = [name for (name,) in archives.values()]
        return Layout(Kind.IMAGENET, archives, f"ImageNet's archives: {' and '.join(names)}")
    folders = {name.rpartition("/")[0] for name in packed if name.rpartition("/")[2] in ARCHIVES.values()}
    return _within(tree, folders.pop(), root) if len(folders) == 1 else recognise_packed_files(packed, root)


def _within(tree: Tree, folder: str, root: Storage) -> Layout:
    """Return the layout of the data set in ``folder``, with that as its base.

    Raises:
        UserError: it has none, or the folder's name is no text, so that no recipe or report could hold its path.
    """
    if original(folder) != folder:
        raise UserError(
            f"the name of the folder {root.below(folder)} is not UTF-8 or has control characters: rename it"
        )
    layout = recognise(tree.below(folder), root.below(folder))
    base = f"{folder}/{layout.base}" if layout.base else folder
    return replace(layout, base=base, description=f"{layout.description}; in {folder}/")


def _packed_files(tree: Tree, survey: Survey) -> list[str]:
    """Return the Parquet files and archives that do not lie among pictures."""
    with_pictures = survey.splits.keys() | survey.others.keys()
    return [name for name in tree.files if is_packed(name) and name.split("/")[0] not in with_pictures]


def _is_unpacked(survey: Survey, packed: list[str], root: Storage) -> bool:
    """Return whether there are folders of pictures, and archives beside them, if any, are leftovers of unpacking."""
    folders = set(survey.whole_splits.values()) & {TRAIN, VAL}
    archives = {split for split, name in ARCHIVES.items() if name in packed}
    if folders and archives - folders:
        raise UserError(
            f"{root} has {' and '.join(sorted(folders))} as a folder, {' and '.join(sorted(archives))} as an archive: "
            f"put all archives, or all folders, in one place"
        )
    if folders or not packed:
        return True
    if survey.folders < 2:  # a picture of a hub's page, for example
        return False
    if below := sorted({name.split("/")[0] for name in packed if "/" in name}):
        pictures = listed(sorted([*survey.splits, *survey.others]))
        raise UserError(
            f"{root} has pictures in {pictures}, and archives or Parquet files in {listed(below)}: specify "
            f"{root.below(below[0])} if they are the data set, or move {listed(below)} elsewhere"
        )
    return True


def _refuse_parts_of_a_download(survey: Survey, packed: Sequence[str], root: Storage) -> None:
    if survey.others and not survey.splits and all(f"{name}.parquet" in packed for name in survey.others):
        raise UserError(
            f"{root} has a table beside each folder of pictures, as img2dataset writes them: such folders "
            f"({listed(survey.others)}) are parts of a download, not classes; make a folder for each class"
        )


def _only_folder_with_a_layout(tree: Tree, survey: Survey) -> str:
    """Return the only folder with pictures if it holds splits or packed files; it is no class, and no split, then."""
    if survey.folders != 1:
        return ""
    if survey.splits:
        [(folder, contents)] = survey.splits.items()
        return folder if contents.holds_only_splits else ""
    [folder] = survey.others
    inner = tree.below(folder)
    inside = Survey.of(inner.files)
    holds_packed_files = inside.folders < 2 and _packed_files(inner, inside)
    return folder if inside.splits or holds_packed_files else ""


def _no_images(files: Sequence[str], root: Storage) -> UserError:
    """Return the error for a folder in which no picture lies in a folder."""
    if images := sum(is_picture(name) for name in files):
        return FlatFolderError(f"no class folders in {root}: {lie(images)} directly in it", advice_on_labels(files))
    if packed := sorted(filter(is_compressed, files), key=is_further_part):
        return UserError(f"no images in {root}: unpack {packed[0]} first")
    return UserError(f"no images in {root}: {advice_on_nothing(files)}; {EXPECTED}")
