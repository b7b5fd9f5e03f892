"""Folders within class folders that seem to be no part of the class: splits, and copies of other classes.

``train/validation/cat`` beside ``train/cat``, ``flowers/rose`` beside ``rose``, ``cat/test`` beside ``cat/1.jpg``.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Set

from pipelines.data.file_endings import is_picture
from pipelines.data.split_names import TEST, TRAIN, VAL, split_of_folder
from pipelines.errors import UserError
from pipelines.job.console import say, some
from pipelines.run.storage import Storage


def check_folders_in_classes(files: Iterable[str], classes: Collection[str], root: Storage) -> None:
    """Say which folders within the class folders ``classes`` may be no part of their class.

    ``classes`` are paths relative to ``root``: ``cat``, or ``train/cat``.

    Raises:
        UserError: a class in a folder for training or validation has the name of a split, and the class folders of one
            in it.
    """
    inside = _folders_in(files, classes)
    for parent in sorted({path.rpartition("/")[0] for path in classes}):
        own = {path.rpartition("/")[2]: inside[path] for path in classes if path.rpartition("/")[0] == parent}
        if parent and split_of_folder(parent) != TEST:
            _refuse_splits_among(own, parent, root)
        _tell_copies_of_classes(own, parent)
        _tell_splits_in_classes(own, parent)


def _folders_in(files: Iterable[str], classes: Collection[str]) -> dict[str, set[str]]:
    """Return the names of folders with pictures directly in each class folder."""
    inside: dict[str, set[str]] = defaultdict(set)
    known = {*classes}
    for name in files:
        folders = name.split("/")[:-1]
        depth = 1 if folders and folders[0] in known else 2
        folder = "/".join(folders[:depth])
        if len(folders) > depth and folder in known and is_picture(name):
            inside[folder].add(folders[depth])
    return inside


def _refuse_splits_among(classes: Mapping[str, Collection[str]], parent: str, root: Storage) -> None:
    """Refuse classes that are called like splits, and have the other classes, or the same ones, in them."""
    splits = {name: split for name, inside in classes.items() if inside and (split := split_of_folder(name))}
    known = _in_lower_case(classes)
    nested = [name for name in splits if _are_classes(classes[name], known, besides=name)]
    training = _in_lower_case(folder for name in splits if splits[name] == TRAIN for folder in classes[name])
    others = [name for name in splits if splits[name] != TRAIN and _are_classes(classes[name], training)]
    if nested or others:
        shown = nested or [name for name in splits if splits[name] == TRAIN or name in others]
        raise UserError(
            f"{root.below(parent)} has {some(sorted(classes[shown[0]]), 3)} in {_listed(shown)}: folders of such names "
            "with class folders in them seem to be splits, not classes; put all splits side by side (train/<class>/, "
            "val/<class>/), or rename them if they are classes"
        )


def _in_lower_case(names: Iterable[str]) -> set[str]:
    return {name.lower() for name in names}


def _are_classes(inside: Collection[str], classes: Set[str], besides: str = "") -> bool:
    """Return whether several folders in a class are called like other classes, and at least half of them are.

    ``classes`` are in lower case, with or without the class itself, ``besides``. Their number, up to some 100,000,
    takes no time here.
    """
    shared = (_in_lower_case(inside) & classes) - {besides.lower()}
    return len(shared) > 1 and 2 * len(shared) >= len(inside)


def _tell_copies_of_classes(classes: Mapping[str, Collection[str]], parent: str) -> None:
    """Name classes that have other classes in them: data sets that are unpacked, or published, twice."""
    known = _in_lower_case(classes)
    if copies := [name for name, inside in classes.items() if _are_classes(inside, known, besides=name)]:
        shared = sorted(folder for folder in classes[copies[0]] if folder.lower() in known)
        say(
            f"data: classes with folders that are named like other classes ({some(shared, 3)}): "
            f"{_listed(copies, parent)}; if that is a copy or a split of the data set, move it elsewhere"
        )


def _tell_splits_in_classes(classes: Mapping[str, Collection[str]], parent: str) -> None:
    """Say that the pictures of splits in most classes are used as any others: cat/1.jpg, cat/val/2.jpg."""
    divided = {
        name: folders
        for name, inside in classes.items()
        if (folders := sorted(folder for folder in inside if split_of_folder(folder) in (VAL, TEST)))
    }
    if 2 * len(divided) > len(classes):
        name, folders = next(iter(divided.items()))
        say(
            f"data: {_listed(folders)} in {_listed(divided, parent)}: used as pictures of these classes, whatever the "
            f"name; if it means a split, put that first ({folders[0]}/{name}/ instead of {name}/{folders[0]}/)"
        )


def _listed(names: Iterable[str], parent: str = "") -> str:
    return some([f"{parent}/{name}/".removeprefix("/") for name in names], 3)
