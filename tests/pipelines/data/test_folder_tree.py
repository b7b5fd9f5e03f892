"""Walks through folders: links, loops, named pipes, names that are not UTF-8, and what is said about them."""

import os
import re
import shutil
import socket
import time
from pathlib import Path

import fsspec
import pytest

from pipelines.data.folder_tree import Tree, tree_at
from pipelines.data.listing import Listing
from pipelines.data.sources import images_to_evaluate, images_to_train_on, unlabelled_images
from pipelines.errors import UserError
from pipelines.run.storage import Storage

LATIN_1 = os.fsdecode(b"caf\xe9")


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(name))
    return root


def listed(root: Path) -> Listing:
    return images_to_train_on(str(root), 10, 0).listing


def ids_in(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*.jpg"))


def ids(listing: Listing) -> list[str]:
    return sorted(file.image_id for files in listing.splits.values() for file in files)


@pytest.mark.parametrize("pool", ["images", "pool", "zoo"])
def test_classes_may_be_linked_to_a_pool_whatever_its_name(tmp_path: Path, pool: str) -> None:
    make(tmp_path, f"{pool}/a/1.jpg", f"{pool}/a/2.jpg", f"{pool}/b/1.jpg", f"{pool}/b/2.jpg")
    (tmp_path / "train").mkdir()
    for name in "ab":
        (tmp_path / "train" / name).symlink_to(tmp_path / pool / name)
    listing = listed(tmp_path)
    assert ids(listing) == ["train/a/1.jpg", "train/a/2.jpg", "train/b/1.jpg", "train/b/2.jpg"]
    assert listing.ignored_summary() == f"4 files in {pool}/"


def test_splits_that_are_one_folder_through_links_are_kept_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, "pool/a/1.jpg", "train/b/1.jpg", "val/b/2.jpg")
    for split in ("train", "val"):
        (tmp_path / split / "a").symlink_to("../pool/a")
    listing = listed(tmp_path)
    assert ids(listing) == ["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/b/2.jpg"]
    assert "so they hold the same images: train/a and val/a\n" in capsys.readouterr().out


def test_a_validation_folder_that_links_to_the_training_folder_is_used_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, "train/a/1.jpg", "train/b/1.jpg")
    (tmp_path / "val").symlink_to("train")
    assert ids(listed(tmp_path)) == ["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/b/1.jpg"]
    assert "so they hold the same images: train/a and val/a, train/b and val/b" in capsys.readouterr().out


@pytest.mark.parametrize("above", ["", "train/", "PHOTOS/train/"])
@pytest.mark.parametrize("name", ["dog", "St. Bernard", "r"])
def test_a_class_folder_on_a_disk_that_is_away_is_named_wherever_the_data_set_lies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], above: str, name: str
) -> None:
    make(tmp_path, *(f"{above}{cls}/{number}.jpg" for cls in ("cat", "fox") for number in range(2)))
    for link in (name, "cat/3.jpg", "cat/4.JP2", "cat/no ending"):
        (tmp_path / above / link).symlink_to(tmp_path / "away" / link)
    listing = listed(tmp_path)
    assert f"since they are not regular files: {above}{name} (link to nothing)\n" in capsys.readouterr().out
    broken = {"3.jpg", "4.JP2", "no ending"}  # the preparation will name these
    assert broken < {image_id.rpartition("/")[2] for image_id in ids(listing)}


@pytest.mark.parametrize("target", ["..", "../..", "."])
def test_a_link_to_a_folder_above_itself_is_an_error(tmp_path: Path, target: str) -> None:
    make(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "b/again").symlink_to(target)
    with pytest.raises(UserError, match=r"the link .*/b/again leads to a folder above itself"):
        listed(tmp_path)


def test_a_loop_through_a_folder_elsewhere_is_an_error(tmp_path: Path) -> None:
    make(tmp_path, "data/a/1.jpg", "elsewhere/b/1.jpg")
    (tmp_path / "data/b").symlink_to("../elsewhere/b")
    (tmp_path / "elsewhere/b/back").symlink_to(tmp_path / "data")
    with pytest.raises(UserError, match=r"the link .*/data/b/back leads to a folder above itself"):
        listed(tmp_path / "data")


def test_a_link_to_itself_is_reported_as_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "b/2.jpg").symlink_to("2.jpg")
    assert tree_at(Storage.at(str(tmp_path))).files == ("a/1.jpg", "b/1.jpg", "b/2.jpg")


@pytest.mark.timeout(20)  # opening a named pipe would wait for ever
def test_what_is_no_regular_file_is_named_and_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, "a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg")
    for name in ("a/3.jpg", "classes.txt", "LOC_val_solution.csv", "x.tar", "x.parquet"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "b/3.jpg").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # the path of a socket is short
        server.bind("s")
        reader, listing = images_to_train_on(str(tmp_path), 10, 0)
        assert [reader.read(file) for files in listing.splits.values() for file in files]
        assert ids(listing) == ["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"]
    told = capsys.readouterr().out
    for name in ("a/3.jpg (named pipe)", "b/3.jpg (device)", "classes.txt (named pipe)", "s (socket)"):
        assert name in told
    assert len(unlabelled_images(str(tmp_path), ("a", "b")).listing.splits["val"]) == 4


@pytest.mark.linux
def test_names_that_are_not_utf8_are_read_and_shown(tmp_path: Path) -> None:
    names = [f"{LATIN_1}/1.jpg", f"{LATIN_1}/{LATIN_1}.jpg", "b/1.jpg", "b/2.jpg", f"{LATIN_1}.txt"]
    reader, listing = images_to_train_on(str(make(tmp_path, *names)), 10, 0)
    assert listing.classes == ("b", r"caf\xe9")
    assert ids(listing) == ["b/1.jpg", "b/2.jpg", r"caf\xe9/1.jpg", r"caf\xe9/caf\xe9.jpg"]
    contents = {file.image_id: reader.read(file) for files in listing.splits.values() for file in files}
    assert contents[r"caf\xe9/caf\xe9.jpg"] == b"caf\xe9/caf\xe9.jpg"
    assert listing.ignored == (r"caf\xe9.txt",)


def test_a_path_that_is_not_utf8_is_refused_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the path .*/caf\\xe9 is not UTF-8: rename its folder"):
        Storage.at(str(tmp_path / LATIN_1))


@pytest.mark.parametrize("folder", [pytest.param(LATIN_1, marks=pytest.mark.linux), "two\nlines"])
def test_a_data_set_in_a_folder_whose_name_is_no_text_is_refused_by_name(tmp_path: Path, folder: str) -> None:
    make(tmp_path, *(f"{folder}/train/{cls}/{number}.jpg" for cls in "ab" for number in range(2)))
    with pytest.raises(UserError, match=r"the name of the folder .*/(caf\\xe9|two\\x0alines) is not UTF-8 or has"):
        listed(tmp_path)


@pytest.mark.linux
def test_names_that_differ_only_by_normalisation_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    make(tmp_path, f"a/{composed}.jpg", f"a/{decomposed}.jpg", "b/1.jpg", "b/2.jpg")
    assert len(ids(listed(tmp_path))) == 4
    assert f"differ only in Unicode normalisation (NFC, NFD): a/{decomposed}.jpg" in capsys.readouterr().out
    make(tmp_path, f"{composed}/1.jpg", f"{decomposed}/1.jpg")
    with pytest.raises(UserError, match=r"class names .* differ only by Unicode normalisation"):
        listed(tmp_path)


def test_a_class_that_the_model_spells_in_the_other_normalisation_is_told(tmp_path: Path) -> None:
    make(tmp_path, "b/1.jpg", "cafe\u0301/1.jpg")
    with pytest.raises(UserError, match="differ only by Unicode normalisation"):
        images_to_evaluate(str(tmp_path), ("b", "caf\u00e9"))


def test_an_empty_class_folder_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, "a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg", "d/.DS_Store")
    (tmp_path / "c/below").mkdir(parents=True)
    assert listed(tmp_path).classes == ("a", "b")
    told = capsys.readouterr().out
    assert "data: class folders: a, b\n" in told
    assert "data: empty folders, not classes: c, d\n" in told
    assert "data: left out (hidden, or left by an operating system or a tool): 1 .DS_Store\n" in told


def test_a_validation_folder_without_pictures_is_not_replaced_by_training_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, "train/a/1.jpg", "train/a/2.jpg", "train/b/1.jpg", "train/b/2.jpg")
    (tmp_path / "Val/a").mkdir(parents=True)
    (tmp_path / "train/valid").mkdir()  # a class
    with pytest.raises(UserError, match=r"there are no images in Val/: add the validation images .*, or remove Val/"):
        listed(tmp_path)
    assert [image.image_id for image in images_to_evaluate(str(tmp_path), ()).listing.splits["val"]] == ids_in(tmp_path)
    shutil.rmtree(tmp_path / "Val")
    capsys.readouterr()
    assert len(listed(tmp_path).splits["val"]) == 2
    assert "data: no validation images are given, so 10 % of each class is held out\n" in capsys.readouterr().out
    make(tmp_path / "packed", "train/0.tar", "val/0.csv")
    with pytest.raises(UserError, match="there are no images in val/: "):
        listed(tmp_path / "packed")


@pytest.mark.parametrize("classes", ["train/", ""])
@pytest.mark.parametrize("away", ["val.zip", "val.tar", "validation.tar.gz", "val (a link to nothing)", "val (empty)"])
def test_validation_images_that_are_packed_or_away_are_not_replaced_by_others(
    tmp_path: Path, classes: str, away: str
) -> None:
    make(tmp_path, *(f"{classes}{name}/{number}.jpg" for name in ("cat", "dog") for number in range(12)))
    name, _, how = away.partition(" ")
    if "link" in how:
        (tmp_path / name).symlink_to(tmp_path / "away")
    elif how:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_bytes(b"packed")
    said = "there are no images in val/: add the" if "empty" in how else f"{name} may hold the validation images: add"
    with pytest.raises(UserError, match=re.escape(said)):
        listed(tmp_path)


def test_runs_kept_beside_the_pictures_are_no_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = [f"{cls}/{number}.jpg" for cls in ("cat", "dog") for number in range(2)]
    killed = ["run.json", "run.lock", "dataset/train/00000.parquet", "dataset/train/1.parquet.partial-0", "jobs/1.json"]
    prepared = ["run.lock", "dataset/manifest.json", "dataset/train/00000.parquet"]
    without_data = ["run.json", "run.lock", "report/a.png"]
    for run, names in (("killed", killed), ("cat/prepared", prepared), ("cleaned", without_data)):
        make(tmp_path, *(f"{run}/{name}" for name in names))
    make(tmp_path, *pictures, "mlartifacts/1/report/a.png", "mlruns/0/meta.yaml")
    listing = listed(tmp_path)
    assert (listing.classes, ids(listing), listing.ignored) == (("cat", "dog"), pictures, ())
    told = capsys.readouterr().out
    assert "data: left out (hidden, or left by an operating system or a tool): 1 mlartifacts/, 1 mlruns/\n" in told
    assert "data: left out, since they are run directories: cat/prepared/, cleaned/, killed/\n" in told


def test_many_runs_take_no_longer_than_few() -> None:
    """Not each of 40,000 names is compared with each of 8,000 runs, half of which lie in the others."""
    runs = [f"runs/{number:04d}" for number in range(4000)]
    within = [f"{run}/{name}" for run in runs for name in ("run.json", "run.lock", "a/run.json", "a/run.lock", "1.jpg")]
    pictures = [f"runs/{number:04d}-cat/{picture}.jpg" for number in range(4000) for picture in range(5)]
    started = time.process_time()
    tree = Tree.of_names([*within, *pictures])
    assert time.process_time() - started < 2
    assert tree.files == tuple(sorted(pictures))
    assert tree.runs == tuple(f"{run}/" for run in runs)


def test_marks_that_windows_keeps_for_files_of_the_web_are_litter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = [f"{cls}/{number}.jpg" for cls in "ab" for number in range(2)]
    make(tmp_path, *pictures, "a/0.jpg:Zone.Identifier", "b/1.jpg:zone.identifier")  # copied by WSL
    assert ids(listed(tmp_path)) == pictures
    assert "by an operating system or a tool): 2 *:Zone.Identifier\n" in capsys.readouterr().out


def test_a_store_is_walked_like_a_folder() -> None:
    store = fsspec.filesystem("memory")
    for name in ("train/a/1.jpg", "train/b/1.jpg", "val/a/2.jpg", ".git/x", "train/a/@eaDir/1.jpg", "notes.txt"):
        store.pipe(f"/photos/{name}", b"x")
    store.mkdir("/photos/train/c")
    tree = tree_at(Storage.at("memory://photos"))
    assert tree.files == ("notes.txt", "train/a/1.jpg", "train/b/1.jpg", "val/a/2.jpg")
    assert (tree.empty_folders, tree.litter) == (("train/c",), (".git/", "train/a/@eaDir/"))
    reader, listing = images_to_train_on("memory://photos", 10, 0)
    assert ids(listing) == ["train/a/1.jpg", "train/b/1.jpg", "val/a/2.jpg"]
    assert reader.read(listing.splits["val"][0]) == b"x"
    with pytest.raises(UserError, match="there is no folder memory://nothing"):
        tree_at(Storage.at("memory://nothing"))


def test_lines_about_many_names_stay_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, *(f"{cls}/{number}.jpg" for cls in "ab" for number in range(2)))
    for number in range(200):
        make(tmp_path, f"note {number:03d}.txt", f"folder {number:03d}/note.txt", f"a/.hidden {number:03d}")
        (tmp_path / f"empty {number:03d}").mkdir()
        os.mkfifo(tmp_path / f"pipe {number:03d}")
    listed(tmp_path)
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 7
    assert max(map(len, told)) < 600


def test_a_named_pipe_is_no_data_set(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.tar")
    with pytest.raises(UserError, match=r"x\.tar is neither a folder nor a regular file"):
        tree_at(Storage.at(str(tmp_path / "x.tar")))
