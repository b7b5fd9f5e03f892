"""Listing image folders: what is found, how it is split, what is refused."""

from pathlib import Path

import pytest

from pipelines.errors import UserError
from pipelines.image_folder import list_image_folder
from pipelines.storage import Storage


def make(root: Path, *names: str) -> Storage:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return Storage.at(str(root))


def ids(listing: object, split: str) -> list[str]:
    return [file.image_id for file in listing.splits[split]]  # type: ignore[attr-defined]


def test_a_split_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    names = ["train/a/1.jpg", "train/b/deep/er/2.jpg", "val/b/3.jpg", "train/ä ö/4.JPEG", "notes.txt"]
    root = make(tmp_path, *names, "test/a/5.jpg", "test/b/6.jpg")
    listing = list_image_folder(root, 10)
    assert listing.classes == ("a", "b", "ä ö")
    assert ids(listing, "train") == ["train/a/1.jpg", "train/b/deep/er/2.jpg", "train/ä ö/4.JPEG"]
    assert ids(listing, "val") == ["val/b/3.jpg"]
    assert [file.label for file in listing.splits["val"]] == [1]
    assert listing.ignored == ("notes.txt", "test/a/5.jpg", "test/b/6.jpg")
    assert listing.ignored_summary() == "notes.txt, 2 files in test/"


def test_a_folder_without_a_split_is_split_by_the_hash_of_the_path(tmp_path: Path) -> None:
    names = [f"{cls}/{number}.jpg" for cls in "ab" for number in range(25)]
    root = make(tmp_path, *names)
    listing = list_image_folder(root, 10)
    assert sorted(ids(listing, "train") + ids(listing, "val")) == sorted(names)
    held_out = set(ids(listing, "val"))
    assert sum(name.startswith("a/") for name in held_out) == 3  # 10 % of 25, rounded up
    make(tmp_path, *(f"c/{number}.jpg" for number in range(5)))
    assert held_out <= set(ids(list_image_folder(root, 10), "val"))  # a new class moves no file of the others


@pytest.mark.parametrize("train", ["train", "Train", "training"])
def test_train_without_validation_is_split_and_test_is_left_alone(tmp_path: Path, train: str) -> None:
    names = [f"{train}/{cls}/{number}.jpg" for cls in "ab" for number in range(10)]
    listing = list_image_folder(make(tmp_path, *names, "test/a/1.jpg"), 10)
    assert listing.classes == ("a", "b")
    assert len(ids(listing, "val")) == 2
    assert sorted(ids(listing, "train") + ids(listing, "val")) == sorted(names)
    assert listing.ignored == ("test/a/1.jpg",)


def test_split_folders_may_be_capitalised(tmp_path: Path) -> None:
    listing = list_image_folder(make(tmp_path, "Train/a/1.jpg", "Train/b/1.jpg", "Val/a/2.jpg"), 10)
    assert listing.classes == ("a", "b")
    assert ids(listing, "val") == ["Val/a/2.jpg"]


def test_a_link_to_nothing_is_listed_and_not_passed_over(tmp_path: Path) -> None:
    root = make(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg")
    (tmp_path / "train/b/2.jpg").symlink_to(tmp_path / "gone.jpg")
    assert "train/b/2.jpg" in ids(list_image_folder(root, 10), "train")


def test_what_operating_systems_leave_is_not_an_image(tmp_path: Path) -> None:
    root = make(tmp_path, "train/a/1.jpg", "train/a/.DS_Store", "train/b/Thumbs.db", "train/b/1.jpg", "val/a/1.jpg")
    listing = list_image_folder(root, 10)
    assert len(listing.splits["train"]) == 2
    assert listing.ignored == ()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no images"),
        (["1.jpg"], "no images"),
        (["a/1.jpg", "a/2.jpg"], "only one class"),
        (["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/c/1.jpg"], "class c has validation images but no"),
        (["a/1.jpg", "b/1.jpg"], "no validation images"),
        (["val/a/1.jpg", "val/b/1.jpg"], "no train/"),
    ],
)
def test_unusable_folders_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        list_image_folder(make(tmp_path, *names), 10)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        list_image_folder(Storage.at(str(tmp_path / "nowhere")), 10)
