"""Recognition of Parquet files and WebDataset archives: which of them, and for which split.

They may lie at the top, in a folder of their split (``train/0000.tar``), or in a folder of their configuration
(``mnist/train-0.parquet``, ``default/train/0000.parquet``), as on Hugging Face's hub.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from pipelines.data.layout import Kind, Layout
from pipelines.data.split_names import PURPOSES, UNSPLIT, split_in_name
from pipelines.errors import UserError
from pipelines.job.console import count, some
from pipelines.run.storage import Storage

KINDS = {".tar": Kind.WEBDATASET, ".parquet": Kind.PARQUET}
THINGS = {Kind.WEBDATASET: "WebDataset archive", Kind.PARQUET: "Parquet file"}
# Folder in which Hugging Face keeps the files of a data set with one configuration.
DATA_FOLDER = "data"


class _File(NamedTuple):
    """A file, the folder of its configuration, its split, and the folder of the split, if there is one."""

    name: str
    configuration: str
    split: str
    split_folder: str


def is_packed(name: str) -> bool:
    """Return whether a file holds many images, by its ending."""
    return name.lower().endswith((*KINDS,))


def recognise_packed_files(names: Sequence[str], root: Storage) -> Layout:
    """Return the files by split; ``names`` are those of all Parquet files and tar archives, at least one.

    Raises:
        UserError: it is doubtful which of them are the data set.
    """
    kind, chosen = _one_kind(names, root)
    files = _one_configuration([_file_of(name) for name in chosen], root)
    if any(file.split for file in files):
        files = [file for file in files if file.split]
    parts = {
        split: tuple(file.name for file in files if file.split == split)
        for split in (*PURPOSES, UNSPLIT)
        if any(file.split == split for file in files)
    }
    return Layout(kind, parts, _description(THINGS[kind], files))


def _one_kind(names: Sequence[str], root: Storage) -> tuple[Kind, list[str]]:
    """Return Parquet files or archives; both occur where one of them describes the other."""
    by_kind: dict[Kind, list[str]] = defaultdict(list)
    for name in names:
        by_kind[KINDS[PurePosixPath(name).suffix.lower()]].append(name)
    if len(by_kind) == 1:
        return next(iter(by_kind.items()))
    archives, tables = by_kind[Kind.WEBDATASET], by_kind[Kind.PARQUET]
    stems = {PurePosixPath(name).with_suffix("") for name in archives}
    if all((stem := PurePosixPath(name).with_suffix("")) in stems and stem.name.isdecimal() for name in tables):
        return Kind.WEBDATASET, archives  # img2dataset writes a table of addresses beside each archive
    have_splits = [kind for kind, group in by_kind.items() if any(_file_of(name).split for name in group)]
    if len(have_splits) == 1:
        return have_splits[0], by_kind[have_splits[0]]
    raise UserError(
        f"{root} has {count(len(archives), 'tar archive')} ({some(archives, 3)}) and "
        f"{count(len(tables), 'Parquet file')} ({some(tables, 3)}): keep only the data set there, and move the rest"
    )


def _file_of(name: str) -> _File:
    path = PurePosixPath(name)
    folders = list(path.parent.parts)
    split, split_folder = split_in_name(path.stem, name), ""
    for depth in range(len(folders), 0, -1):
        of_folder = split_in_name(folders[depth - 1], name)
        if of_folder != UNSPLIT and split in (UNSPLIT, of_folder):
            split, split_folder = of_folder, "/".join(folders[:depth])
            folders = folders[: depth - 1]
            break
    if folders and folders[0] == DATA_FOLDER:
        folders = folders[1:]
    return _File(name, "/".join(folders), split, split_folder)


def _one_configuration(files: Sequence[_File], root: Storage) -> list[_File]:
    """Return the files at the top if there are any, else those of the only configuration."""
    configurations = sorted({file.configuration for file in files})
    if len(configurations) > 1 and "" not in configurations:
        raise UserError(
            f"{root} has several data sets, in {some([f'{name}/' for name in configurations])}: "
            f"specify one of them, such as {root.below(configurations[0])}"
        )
    return [file for file in files if file.configuration == configurations[0]]


def _description(thing: str, files: Sequence[_File]) -> str:
    """Format the numbers of files: 12 WebDataset archives in train/, 4 in val/."""
    texts: list[str] = []
    for split in (*PURPOSES, UNSPLIT):
        group = [file for file in files if file.split == split]
        folders = sorted({file.split_folder or str(PurePosixPath(file.name).parent) for file in group} - {"."})
        if group:
            number = f"{len(group):,}" if texts else count(len(group), thing)
            purpose = f" for {PURPOSES[split]}" if split and not all(file.split_folder for file in group) else ""
            texts.append(number + purpose + (f" in {some([f'{name}/' for name in folders], 3)}" if folders else ""))
    return ", ".join(texts)
