"""Random access, and the order of an epoch."""

import io
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from googlenet.augment import Sampling
from googlenet.records import SCHEMA, Records, TrainingSamples, epoch_order, training_batches


def jpeg(number: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def shards(tmp_path: Path) -> tuple[list[str], list[int]]:
    sizes, first, paths = [70, 1, 33], 0, []
    for number, size in enumerate(sizes):
        rows = [(f"{i}.jpg", jpeg(i), i % 3, 50, 40) for i in range(first, first + size)]
        table = pa.table(dict(zip(SCHEMA.names, map(list, zip(*rows, strict=True)), strict=True)), SCHEMA)
        pq.write_table(table, tmp_path / f"{number}.parquet", row_group_size=32)
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
    bound = 3 * 32 * len(jpeg(0))
    records = open_all(shards, cache_bytes=bound)
    for index in range(104):
        assert records[index].image == jpeg(index)
    assert 0 < records._cached_bytes <= bound
    assert len(pickle.dumps(records)) < 2000  # loader workers do not inherit it


def test_an_epoch_visits_every_record_once_in_an_order_of_its_own() -> None:
    orders = [epoch_order(1000, seed, epoch) for seed, epoch in [(0, 0), (0, 1), (1, 0)]]
    for order in orders:
        assert sorted(order) == list(range(1000))
    assert not np.array_equal(orders[0], orders[1])
    assert not np.array_equal(orders[0], orders[2])
    assert np.array_equal(orders[0], epoch_order(1000, 0, 0))


def batches(shards: tuple[list[str], list[int]], **options: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    samples = TrainingSamples(open_all(shards), 35, Sampling(), seed=3, epoch=2)
    order = epoch_order(104, 3, 2)
    return [(batch.images, batch.labels) for batch in training_batches(samples, order, 16, **options)]


def test_batches_are_the_same_for_any_number_of_loader_workers_and_any_start(
    shards: tuple[list[str], list[int]],
) -> None:
    alone = batches(shards)
    assert [len(labels) for _, labels in alone] == [16] * 6 + [8]
    assert alone[0][0].shape == (16, 3, 35, 35)
    assert alone[0][0].is_contiguous(memory_format=torch.channels_last)
    for other in (batches(shards, num_workers=2), [*alone[:3], *batches(shards, first_step=3)]):
        assert len(other) == len(alone)
        assert all(torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(alone, other, strict=True))
