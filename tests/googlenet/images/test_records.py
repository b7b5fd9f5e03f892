"""Random access to records in shards, in bounded memory."""

import io
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from PIL import Image

from googlenet.images import records as records_module
from googlenet.images.records import ROW_GROUP_IMAGES, SCHEMA, WRITE_OPTIONS, Records, RecordsError


def jpeg(number: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def shards(tmp_path: Path) -> tuple[list[str], list[int]]:
    return write_shards(tmp_path)


def write_shards(tmp_path: Path) -> tuple[list[str], list[int]]:
    sizes, first, paths = [70, 1, 33], 0, []
    for number, size in enumerate(sizes):
        rows = [(f"{i}.jpg", jpeg(i), i % 3, 50, 40) for i in range(first, first + size)]
        table = pa.table(dict(zip(SCHEMA.names, map(list, zip(*rows, strict=True)), strict=True)), SCHEMA)
        pq.write_table(table, tmp_path / f"{number}.parquet", **WRITE_OPTIONS)
        paths.append(str(tmp_path / f"{number}.parquet"))
        first += size
    return paths, sizes


def open_all(shards: tuple[list[str], list[int]], cache_bytes: int = 1 << 30) -> Records:
    return Records(pafs.LocalFileSystem(), *shards, cache_bytes=cache_bytes)


def test_every_record_is_found_by_its_index(shards: tuple[list[str], list[int]]) -> None:
    records = open_all(shards)
    assert len(records) == 104
    for index in [103, 0, 69, 70, 71, 31, 32, 64, 103]:
        record = records[index]
        assert (record.image_id, record.image, record.label) == (f"{index}.jpg", jpeg(index), index % 3)
    with pytest.raises(IndexError, match="104"):
        records[104]


def test_the_cache_stays_below_its_bound(shards: tuple[list[str], list[int]]) -> None:
    bound = 3 * ROW_GROUP_IMAGES * len(jpeg(0))
    records = open_all(shards, cache_bytes=bound)
    for index in range(104):
        assert records[index].image == jpeg(index)
    assert 0 < records._cached_bytes <= bound
    assert len(pickle.dumps(records)) < 2000  # loader processes do not inherit the cache


def test_few_files_are_open_at_once(shards: tuple[list[str], list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "OPEN_SHARDS", 1)
    records = open_all(shards, cache_bytes=1)
    for index in [0, 70, 103, 1, 102, 69]:
        assert records[index].image == jpeg(index)
        assert len(records._files) == 1


def test_shards_of_another_make_are_refused(shards: tuple[list[str], list[int]]) -> None:
    table = pq.read_table(shards[0][0])
    pq.write_table(table, shards[0][0], row_group_size=32)
    with pytest.raises(RecordsError, match="row groups have 32 images, not 8"):
        open_all(shards)[0]
