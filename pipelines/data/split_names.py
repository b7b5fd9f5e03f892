"""Names of splits: which folders and files are for training, validation or test.

The words are those of Hugging Face's datasets.
"""

import re

from pipelines.errors import UserError

TRAIN, VAL, TEST = "train", "val", "test"
# The split of images that are not yet divided into training and validation.
UNSPLIT = ""
SPLIT_WORDS = {
    TRAIN: ("train", "training"),
    VAL: ("val", "validation", "valid", "dev"),
    TEST: ("test", "testing", "eval", "evaluation"),
}
# An evaluation uses the first of these that there are.
EVALUATED_FIRST = (VAL, TEST, UNSPLIT, TRAIN)
PURPOSES = {TRAIN: "training", VAL: "validation", TEST: "test"}
SPLIT_OF_WORD = {word: split for split, words in SPLIT_WORDS.items() for word in words}
# Shorter words of splits, val and dev, begin too many others: valley, device.
SHORT = 3
# The end of -00000-of-00002-ab12cd, which Hugging Face's and WebDataset's writers add.
_NUMBERING = re.compile(r"-\d+-of-\d+.*")
# Words beside a split's that leave the folder a split folder: train_images, test-set, val2017.
_NEUTRAL = ("set", "sets", "data", "dataset", "image", "images", "img", "imgs", "split")


def split_of_folder(name: str) -> str:
    """Return the split that a folder's whole name stands for, such as Train, test1, valImages; else ``UNSPLIT``."""
    words = [word for word in words_in(name) if word not in _NEUTRAL]
    return SPLIT_OF_WORD.get(words[0], UNSPLIT) if len(words) == 1 else UNSPLIT


def split_in_name(name: str, file: str) -> str:
    """Return the split that a word in ``name`` stands for; else ``UNSPLIT``.

    ``name`` is that of ``file`` without its ending, or that of a folder above it.

    If words for several splits are in it, the one at the beginning or the end decides: ``blood-test-photos-train``.

    Raises:
        UserError: words for different splits are at both ends, or at neither.
    """
    words = words_in(_NUMBERING.sub("", name))
    splits = {SPLIT_OF_WORD[word] for word in words if word in SPLIT_OF_WORD}
    if len(splits) > 1:
        splits = {SPLIT_OF_WORD[word] for word in (words[0], words[-1]) if word in SPLIT_OF_WORD}
        if len(splits) != 1:
            raise UserError(f"{file} names more than one split: keep one of train, val and test in its name")
    return splits.pop() if splits else UNSPLIT


def split_of_archive(name: str, *, is_alone: bool) -> str:
    """Return the split whose word is the last in the name of an archive: pets-val; else ``UNSPLIT``.

    Numbers, single letters, ``part`` and neutral words may follow it, as in val-20240101T000000Z-001 and
    pets_val_images. With ``is_alone`` no other word may be before it. ``dev`` alone says too little.
    """
    words = [word for word in words_in(name) if len(word) > 1 and word not in (*_NEUTRAL, "part")]
    if is_alone and len(words) > 1:
        return UNSPLIT
    splits = {SPLIT_OF_WORD[word] for word in words if word in SPLIT_OF_WORD and word != "dev"}
    return splits.pop() if len(splits) == 1 and words[-1] in SPLIT_OF_WORD else UNSPLIT


def words_in(name: str) -> list[str]:
    """Return the words in a name, in lower case; digits, other signs and a capital after a small letter divide them.

    Letters of other alphabets make words of their own: the folder поезд (train) is no split.

    A word of a split and a neutral one need nothing between them: trainset, TestImages.
    """
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_A-Za-z]+", name)]
    return [part for word in words for part in _divided(word)]


def _divided(word: str) -> tuple[str, ...]:
    """Return the two words in a word such as trainset; others whole."""
    neutral = next((end for end in _NEUTRAL if word.removesuffix(end) in SPLIT_OF_WORD and word.endswith(end)), "")
    return (word.removesuffix(neutral), neutral) if neutral else (word,)


def suggested_splits(name: str) -> set[str]:
    """Return the splits whose words a word in a name begins or ends with, such as mytrain or testing2b."""
    splits = {word: split for word, split in SPLIT_OF_WORD.items() if len(word) > SHORT}
    joined = {
        splits[part] for word in words_in(name) for part in splits if word.startswith(part) or word.endswith(part)
    }
    return joined | {SPLIT_OF_WORD[word] for word in words_in(name) if word in SPLIT_OF_WORD}
