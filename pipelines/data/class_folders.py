"""Recognition of class folders: ``<class>/*``, or ``train/<class>/*`` and ``val/<class>/*``.

A folder is a class or a split by its name and by what lies in it. Refused with the fix: images directly in a split
folder, a split folder beside class folders, and split folders in class folders.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pipelines.data.advice import advice_on_labels
from pipelines.data.file_endings import is_picture
from pipelines.data.folders_in_classes import check_folders_in_classes
from pipelines.data.imagenet import FLAT_VALIDATION
from pipelines.data.layout import Kind, Layout
from pipelines.data.names_of_no_class import (
    IF_CLASSES,
    are_kinds_of_files,
    is_kind_of_files,
    refuse_classes_in_classes,
    refuse_kinds_of_files_in_splits,
    refuse_names_of_no_classes,
)
from pipelines.data.split_names import PURPOSES, TEST, TRAIN, UNSPLIT, VAL, split_of_folder
from pipelines.errors import UserError
from pipelines.job.console import count, say, some
from pipelines.run.storage import Storage

EXPECTED = "expected <class>/<image>, or train/<class>/<image> and val/<class>/<image>"


class FlatFolderError(UserError):
    """A folder has images, but none in a folder of its class.

    ``where`` says where they lie, without what to do; ``advice`` says where their labels seem to be, if anywhere.
    """

    def __init__(self, where: str, advice: str = "") -> None:
        super().__init__("; ".join(filter(None, [where, EXPECTED, advice])))
        self.where = where


@dataclass
class Contents:
    """Pictures in a folder at the top: the number directly in it, and the number below each of its folders.

    ``with_folders`` are those of its folders that have pictures in folders of their own.
    """

    direct: int = 0
    below: Counter[str] = field(default_factory=Counter)
    with_folders: set[str] = field(default_factory=set)
    has_imagenets_validation: bool = False

    @property
    def is_split(self) -> bool:
        """Whether a folder with the name of a split is one, having class folders or ImageNet's validation images."""
        return bool(self.below) or self.has_imagenets_validation

    @property
    def is_mostly_flat(self) -> bool:
        """Whether more pictures lie directly in a split folder than in its class folders."""
        return not self.has_imagenets_validation and self.direct > self.below.total()

    def has_mostly(self, names: Collection[str]) -> bool:
        """Return whether several of these folders are in it, whatever their case, and at least half of its own are."""
        shared = {name.lower() for name in self.below} & {name.lower() for name in names}
        return len(shared) > 1 and 2 * len(shared) >= len(self.below)

    @property
    def inner_splits(self) -> list[str]:
        """Folders in this one that are named like splits, if they show that it is a data set or a class with splits.

        They do if one is for training, and there is another split or, if there are no other folders, class folders in
        it. A training folder alone says nothing: a class of vehicles may have a folder ``train``.
        """
        splits = {name: split for name in sorted(self.below) if (split := split_of_folder(name))}
        kinds = set(splits.values())
        are_alone = splits.keys() == self.below.keys() and self.with_folders.issuperset(splits)
        return [*splits] if TRAIN in kinds and (len(kinds) > 1 or are_alone) else []

    @property
    def holds_only_splits(self) -> bool:
        """Whether it holds several splits and nothing else: ``Training Data/train`` and ``val``.

        Those for training have class folders. Test pictures and ImageNet's validation pictures may have none.
        """
        splits = {name: split_of_folder(name) for name in self.below}
        kinds = {*splits.values()}
        have_classes = self.with_folders.issuperset(name for name, split in splits.items() if split == TRAIN)
        return TRAIN in kinds and len(kinds) > 1 and UNSPLIT not in kinds and have_classes


@dataclass(frozen=True)
class Survey:
    """The folders at the top that hold pictures: those with the name of a split, and the others."""

    splits: dict[str, Contents]
    others: dict[str, Contents]

    @classmethod
    def of(cls, files: Iterable[str]) -> "Survey":
        """Count the pictures in ``files``."""
        folders: dict[str, Contents] = defaultdict(Contents)
        for name in files:
            top, *rest = name.split("/", 2)
            if not is_picture(name):
                continue
            if len(rest) == 2:
                folders[top].below[rest[0]] += 1
                if "/" in rest[1]:
                    folders[top].with_folders.add(rest[0])
            elif rest:
                folders[top].direct += 1
                is_validation = split_of_folder(top) == VAL and rest[0].startswith(FLAT_VALIDATION)
                folders[top].has_imagenets_validation |= is_validation
        splits = {name: contents for name, contents in sorted(folders.items()) if split_of_folder(name)}
        return cls(splits, {name: contents for name, contents in sorted(folders.items()) if name not in splits})

    @property
    def whole_splits(self) -> dict[str, str]:
        """The split of each folder that is one."""
        return {name: split_of_folder(name) for name, contents in self.splits.items() if contents.is_split}

    @property
    def folders(self) -> int:
        """Number of folders that hold pictures."""
        return len(self.splits) + len(self.others)


def recognise_class_folders(survey: Survey, files: Sequence[str], root: Storage) -> Layout:
    """Return the class folders by split. There is at least one folder with pictures.

    ``survey`` is that of ``files``.

    Raises:
        UserError: it is doubtful which folders are classes and which are splits.
    """
    whole = survey.whole_splits
    _refuse_pictures_directly_in_splits(survey, files, root)
    _refuse_splits_beside_classes(survey, root)
    if not whole:
        classes = tuple(survey.others)
        refuse_names_of_no_classes(classes, root)
        _refuse_splits_in_classes(survey, root)
        refuse_classes_in_classes({name: contents.below for name, contents in survey.others.items()}, root)
        _tell_classes_in_classes(survey)
        check_folders_in_classes(files, classes, root)
        hint = _hint(classes[0], files, root) if len(classes) == 1 else ""
        return Layout(Kind.CLASS_FOLDERS, {UNSPLIT: classes}, f"class folders: {some(classes)}", hint=hint)
    parts: dict[str, tuple[str, ...]] = {}
    for split in PURPOSES:
        if folders := [name for name in whole if whole[name] == split]:
            parts[split] = tuple(path for name in folders for path in _classes(name, survey.splits[name]))
    names = sorted({path.partition("/")[2] for paths in parts.values() for path in paths} - {""})
    _tell_folders_like_splits(survey, names)
    refuse_kinds_of_files_in_splits(names, list(whole), root)
    check_folders_in_classes(files, [path for paths in parts.values() for path in paths if "/" in path], root)
    hint = _hint_in_split(parts.get(TRAIN, ()), files)
    return Layout(Kind.CLASS_FOLDERS, parts, f"class folders in {listed(whole)}: {some(names)}", hint=hint)


def _tell_classes_in_classes(survey: Survey) -> None:
    """Say so if most folders share most of the folders in them: splits may have names in any language."""
    nested = {name: contents for name, contents in survey.others.items() if not contents.is_mostly_flat}
    numbers = Counter(inner for contents in nested.values() for inner in {name.lower() for name in contents.below})
    half = len(survey.others) / 2
    known = {inner.lower(): inner for contents in nested.values() for inner in contents.below}
    shared = sorted(known[inner] for inner, number in numbers.items() if number > max(1, half))
    alike = [name for name, contents in nested.items() if contents.has_mostly({*shared})]
    if len(alike) > max(1, half) and not are_kinds_of_files(shared):
        names = "train/ and val/" if len(alike) == 2 else "train/, val/ and test/"
        say(
            f"data: {listed(alike)} are taken for classes, and each has the folders {some(shared, 3)}: if those are "
            f"the classes, rename {listed(alike)} to {names}"
        )


def _tell_folders_like_splits(survey: Survey, classes: Sequence[str]) -> None:
    """Name the folders beside splits with mostly their class folders: a split of another name, or a misspelt one."""
    others = {name: contents for name, contents in survey.others.items() if not is_kind_of_files(name)}
    if alike := [name for name, contents in others.items() if contents.has_mostly({*classes})]:
        say(
            f"data: {listed(alike)} left out, with the same class folders as the splits: to use the images there, "
            "rename their folder to train/, val/ or test/"
        )


def _classes(folder: str, contents: Contents) -> list[str]:
    """Return the class folders of a split folder; the folder itself if ImageNet's validation images are in it."""
    own = [folder] if contents.has_imagenets_validation else []
    return own + [f"{folder}/{name}" for name in sorted(contents.below)]


def _refuse_pictures_directly_in_splits(survey: Survey, files: Sequence[str], root: Storage) -> None:
    whole = survey.whole_splits
    flat = [name for name in survey.splits if name not in whole]
    if set(whole.values()) & {TRAIN, VAL}:
        flat = [name for name in flat if split_of_folder(name) != TEST]  # a test set without labels is left out
    # A few pictures in folders do not make classes of the rest.
    mostly = [name for name, split in whole.items() if split != TEST and survey.splits[name].is_mostly_flat]
    flat += mostly
    if not flat:
        return
    images = sum(survey.splits[name].direct for name in flat)
    none = f"most pictures in {root} are in no class folder" if mostly else f"no class folders in {root}"
    where = f"{none}: {lie(images)} directly in {listed(flat)}"
    if not survey.others:
        raise FlatFolderError(where, advice_on_labels([name for name in files if _is_labelled_part(name)]))
    raise UserError(f"{where}, beside {listed(survey.others)}; {_fix(flat[0])}")


def _is_labelled_part(name: str) -> bool:
    """Return whether a file lies where training and validation images are, or tables about them."""
    return split_of_folder(name.partition("/")[0]) != TEST


def _refuse_splits_beside_classes(survey: Survey, root: Storage) -> None:
    whole = survey.whole_splits
    for split in (TRAIN, VAL):
        if len(same := [name for name in whole if whole[name] == split]) > 1:
            raise UserError(f"{root} has {listed(same)}, both for {PURPOSES[split]}: merge them, or rename one")
    kinds = set(whole.values())
    # One more folder may be what a split's folders link to, or pictures for the documentation.
    if (kinds == {TEST} and survey.others) or (len(kinds) == 1 and len(survey.others) > 1):
        inside = {name for split in whole for name in survey.splits[split].below}
        if alike := [name for name, contents in survey.others.items() if contents.has_mostly(inside)]:
            fix = "rename them to train/, val/ and test/"
            raise UserError(
                f"{root} has {listed(whole)} beside {listed(alike)} with the same class folders, so they seem to be "
                f"parts for training and test: {fix}; {IF_CLASSES}"
            )
        raise UserError(f"{root} has {listed(whole)} beside {listed(survey.others)}; {_fix(next(iter(whole)))}")


def _refuse_splits_in_classes(survey: Survey, root: Storage) -> None:
    """Refuse split folders in classes, but in a few classes of many, of which a line is said."""
    divided = {name: splits for name, contents in survey.others.items() if (splits := contents.inner_splits)}
    if not divided:
        return
    name, splits = next(iter(divided.items()))
    others = {other: contents for other, contents in survey.others.items() if other not in divided}
    # Training and test may be kinds of pictures in a class of sports. A data set has splits in most of its classes, or
    # lies in one folder beside fewer pictures.
    if len(others) > 1 and len(others) >= len(divided) and _pictures(others) > _pictures(survey.others) / 2:
        say(f"data: {listed(splits)} in {listed(divided)} are not taken for splits, since {some([*others])} have none")
        return
    first = next(folder for folder in splits if split_of_folder(folder) == TRAIN)
    raise UserError(
        f"{root} has {listed(splits)} in {listed(divided)}: if the data set is in one folder, specify it, such as "
        f"{root.below(name)}; if each folder is a class, put the split first ({first}/{name}/ instead of "
        f"{name}/{first}/); {IF_CLASSES}"
    )


def _pictures(folders: Mapping[str, Contents]) -> int:
    return sum(contents.direct + contents.below.total() for contents in folders.values())


def _fix(split_folder: str) -> str:
    split = split_of_folder(split_folder)
    others = "elsewhere" if split == TRAIN else "into train/"
    return (
        f"if {split_folder}/ is the {PURPOSES[split]} split, it needs a folder for each class, and the others belong "
        f"{others}; if it is a class, move all class folders into a new folder train/"
    )


def _hint(name: str, files: Sequence[str], root: Storage) -> str:
    """Return what to try if the only class folder holds the classes, or labels are elsewhere."""
    folder, inside = _first_with_several(name, files)
    if len(inside) < 2:
        return advice_on_labels(files)
    return f"if {some(inside, 3)} are the classes, specify {root.below(folder)}"


def _hint_in_split(classes: Sequence[str], files: Sequence[str]) -> str:
    """Return what to try if the only class folder of a split holds the classes."""
    if len(classes) != 1:
        return ""
    folder, inside = _first_with_several(classes[0], files)
    split = classes[0].partition("/")[0]
    return f"if {some(inside, 3)} are the classes, move them from {folder}/ into {split}/" if len(inside) > 1 else ""


def _first_with_several(folder: str, files: Sequence[str]) -> tuple[str, list[str]]:
    """Return the first folder below ``folder``, or itself, with several folders of pictures, and their names."""
    while True:
        below = [
            name.removeprefix(f"{folder}/") for name in files if name.startswith(f"{folder}/") and is_picture(name)
        ]
        inside = sorted({name.partition("/")[0] for name in below if "/" in name})
        if len(inside) != 1 or any("/" not in name for name in below):
            return folder, inside
        folder = f"{folder}/{inside[0]}"


def listed(folders: Iterable[str]) -> str:
    """Format the names of folders: train/ and val/."""
    names = [f"{name}/" for name in folders]
    return " and ".join(names) if len(names) < 3 else some(names)


def lie(images: int) -> str:
    """Format a number of images with its verb: 2 images lie."""
    return f"{count(images, 'image')} {'lies' if images == 1 else 'lie'}"
