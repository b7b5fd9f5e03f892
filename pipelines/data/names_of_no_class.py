"""Names of folders that are not classes: parts of a data set, and kinds of files.

``seg_train`` beside ``seg_test``, ``fold1`` beside ``fold2``, ``images`` beside ``masks``, ``thumbs`` below a class.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

from pipelines.data.split_names import SPLIT_OF_WORD, TRAIN, split_of_folder, suggested_splits, words_in
from pipelines.errors import UserError
from pipelines.job.console import some
from pipelines.run.storage import Storage

PARTS = {"part", "batch", "chunk", "fold", "shard", "subset", "split", "set", "image", "images"}
THUMBNAILS = {"thumbnail", "thumb"}
KINDS_OF_FILES = {"image", "img", "mask", "msk", "label", "annotation", "segmentation", "seg", "gt", *THUMBNAILS}
# The same in several words: MVTec's masks, and those of Pascal VOC.
KINDS_IN_WORDS = {"groundtruth", "segmentationclas", "segmentationobject"}  # without a last s, as all words here
PHOTOGRAPHS = {"image", "img", "photo", "picture", "original", "rgb"}
# What labels are besides: depth/ beside rgb/. A class may well be called so.
LABELS = KINDS_OF_FILES - PHOTOGRAPHS | {"depth"}
# Words that say so, or that no picture is in it, whatever words come before them: ILSVRC2012_bbox_val_v3.tgz.
OF_LABELS = {
    "label", "annotation", "bbox", "gt", "caption", "keypoint", "instance", "attribute", "metadata", "feature",
    "embedding", "cache",
}  # fmt: skip
# The name of a mask that lies beside its picture: benign (1)_mask.png, 7.gt.png.
_MASK = re.compile(r"[ _.-](?:masks?|labels?|annotations?|segmentations?|seg|gt|depth)(?:[ _-]?\d+)?$", re.IGNORECASE)
FORMATS = {"jpeg", "jpg", "png", "tif", "tiff"}
IF_CLASSES = "if they are classes, move all class folders into a new folder train/"


def refuse_names_of_no_classes(folders: Sequence[str], root: Storage) -> None:
    """Refuse folders with pictures that would be classes, if their names say that they are something else.

    Raises:
        UserError: some are splits with a name before them, or all are numbered parts or kinds of files.
    """
    if splits := _named_splits(folders):
        fix = "rename them to train/, val/ and test/, with a folder for each class directly in each"
        raise UserError(
            f"{root} has {_listed(splits)}, whose names suggest training and test splits: {fix}; {IF_CLASSES}"
        )
    if len(folders) < 2:
        return
    if _are_parts(folders):
        fix = "put their pictures into one folder for each class"
        raise UserError(f"{root} has {_listed(folders)}, whose names suggest parts of a data set: {fix}; {IF_CLASSES}")
    if are_kinds_of_files(folders) or all(is_kind_of_files(name) and are_photographs(name) for name in folders):
        likely = min(folders, key=lambda name: not are_photographs(name))
        fix = f"if the folders in one of them are the classes, specify it, such as {root.below(likely)}"
        raise UserError(f"{root} has {_listed(folders)}, whose names suggest kinds of files: {fix}; {IF_CLASSES}")


def refuse_classes_in_classes(folders: Mapping[str, Collection[str]], root: Storage) -> None:
    """Refuse folders with mostly the same folders of pictures in them, if their names are like those of splits.

    Raises:
        UserError: there are two.
    """
    suggested = {name: suggested_splits(name) for name in folders}
    if len(set().union(*suggested.values())) < 2:
        return
    for name in (name for name in folders if TRAIN in suggested[name]):
        alike = [other for other, inside in folders.items() if _are_mostly_the_same(inside, folders[name])]
        if _suggest_splits(alike):
            shared = set.intersection(*({*folders[other]} for other in alike)) or {*folders[name]}
            fix = "rename them to train/, val/ and test/"
            raise UserError(
                f"{root} has {_listed(alike)}, each with the folders {some(sorted(shared), 3)}, so they seem to be "
                f"parts for training and test: {fix}; {IF_CLASSES}"
            )


def _are_mostly_the_same(one: Collection[str], other: Collection[str]) -> bool:
    """Return whether half of the names in one folder, at least, are in the other: a split may lack some classes."""
    shared = {*one} & {*other}
    return bool(shared) and 2 * len(shared) >= min(len({*one}), len({*other}))


def _suggest_splits(names: Sequence[str]) -> bool:
    """Return whether most names are like those of two splits, one for training: not strain_A beside strain_B."""
    suggested = [suggested_splits(name) for name in names]
    most = 2 * sum(map(bool, suggested)) > len(names)  # two of many classes may be toy_train and chess_contest
    return most and len(set().union(*suggested)) > 1 and any(TRAIN in splits for splits in suggested)


def refuse_kinds_of_files_in_splits(classes: Sequence[str], splits: Sequence[str], root: Storage) -> None:
    """Refuse several splits whose classes would be kinds of files: train/images, train/masks, val/images, val/masks.

    In one split alone, they are taken for classes.

    Raises:
        UserError: they are.
    """
    if len(splits) > 1 and are_kinds_of_files(classes):
        kept = next((name for name in splits if split_of_folder(name) == TRAIN), splits[0])
        others = [name for name in splits if name != kept]
        raise UserError(
            f"{root} has {_listed(classes)} in {_listed(splits)}, whose names suggest kinds of files: put the pictures "
            f"of each class into a folder of its own; if they are classes, rename them, or move {_listed(others)} "
            "elsewhere"
        )


def _named_splits(folders: Sequence[str]) -> list[str]:
    """Return folders whose names differ only in the split, one of them training: pets_train and pets_test."""
    by_other_words: dict[tuple[str, ...], dict[str, str]] = defaultdict(dict)
    for name in folders:
        words = words_in(name)
        splits = {SPLIT_OF_WORD[word] for word in words if word in SPLIT_OF_WORD}
        if len(splits) == 1:
            by_other_words[tuple(word for word in words if word not in SPLIT_OF_WORD)][splits.pop()] = name
    divided = (by_split for by_split in by_other_words.values() if TRAIN in by_split and len(by_split) > 1)
    return sorted(next(divided, {}).values())


def _are_parts(folders: Sequence[str]) -> bool:
    """Return whether the names differ only in their last numbers, which count parts: fold1, fold2."""
    divided = [re.fullmatch(r"(.*?)(\d+)\D*", name) for name in folders]
    matches = [match for match in divided if match]
    if len(matches) < len(folders) or len({match[1].lower() for match in matches}) > 1:
        return False
    numbers = sorted(int(match[2]) for match in matches)
    counts = numbers in (list(range(len(numbers))), list(range(1, len(numbers) + 1)))
    return counts and not PARTS.isdisjoint(words_in(matches[0][1]))


def is_kind_of_files(name: str) -> bool:
    """Return whether a folder's name says that its files are of one kind: images, masks, JPEGImages."""
    words = _words_of_kind(name)
    return "".join(_singular(name)) in KINDS_IN_WORDS or (bool(words) and KINDS_OF_FILES.issuperset(words))


def are_kinds_of_files(folders: Collection[str]) -> bool:
    """Return whether folders hold different kinds of files by their names, not classes: images beside lung_masks.

    Names that differ only in a number are those of classes: label_0, label_1.
    """
    others = [name for name in folders if not are_photographs(name)]
    if 0 < len(others) < len(folders) and all(map(_may_be_labels, others)):
        return True
    return len({tuple(_words_of_kind(name)) for name in folders}) > 1 and all(map(is_kind_of_files, folders))


def has_word_for_labels(name: str) -> bool:
    """Return whether a name has a word for what is told of pictures, and does not end as pictures' own.

    ``coco_annotations_val`` does, ``instance_images_val`` does not.
    """
    words = _words_of_kind(name)
    return not OF_LABELS.isdisjoint(words) and words[-1] not in PHOTOGRAPHS


def are_photographs(name: str) -> bool:
    """Return whether a folder's name says no more than that photographs are in it: images, rgb."""
    words = _words_of_kind(name)
    return bool(words) and PHOTOGRAPHS.issuperset(words)


def _may_be_labels(name: str) -> bool:
    """Return whether a folder's name is that of labels where one beside it says that photographs are in that."""
    return is_kind_of_files(name) or not LABELS.isdisjoint(_words_of_kind(name)[-1:])


def _words_of_kind(name: str) -> list[str]:
    """Return the words in a folder's name, in the singular, without those for formats and splits."""
    return [word for word in _singular(name) if word not in FORMATS and word not in SPLIT_OF_WORD]


@lru_cache  # a folder's name is asked for with each picture in it
def _singular(name: str) -> tuple[str, ...]:
    return tuple(word.removesuffix("s") for word in words_in(name))


def folder_of_thumbnails(name: str, folders_with_pictures: Collection[str], depth: int) -> str:
    """Return the folder in which a picture is a copy of one above it, by the folder's name; empty if there is none.

    Args:
        name: path of the picture.
        folders_with_pictures: folders that hold pictures directly.
        depth: number of folders that lead to the class; only folders below it may hold thumbnails.
    """
    folders = name.split("/")[:-1]
    for place in range(depth, len(folders)):
        words = _singular(folders[place])
        above = "/".join(folders[:place])
        if words and THUMBNAILS.issuperset(words) and above in folders_with_pictures:
            return f"{above}/{folders[place]}/"
    return ""


def folder_of_masks(name: str, depth: int, with_photographs: Collection[str]) -> str:
    """Return the folder below its class in which a picture seems to be no photograph, by the folder's name; or nothing.

    Args:
        name: path of the picture.
        depth: number of folders that lead to the class.
        with_photographs: folders in which a folder such as ``images`` is; ``lung_masks`` beside it has masks.
    """
    folders = name.split("/")[:-1]
    for place in range(depth, len(folders)):
        is_one = is_kind_of_files(folders[place]) or "/".join(folders[:place]) in with_photographs
        if is_one and not are_photographs(folders[place]) and _may_be_labels(folders[place]):
            return "/".join(folders[: place + 1]) + "/"
    return ""


def masks_beside_pictures(names: Sequence[str]) -> dict[str, list[str]]:
    """Return the pictures that seem to be masks of others beside them, by their names, for each folder."""
    stems = ((name, name.rpartition(".")[0]) for name in names)
    suspects = {name: stem[: match.start()] for name, stem in stems if (match := _MASK.search(stem))}
    known = {name.rpartition(".")[0] for name in names} if suspects else set()
    masks: dict[str, list[str]] = defaultdict(list)
    for name, stem in suspects.items():
        if stem in known:
            masks[name.rpartition("/")[0]].append(name)
    return masks


def _listed(folders: Sequence[str]) -> str:
    return some([f"{name}/" for name in folders])
