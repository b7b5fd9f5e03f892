"""Storage: complete files or none."""

import errno
import pickle
import resource
import sys
from pathlib import Path

import pytest

from pipelines.errors import UserError
from pipelines.run.directory import evaluation_folder, read_recipe
from pipelines.run.storage import Storage, short_name
from pipelines.run.storage_failures import storage_failure


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    storage = Storage.at(str(tmp_path))
    storage.write("a/b.txt", b"old")
    with pytest.raises(RuntimeError), storage.writing("a/b.txt") as stream:
        stream.write(b"half of the new")
        assert storage.read("a/b.txt") == b"old"
        assert storage.files("a") == ["b.txt"]
        raise RuntimeError
    assert storage.read("a/b.txt") == b"old"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_a_file_that_may_not_grow_so_far_is_named_and_does_not_appear(tmp_path: Path) -> None:
    """Batch systems set such limits, and FAT has one."""
    storage, limits = Storage.at(str(tmp_path)), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as failed:
            storage.write("weights", bytes(200_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert storage_failure(failed.value) == f"[Errno {errno.EFBIG}] File too large: '{tmp_path}/weights'"
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_that_is_none_is_told_with_its_file(tmp_path: Path) -> None:
    storage = Storage.at(str(tmp_path))
    storage.write_json("run.json", {"recipe": 1})
    with pytest.raises(UserError, match=rf"^{tmp_path}/run.json is damaged .recipe is no object.; restore"):
        read_recipe(storage)


def test_what_a_killed_writer_left_is_neither_listed_nor_kept(tmp_path: Path) -> None:
    storage = Storage.at(str(tmp_path))
    storage.write("a/1.parquet", b"")
    (tmp_path / "a" / "2.parquet.partial-0123").write_bytes(b"half")
    assert storage.files("a") == ["1.parquet"]
    storage.remove_partial_files("a")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["1.parquet"]


def test_relative_roots_become_absolute_and_travel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage = Storage.at("run")
    assert storage.root == str(tmp_path / "run")
    storage.write_json("x.json", {"ä": 1})
    assert pickle.loads(pickle.dumps(storage)).read_json("x.json") == {"ä": 1}  # noqa: S301


def test_a_filesystem_of_fsspec_is_a_storage_like_any_other() -> None:
    storage = Storage.at("memory://runs/one")
    storage.write("a/b.txt", b"content")
    assert storage.exists("a/b.txt")
    assert storage.files("a") == ["b.txt"]
    assert storage.read("a/b.txt") == b"content"
    storage.delete("a/b.txt")
    assert storage.files("a") == []
    assert not storage.is_local
    with pytest.raises(RuntimeError), storage.writing("a/c.txt") as stream:
        stream.write(b"half")
        raise RuntimeError
    assert storage.files("a") == []


@pytest.mark.parametrize("root", ["memory://runs/packed", ""])
def test_bytes_are_what_was_written_whatever_the_name_says(root: str, tmp_path: Path) -> None:
    storage = Storage.at(root or str(tmp_path))
    storage.write("a.gz", b"not packed at all")
    assert storage.read("a.gz") == b"not packed at all"


def test_what_leads_nowhere_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "again").symlink_to("again")
    with pytest.raises(UserError, match=r"\[bucket/run cannot be used: Invalid IPv6 URL"):
        Storage.at("s3://[bucket/run")
    if sys.version_info < (3, 13):  # later, the link is followed as far as it leads, and there is no folder
        with pytest.raises(UserError, match="again cannot be used: Symlink loop"):
            Storage.at(str(tmp_path / "again"))


def test_file_uris_are_decoded(tmp_path: Path) -> None:
    (tmp_path / "my photos").mkdir()
    uri = (tmp_path / "my photos").as_uri()
    assert "%20" in uri
    assert Storage.at(uri).root == str(tmp_path / "my photos")
    assert Storage.of_file(f"{uri}/a%20b.jpg") == (Storage.at(str(tmp_path / "my photos")), "a b.jpg")
    assert Storage.at(str(tmp_path / "a%20b")).root == str(tmp_path / "a%20b")


def test_file_uris_are_paths_and_options_stay_behind_the_names(tmp_path: Path) -> None:
    assert Storage.at(f"file://{tmp_path}").root == str(tmp_path)
    assert Storage.at(f"file://localhost{tmp_path}").root == str(tmp_path)
    with pytest.raises(UserError, match="UTF-8"):
        Storage.at("file:///data/%FF")
    with pytest.raises(UserError, match="~nobody-of-this-name"):
        Storage.of_file("~nobody-of-this-name/x.jpg")
    below = Storage.at("s3://bucket/run?endpoint_override=localhost").below("predictions")
    assert below.root == "s3://bucket/run/predictions?endpoint_override=localhost"


@pytest.mark.parametrize("uri", ["s3:/bucket/run", "file:/data/x", "hf:/datasets/me/pets", "file://data/x"])
def test_a_uri_with_a_slash_too_few_is_no_folder_of_this_machine(uri: str) -> None:
    for place in (Storage.at, Storage.of_file):
        with pytest.raises(UserError, match=f"^{uri.rpartition('/')[0]}"):
            place(uri)


def test_a_link_keeps_its_name_if_only_that_has_an_ending(tmp_path: Path) -> None:
    for target, link in (("0a1b", "x.npz"), ("y.npz", "newest"), ("z.npz", "other.npz")):
        (tmp_path / target).touch()
        (tmp_path / link).symlink_to(target)
    (tmp_path / "folder").mkdir()
    (tmp_path / "run.1").symlink_to("folder")
    roots = [Storage.at(str(tmp_path / name)).root for name in ("x.npz", "newest", "other.npz", "run.1")]
    assert roots == [str(tmp_path / name) for name in ("x.npz", "y.npz", "z.npz", "folder")]


@pytest.mark.parametrize(
    "uri", ["photos", "/data/photos", "/data/photos/", "s3://bucket/photos", "s3://bucket/photos/?region=x/y"]
)
def test_data_is_called_by_the_last_part_of_where_it_is(uri: str) -> None:
    assert short_name(uri) == "photos"


def test_only_behind_a_scheme_does_a_question_mark_begin_options() -> None:
    assert short_name("/data/cats?") == "cats?"
    assert short_name("/data/a:b?c/") == "a:b?c"
    assert short_name("torchvision:EMNIST?split=letters") == "torchvision:EMNIST"
    assert evaluation_folder("/data/cat or dog?", []).startswith("evaluations/cat_or_dog_-")


def test_nothing_is_written_to_what_others_publish() -> None:
    for root in ("hf://datasets/me/pets", "https://example.org/runs"):
        with pytest.raises(UserError, match="cannot be written: data sets that others publish are read only"):
            Storage.at(root).write("run.json", b"{}")
