"""Tests of the shard cache: a shard is read once from the object store; copies stay within the bound and up to date."""

import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

import pipelines.training.shard_cache
from googlenet.images.records import SCHEMA, WRITE_OPTIONS, Records, RecordsError, write_records
from pipelines.run.dataset import read_manifest
from pipelines.run.storage import Storage
from pipelines.training.shard_cache import ShardCache

SIZE = 1000


class Counting:
    """A filesystem that records the files it is asked for."""

    def __init__(self, root: Path) -> None:
        self.inside, self.opened = pafs.SubTreeFileSystem(str(root), pafs.LocalFileSystem()), []

    def __getattr__(self, name: str) -> Any:
        pytest.fail(f"the store is asked for {name}, which costs another request")

    def open_input_file(self, path: str) -> pa.NativeFile:
        self.opened.append(path)
        return self.inside.open_input_file(path)


@pytest.fixture(autouse=True)
def empty_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the disk look empty, regardless of this machine's."""
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=usage.total))


@pytest.fixture
def store(tmp_path: Path) -> Counting:
    (tmp_path / "store").mkdir()
    for name in "abc":
        (tmp_path / "store" / name).write_bytes(name.encode() * SIZE)
    return Counting(tmp_path / "store")


def cache(store: Any, folder: Path, max_bytes: int | None = None, version: str = "1") -> ShardCache:
    return ShardCache(store, folder / "copies", {name: f"{name}{version}.parquet" for name in "abc"}, max_bytes)


def content(opened: pa.NativeFile) -> bytes:
    with opened:
        return bytes(opened.read())


def copies(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "copies").glob("*.parquet"))


def test_a_shard_is_fetched_once_for_all_processes_of_a_node(store: Counting, tmp_path: Path) -> None:
    for _ in range(3):
        one, other = cache(store, tmp_path), cache(store, tmp_path)
        assert content(one.open_input_file("a")) == content(other.open_input_file("a")) == b"a" * SIZE
    assert store.opened == ["a"]
    assert content(cache(store, tmp_path, version="2").open_input_file("a")) == b"a" * SIZE
    assert store.opened == ["a"] * 2  # another digest is another shard


@pytest.mark.parametrize(
    ("mounts", "moves"),
    [
        ("/dev/sda1 / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n", True),
        ("/dev/sda1 / ext4 rw 0 0\ntmpfs /run tmpfs rw 0 0\n", False),
        ("tmpfs /tmp tmpfs rw 0 0\n/dev/sda1 / ext4 rw 0 0\n/dev/sdb1 /tmp ext4 rw 0 0\n", False),  # over it
        ("tmpfs / tmpfs rw 0 0\n", False),  # a live system: there is no disk
        ("", False),
    ],
)
def test_copies_lie_on_a_disk_where_temporary_files_lie_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounts: str, moves: bool
) -> None:
    (tmp_path / "mounts").write_text(mounts)
    monkeypatch.setattr(pipelines.training.shard_cache, "MOUNTS", tmp_path / "mounts")
    usual = Path("/tmp")  # noqa: S108
    monkeypatch.setattr(tempfile, "tempdir", str(usual))
    expected = pipelines.training.shard_cache.LARGE_FOLDER if moves else usual
    assert pipelines.training.shard_cache.folder().parent == expected


def test_what_has_no_room_is_read_from_the_store(store: Counting, tmp_path: Path) -> None:
    small = cache(store, tmp_path, 2 * SIZE + 100)
    for _ in range(2):
        assert [content(small.open_input_file(name)) for name in "abc"] == [name * SIZE for name in (b"a", b"b", b"c")]
    assert store.opened == ["a", "b", "c", "c"]
    assert copies(tmp_path) == ["a1.parquet", "b1.parquet"]
    assert sum(path.stat().st_size for path in (tmp_path / "copies").iterdir()) <= 2 * SIZE


def test_a_disk_without_room_a_lost_copy_and_a_busy_one_are_no_failure(
    store: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "blocked").write_bytes(b"")
    blocked = ShardCache(store, tmp_path / "blocked", {"a": "a1.parquet"})
    assert content(blocked.open_input_file("a")) == b"a" * SIZE
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=int(0.2 * usage.total)))
    assert content(cache(store, tmp_path).open_input_file("a")) == b"a" * SIZE
    assert store.opened == ["a", "a"]
    assert copies(tmp_path) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=usage.total))
    kept = cache(store, tmp_path)
    assert content(kept.open_input_file("a")) == b"a" * SIZE
    shutil.rmtree(tmp_path / "copies")
    assert content(kept.open_input_file("a")) == b"a" * SIZE
    assert copies(tmp_path) == ["a1.parquet"]


def test_a_shard_that_the_store_lacks_is_named_and_a_folder_of_somebody_elses_not_used(
    store: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store/a").unlink()
    with pytest.raises(FileNotFoundError, match="store/a"):
        cache(store, tmp_path).open_input_file("a")
    content(cache(store, tmp_path).open_input_file("b"))
    assert copies(tmp_path) == ["b1.parquet"]
    monkeypatch.setattr(pipelines.training.shard_cache.os, "getuid", lambda: 12345)
    assert content(cache(store, tmp_path).open_input_file("b")) == b"b" * SIZE
    assert store.opened == ["a", "b", "b"]


def test_two_that_want_a_shard_at_once_both_get_it_whole(
    store: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[bytes] = []
    downloaded: list[Path] = []
    download = ShardCache._download

    def counted(self: ShardCache, shard: pa.NativeFile, copy: Path) -> None:
        downloaded.append(copy)
        download(self, shard, copy)

    monkeypatch.setattr(ShardCache, "_download", counted)
    threads = [
        threading.Thread(target=lambda: read.append(content(cache(store, tmp_path).open_input_file("b"))))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read == [b"b" * SIZE] * 8
    assert downloaded == [tmp_path / "copies/b1.parquet"]


def test_old_copies_of_other_data_make_room(store: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content(cache(store, tmp_path, version="old").open_input_file("a"))
    bounded = cache(store, tmp_path, SIZE + 100)
    content(bounded.open_input_file("b"))
    assert copies(tmp_path) == ["aold.parquet"]  # it may still be in use
    part = tmp_path / "copies/zold.parquet.partial-1"
    part.write_bytes(b"left by a killed process")
    os.utime(part, (1, 1))
    monkeypatch.setattr(pipelines.training.shard_cache, "FORGOTTEN_SECONDS", 0.0)
    content(bounded.open_input_file("b"))
    assert copies(tmp_path) == ["b1.parquet"]
    assert not part.exists()


def test_no_more_copies_go_than_room_is_needed_for_the_longest_unused_first(
    store: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = cache(store, tmp_path, version="old")
    for name in "ab":
        content(others.open_input_file(name))
    os.utime(tmp_path / "copies/bold.parquet", (1, 1))
    os.utime(tmp_path / "copies/aold.parquet", (2, 2))
    content(others.open_input_file("b"))  # used again since
    monkeypatch.setattr(pipelines.training.shard_cache, "FORGOTTEN_SECONDS", -1.0)
    content(cache(store, tmp_path, 2 * SIZE + 100).open_input_file("c"))
    assert copies(tmp_path) == ["bold.parquet", "c1.parquet"]


def test_neither_splits_copies_make_room_for_the_others(finished_run: Path) -> None:
    run = Storage.at(str(finished_run))
    manifest = read_manifest(run)
    kept = set(ShardCache.of(run, manifest, None).names.values())
    assert kept == {f"{shard.digest}.parquet" for split in ("train", "val") for shard in manifest.splits[split].shards}


@pytest.mark.parametrize("indexed", [True, False])
def test_a_copy_that_has_rotted_is_fetched_again_and_a_rotten_shard_is_named(tmp_path: Path, indexed: bool) -> None:
    (tmp_path / "store").mkdir()
    shard, store = tmp_path / "store/a", Counting(tmp_path / "store")
    rows = {"image_id": ["0", "1"], "image": [b"first", b"second"], "label": [0, 1], "width": [1, 1], "height": [1, 1]}
    if indexed:
        with shard.open("wb") as stream:
            write_records(stream, zip(*rows.values(), strict=True), {})
    else:
        pq.write_table(pa.table(rows, SCHEMA), shard, **WRITE_OPTIONS)
    whole = shard.read_bytes()
    rotten = whole.replace(b"second", b"secinf")

    def read() -> list[bytes]:
        return [Records(cache(store, tmp_path), ["a"], [2])[1].image, single_image()]

    def single_image() -> bytes:
        return Records(cache(store, tmp_path), ["a"], [2]).labelled_image(1)[0]

    assert read() == [b"second"] * 2
    [copy] = (tmp_path / "copies").glob("*.parquet")
    for read_again in (read, single_image):
        copy.write_bytes(rotten)
        read_again()
        assert copy.read_bytes() == whole
    assert read() == [b"second"] * 2
    copy.write_bytes(rotten)
    shard.write_bytes(rotten)
    with pytest.raises(RecordsError, match="a is damaged"):
        single_image()
    with pytest.raises(RecordsError, match="a is damaged"):
        read()
