"""Hugging Face's Parquet files of images: a column of images with their bytes, and one of labels.

Class names are read from the files' metadata; without them, classes are named by their numbers.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from googlenet.images.decoding import ImageDecodeError
from googlenet.images.refusals import LOOKED_AT_BYTES, placeholder
from pipelines.data.class_list import refuse_repeated
from pipelines.data.file_names import original, readable
from pipelines.data.listing import DataSet, Entry, ImageFile
from pipelines.errors import UserError
from pipelines.job.console import some
from pipelines.run.storage import Storage
from pipelines.run.tables import is_damage

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = (LABEL := "label", "labels", "fine_label")
READERS = 16


@dataclass
class ParquetImages:
    """Reader of images by places such as ``data/train-0.parquet#3:17``, row 17 of row group 3; caches one row group."""

    root: Storage
    _kept: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def read(self, image: ImageFile) -> bytes:
        """Return the bytes in the image's cell."""
        group, _, row = image.place.rpartition(":")
        if group not in self._kept:
            file, _, number = group.rpartition("#")
            try:
                with _opened(self.root, file) as stored:
                    column = _one_of(IMAGE_COLUMNS, stored.schema_arrow, f"{self.root}/{file}")
                    self._kept = {group: _column(stored, int(number), column)}
            except (pa.ArrowException, UnicodeDecodeError) as error:
                raise OSError(f"row group {number} of {self.root}/{file} cannot be decoded: {error}") from error
        cell = self._kept[group][int(row)].as_py()
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(data, bytes):
            raise ImageDecodeError("its cell holds no bytes")
        return data

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "_kept": {}}


def find_in_parquet(root: Storage, files: Mapping[str, Sequence[str]]) -> DataSet:
    """Return the images of ``files``, which are given by split, relative to ``root``.

    Raises:
        UserError: a file is damaged, lacks the columns or names a class twice, or an image has no label, or one that
            other files do not name.
    """
    splits = {name: split for split, names in files.items() for name in names}
    entries: dict[str, list[Entry]] = {split: [] for split in files}
    class_names: dict[str, str] = {}
    columns = set()
    with ThreadPoolExecutor(READERS) as readers:
        read = readers.map(lambda file: _entries(root, file), splits)
        for (file, split), (of_file, column, names_here) in zip(splits.items(), read, strict=True):
            entries[split] += of_file
            columns.add(column)
            class_names.update(dict.fromkeys(names_here, file))
    if class_names:
        _refuse_unnamed(root, entries, class_names)
    # Others may lie beside them, such as the coarse labels of CIFAR-100.
    notes = () if columns <= {LABEL} else (f"labels: column {' or '.join(sorted(columns))}",)
    return DataSet({**entries}, tuple(class_names) or _in_order(entries), notes=notes)


def _refuse_unnamed(root: Storage, entries: Mapping[str, Sequence[Entry]], class_names: Mapping[str, str]) -> None:
    """Refuse a label that no file names; ``class_names`` has a file for each name."""
    for entry in (entry for of_split in entries.values() for entry in of_split):
        if entry.class_name not in class_names:
            file, named = entry.place.rpartition("#")[0], next(iter(class_names.values()))
            raise UserError(
                f"{root}/{named} names its classes, and {root}/{file} has a label that is none of them, "
                f"{entry.class_name!r}: write all files with the same features, or specify one of them"
            )


def _in_order(entries: dict[str, list[Entry]]) -> tuple[str, ...]:
    names = {entry.class_name for of_split in entries.values() for entry in of_split}
    return tuple(sorted(names, key=int)) if all(name.isdecimal() for name in names) else ()


def _entries(root: Storage, file: str) -> tuple[list[Entry], str, tuple[str, ...]]:
    """Return the images of a file, the column of their labels, and the names of the classes, if it has them."""
    name = f"{root}/{file}"
    try:
        with _opened(root, file) as stored:
            schema = stored.schema_arrow
            _one_of(IMAGE_COLUMNS, schema, name)
            column = _one_of(LABEL_COLUMNS, schema, name)
            class_names = _class_names(schema.metadata or {}, column)
            refuse_repeated(class_names, name)
            entries = []
            for group in range(stored.num_row_groups):
                labels = _column(stored, group, column).to_pylist()
                for row, label in enumerate(labels):
                    cls = _class_name(label, class_names, f"{name}, row group {group}, row {row}")
                    entries.append(Entry(f"{file}/{group:05d}/{row:06d}", cls, f"{file}#{group}:{row}"))
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        if not is_damage(error):
            raise
        with root.open(original(file)) as stream:
            words = placeholder(stream.read(LOOKED_AT_BYTES))
        raise UserError(f"{name} is {words or f'not a complete Parquet file: {error}'}") from error
    return entries, column, class_names


@contextmanager
def _opened(root: Storage, file: str) -> Iterator[pq.ParquetFile]:
    # Without threads of Arrow here and below: they still hold what Python read for a moment after the reader is done.
    # If Python ends in that moment, they cannot free it, and abort the process.
    with root.open(original(file)) as stream, pq.ParquetFile(stream, pre_buffer=False) as stored:
        yield stored


def _column(stored: pq.ParquetFile, group: int, column: str) -> pa.ChunkedArray:
    return stored.read_row_group(group, columns=[column], use_threads=False).column(0)


def _one_of(known: Sequence[str], schema: pa.Schema, name: str) -> str:
    column = next((column for column in known if column in schema.names), None)
    if column is None:
        raise UserError(f"{name} has no column {' or '.join(known)}; its columns are {some(schema.names)}")
    return column


def _class_names(metadata: dict[bytes, bytes], column: str) -> tuple[str, ...]:
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return tuple(readable(str(name)) for name in features[column]["names"])
    except (KeyError, ValueError, TypeError):
        return ()


def _class_name(label: Any, class_names: tuple[str, ...], place: str) -> str:
    if isinstance(label, str) and label:
        return readable(label)
    if label is None or label == -1:
        raise UserError(f"{place} has no label ({label}), as in test sets whose answers are not published")
    if not isinstance(label, int) or label < 0 or (class_names and label >= len(class_names)):
        raise UserError(f"{place}: {repr(label)[:40]} is not a valid class label")
    return class_names[label] if class_names else str(label)
