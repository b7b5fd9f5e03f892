"""Random reads of single images: one read of their own bytes each, checked; shards without an index as before."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from googlenet.images import open_shards
from googlenet.images.image_index import INDEX
from googlenet.images.open_shards import READS_OF_AN_OBJECT
from googlenet.images.records import (
    ROW_GROUP_IMAGES,
    SCHEMA,
    WRITE_OPTIONS,
    Records,
    ShardDamagedError,
    write_records,
)

SIZES = (40, 1, 23)
IMAGE_BYTES = 50_000


def images(number: int) -> list[bytes]:
    generator = np.random.default_rng(number)
    return [generator.bytes(IMAGE_BYTES + row) for row in range(SIZES[number])]


def columns(encoded: Sequence[bytes], first: int = 0) -> dict[str, list[Any]]:
    rows = range(first, first + len(encoded))
    sizes = {"width": [5] * len(encoded), "height": [4] * len(encoded)}
    return {"image_id": [f"{row}.jpg" for row in rows], "image": list(encoded), "label": [r % 7 for r in rows], **sizes}


def write(path: Path, encoded: Sequence[bytes], first: int = 0) -> None:
    with path.open("wb") as stream:
        write_records(stream, zip(*columns(encoded, first).values(), strict=True), {b"made by": b"a test"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(len(SIZES)):
        write(tmp_path / f"{number}.parquet", images(number), sum(SIZES[:number]))
    return tmp_path


def opened(folder: Path, filesystem: Any = None) -> Records:
    paths = [str(folder / f"{number}.parquet") for number in range(len(SIZES))]
    return Records(filesystem or pafs.LocalFileSystem(), paths, SIZES)


class CountedFile(io.BytesIO):
    """A file that records the bytes of each read."""

    def __init__(self, content: bytes, reads: list[int]) -> None:
        super().__init__(content)
        self._reads = reads

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self._reads.append(len(data))
        return data


class Store:
    """An object store that records its requests: the files that are opened, and the bytes of each read."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.reads: list[int] = []

    def open_input_file(self, path: str) -> pa.NativeFile:
        self.opened.append(Path(path).name)
        return pa.PythonFile(CountedFile(Path(path).read_bytes(), self.reads), "r")


def test_an_image_costs_one_read_of_its_own_bytes(folder: Path) -> None:
    store = Store()
    records = opened(folder, store)
    for first in (0, 40, 41):
        records.labelled_image(first)  # reads the footer, once for each shard
    store.opened.clear()
    store.reads.clear()
    encoded = [image for number in range(len(SIZES)) for image in images(number)]
    order = np.random.default_rng(0).permutation(len(records)).tolist()
    for index in order:
        assert records.labelled_image(index) == (encoded[index], index % 7)
    assert store.reads == [len(encoded[index]) for index in order]
    assert store.opened == []


def test_an_object_is_opened_anew_now_and_then_since_there_may_be_a_local_copy(folder: Path) -> None:
    store = Store()
    records = opened(folder, store)
    for _ in range(3 * READS_OF_AN_OBJECT - 1):
        records.labelled_image(40)
    assert store.opened == ["1.parquet"] * 3


def test_few_local_files_are_open_at_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_shards, "OPEN_FILES", 2)
    records = opened(folder)
    for index in (0, 40, 63, 1, 40, 41):
        assert records.labelled_image(index)[1] == index % 7
        assert len(records._open) <= 2


def test_a_shard_with_an_index_is_plain_parquet(folder: Path) -> None:
    table = pq.read_table(folder / "2.parquet", page_checksum_verification=True)
    assert table.to_pydict() == columns(images(2), 41)
    assert table.schema.remove_metadata() == SCHEMA
    assert table.schema.metadata[b"made by"] == b"a test"
    # The index takes little of the file, even where images are as small as these.
    assert len(pq.read_metadata(folder / "2.parquet").metadata[INDEX]) < 0.001 * (folder / "2.parquet").stat().st_size


@pytest.mark.parametrize("number", [0, 1, 2, None])
def test_the_bytes_of_a_shard_are_those_of_a_table_that_is_written_at_once(tmp_path: Path, number: int | None) -> None:
    encoded = [] if number is None else images(number)
    write(tmp_path / "ours", encoded)
    table = pa.table(columns(encoded), SCHEMA.with_metadata({b"made by": b"a test"}))
    options = {name: value for name, value in WRITE_OPTIONS.items() if name != "row_group_size"}
    with pq.ParquetWriter(tmp_path / "arrows", table.schema, **options) as writer:
        writer.write_table(table, ROW_GROUP_IMAGES)
        writer.add_key_value_metadata({INDEX: pq.read_metadata(tmp_path / "ours").metadata[INDEX]})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "arrows").read_bytes()


def test_images_that_repeat_or_contain_each_other_and_large_ones_are_found(tmp_path: Path) -> None:
    large = np.random.default_rng(0).bytes(3 << 20)  # three times a page
    encoded = [b"a", b"a", b"aa", large, large[:100], large, large[1000:1100], b"", b"a" * 50, large[:100] + b"a"]
    write(tmp_path / "0.parquet", encoded)
    records = Records(pafs.LocalFileSystem(), [str(tmp_path / "0.parquet")], [len(encoded)])
    assert [records.labelled_image(index)[0] for index in range(len(encoded))] == encoded
    assert [record.image for record in records] == encoded


def test_a_shard_without_an_index_is_read_by_row_groups(folder: Path) -> None:
    pq.write_table(pa.table(columns(images(0)), SCHEMA), folder / "0.parquet", **WRITE_OPTIONS)
    records = opened(folder)
    for index in (0, 39, 40, 63):
        record = records[index]
        assert records.labelled_image(index) == (record.image, record.label)


def letter_of_the_index(letter: bytes) -> Callable[[bytes], bytes]:
    def change(file: bytes) -> bytes:
        place = file.index(INDEX) + 100
        return file[:place] + (letter if file[place : place + 1] != letter else b"B") + file[place + 1 :]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.replace(images(0)[3][-50:], bytes(50)), "the checksum of image 3 differs"),
        (lambda file: file.replace(images(0)[0], b""), "the checksum of image 3 differs"),
        (letter_of_the_index(b"A"), "its index of images is damaged"),
        (letter_of_the_index(b"\0"), "its index of images is damaged"),
    ],
)
def test_an_image_or_index_that_differs_from_what_was_written_is_an_error_that_names_the_shard(
    folder: Path, change: Callable[[bytes], bytes], message: str
) -> None:
    path = folder / "0.parquet"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ShardDamagedError, match=rf"0\.parquet is damaged: {message}"):
        opened(folder).labelled_image(3)


class TornStore(Store):
    """A store that returns half of what is read, so many times."""

    bad_reads = 0

    def open_input_file(self, path: str) -> pa.NativeFile:
        self.opened.append(Path(path).name)
        return pa.PythonFile(TornFile(Path(path).read_bytes(), self), "r")


class TornFile(io.BytesIO):
    def __init__(self, content: bytes, store: TornStore) -> None:
        super().__init__(content)
        self._store = store

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if not self._store.bad_reads:
            return data
        self._store.bad_reads -= 1
        return data[: len(data) // 2]


@pytest.mark.parametrize("read", [lambda records: records.labelled_image(3)[0], lambda records: records[3].image])
def test_a_shard_of_which_a_part_was_read_is_read_again(folder: Path, read: Callable[[Records], bytes]) -> None:
    for bad_reads in (1, 2):
        store = TornStore()
        records = opened(folder, store)
        records.labelled_image(0)
        records[20]  # the shard is open in both ways
        store.bad_reads = bad_reads
        assert read(records) == images(0)[3]
        assert store.bad_reads == 0
    store.bad_reads = 1_000
    with pytest.raises(ShardDamagedError, match=r"0\.parquet is damaged: "):
        read(opened(folder, store))


def test_a_shard_with_fewer_images_than_the_data_set_says_is_an_error(folder: Path) -> None:
    write(folder / "0.parquet", images(0)[:30])
    with pytest.raises(ShardDamagedError, match=r"0\.parquet is damaged: it has 30 images instead of 40"):
        opened(folder).labelled_image(35)


def test_a_shard_that_is_replaced_while_it_is_open_is_an_error_that_names_it(folder: Path) -> None:
    records = opened(folder)
    assert records.labelled_image(2)[0] == images(0)[2]
    content = (folder / "2.parquet").read_bytes()
    with (folder / "0.parquet").open("r+b") as file:  # the open file and its index are the old ones
        file.write(content)
        file.truncate(len(content))
    with pytest.raises(ShardDamagedError, match=r"0\.parquet is damaged: the checksum of image 2 differs"):
        records.labelled_image(2)
    records.labelled_image(40)
