"""Shards: written in bounded memory and where all nodes see them; images that cannot be read meanwhile."""

import errno
import io
import os
import tracemalloc
from pathlib import Path
from socket import gethostname

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipelines.data.listing import ImageFile, Listing
from pipelines.data.prepare import images_to_time, prepare
from pipelines.data.shards import ShardPlan, write_shard
from pipelines.data.sources import Images
from pipelines.errors import UserError
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage

IMAGES = 128


def plan_of(images: int) -> ShardPlan:
    return ShardPlan("train/00000.parquet", tuple(ImageFile(f"{number}.png", 0) for number in range(images)))


class Failing:
    """A reader of which every read fails; it counts them."""

    def __init__(self, error: OSError) -> None:
        self.error, self.reads = error, 0

    def read(self, _image: ImageFile) -> bytes:
        self.reads += 1
        raise self.error


def test_a_store_that_does_not_answer_ends_the_stage_at_its_first_image(tmp_path: Path) -> None:
    """Each read takes a minute and a half to fail, and what the store does not deliver is no bad image."""
    reader = Failing(OSError("When reading information for key '0.jpg': AWS Error NETWORK_CONNECTION during GetObject"))
    run, files = Storage.at(str(tmp_path)), tuple(ImageFile(f"{number}.jpg", 0) for number in range(20))
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        write_shard(run, reader, ShardPlan("train/00000.parquet", files))
    images = Images(reader, Listing(("a",), {"train": files, "val": ()}))
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        images_to_time(run, Recipe(), images)
    assert reader.reads == 2


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ENOENT])
def test_a_file_that_cannot_be_read_is_one_of_all_that_are_named(tmp_path: Path, number: int) -> None:
    reader = Failing(OSError(number, os.strerror(number), "0.jpg"))
    plan = plan_of(20)
    assert len(write_shard(Storage.at(str(tmp_path)), reader, plan).bad_images) == 20


class Copies:
    """A reader of one picture under many names, each in memory of its own."""

    def __init__(self, picture: bytes) -> None:
        self.picture = picture

    def read(self, _image: ImageFile) -> bytes:
        return bytes(bytearray(self.picture))


def test_a_shard_takes_little_more_memory_than_its_images(tmp_path: Path) -> None:
    """One task on each core writes a shard: of 256 photographs of 5 MB, each copy takes more than a gigabyte."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)).save(buffer, "PNG")
    reader, before = Copies(buffer.getvalue()), pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        result = write_shard(Storage.at(str(tmp_path)), reader, plan_of(IMAGES))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)
    assert result.images == IMAGES
    assert peak + pool.max_memory() < 1.5 * IMAGES * len(reader.picture)


def test_a_node_that_sees_another_folder_in_place_of_the_run_directory_is_named(
    ray_cluster: str, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "driver").mkdir()
    monkeypatch.chdir(tmp_path / "driver")
    run = Storage(f"/proc/self/cwd/{tmp_path.name}")  # below the working directory of each process
    with pytest.raises(UserError, match=rf"^{gethostname()} does not see the run directory {run} of this machine: "):
        prepare(run, Recipe(data=str(photo_folder)))
    assert [path for path in tmp_path.glob("driver/*/dataset/**/*") if path.is_file()] == []
