"""The sheet of validation images: the same few images in every run, and a bounded number of sheets."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.run.dataset import Shard, Split
from pipelines.run.sheet import MOST_IMAGES, MOST_SHARDS, MOST_SHEETS, has_sheet, read_sheets, sheet_records
from pipelines.run.storage import Storage


def split_of(folder: Path, ids: list[list[str]]) -> tuple[Storage, Split]:
    run, shards = Storage.at(str(folder)), []
    for number, names in enumerate(ids):
        with run.writing(f"dataset/val/{number:05d}.parquet") as stream:
            pq.write_table(pa.table({"image_id": names}), stream)
        shards.append(Shard(f"val/{number:05d}.parquet", len(names), ""))
    return run, Split(tuple(shards), {})


def test_the_images_depend_on_their_ids_alone(tmp_path: Path) -> None:
    ids = [f"val/{number}.jpg" for number in range(40)]
    shuffled = [ids[place] for place in np.random.default_rng(0).permutation(40)]
    chosen = {}
    for name, order in (("a", ids), ("b", shuffled)):
        run, split = split_of(tmp_path / name, [order[:30], order[30:]])
        chosen[name] = [order[record] for record in sheet_records(run, split)]
    assert len(set(chosen["a"])) == MOST_IMAGES
    assert chosen["a"] == chosen["b"]
    assert chosen["a"] != ids[:MOST_IMAGES]


def test_a_small_data_set_is_on_the_sheet_as_a_whole_and_of_a_large_one_few_shards_are_read(tmp_path: Path) -> None:
    run, split = split_of(tmp_path / "small", [["a", "b"], ["c"]])
    assert sorted(sheet_records(run, split)) == [0, 1, 2]
    run, split = split_of(tmp_path / "large", [[f"{shard}/{row}" for row in range(3)] for shard in range(40)])
    needed = 0
    for shard in split.shards:
        content = run.read(f"dataset/{shard.file}")
        run.delete(f"dataset/{shard.file}")
        with suppress(FileNotFoundError):
            sheet_records(run, split)
            needed -= 1
        needed += 1
        run.write(f"dataset/{shard.file}", content)
    assert needed == MOST_SHARDS


@pytest.mark.parametrize(("epochs", "expected"), [(3, [1, 2, 3]), (1, [1]), (25, [3, 6, 9, 12, 15, 18, 21, 24, 25])])
def test_some_epochs_have_a_sheet_and_the_last_one_always(epochs: int, expected: list[int]) -> None:
    assert [epoch for epoch in range(1, epochs + 1) if has_sheet(epoch, epochs)] == expected


def test_a_long_training_has_few_sheets() -> None:
    for epochs in range(1, 400):
        assert sum(has_sheet(epoch, epochs) for epoch in range(1, epochs + 1)) <= MOST_SHEETS


def test_a_run_of_an_earlier_version_has_none(tmp_path: Path) -> None:
    assert read_sheets(Storage.at(str(tmp_path)), 0) == []
