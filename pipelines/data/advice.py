"""Advice on data without class folders: labels in names or tables, single files, archives."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from pipelines.data.file_endings import TABLES, ending, is_compressed, is_picture
from pipelines.data.file_names import original
from pipelines.job.console import some
from pipelines.run.places import UNPACK

# Numbers of distinct first words at which those may be classes: one word is no class, and more are no words.
CLASSES_IN_NAMES = range(2, 1001)
TABLES_ARE_NOT_READ = "labels in a table are not read: docs/data.md shows how to make class folders from it"


def advice_on_file(name: str) -> str:
    """Return what to do instead of giving the file ``name``, which is no archive that is read, as a data set."""
    if is_compressed(name):
        return UNPACK
    if ending(name) in TABLES:
        return TABLES_ARE_NOT_READ
    return "specify the folder that contains it"


def advice_on_labels(files: Sequence[str]) -> str:
    """Return where the labels of pictures without class folders seem to be, and what to do; empty if nowhere.

    ``files`` are the names of all files, pictures and others.
    """
    if flattened := next((name for name in files if is_picture(name) and "\\" in original(name)), ""):
        return (
            f"names have backslashes ({flattened}), as from an archive made on Windows: unpack it again with unzip, "
            "which makes folders of them"
        )
    if words := _words_in_names(filter(is_picture, files)):
        return f"if their names begin with their classes ({some(words, 3)}), docs/data.md shows how to sort them"
    tables = [name for name in files if ending(name) in TABLES and name.count("/") < 2]
    return f"{TABLES_ARE_NOT_READ} ({some(tables, 3)})" if tables else ""


def advice_on_nothing(files: Iterable[str]) -> str:
    """Return what there is in a folder without pictures; empty if there is nothing."""
    kinds = Counter(ending(name) for name in files)
    shown = [f"{number:,} {kind}" for kind, number in sorted(kinds.items(), key=lambda item: (-item[1], item[0]))]
    fix = "; docs/data.md shows how to write Arrow files as Parquet" if "arrow" in kinds else ""
    return f"it has files of other kinds ({some(shown, 3)}){fix}" if shown else "it is empty"


def _words_in_names(pictures: Iterable[str]) -> list[str]:
    """Return the words at the beginnings of names, if they may be classes: ``cat.0.jpg``, ``great_pyrenees_12.jpg``."""
    stems = (name.rpartition("/")[2].rpartition(".")[0] for name in pictures)
    words = Counter(re.split(r"[\W_]*\d", stem, maxsplit=1)[0] for stem in stems)
    plausible = "" not in words and len(words) in CLASSES_IN_NAMES and min(words.values()) > 1
    return sorted(words) if plausible else []
