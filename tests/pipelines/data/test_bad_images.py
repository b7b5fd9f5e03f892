"""Messages about files that stop a preparation: all bad images, failed downloads, data that the nodes do not see."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from pipelines.data.image_folder import FolderImages
from pipelines.data.listing import ImageFile
from pipelines.data.sources import images_to_train_on
from pipelines.errors import UserError
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from tests.prepared import prepare_here


@pytest.fixture
def photos(photo_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(photo_folder, tmp_path / "photos"))


def test_of_many_bad_files_all_are_in_a_list_that_the_message_names(photos: Path, tmp_path: Path) -> None:
    whole = {path: path.read_bytes() for path in [*photos.glob("*/class_0/*"), photos / "val/class_1/0.jpg"][:12]}
    assert len(whole) == 12
    for path in whole:
        path.write_text("no image")
    run = tmp_path / "run"
    with pytest.raises(UserError, match=rf"\n{run}/dataset/bad_images\.jsonl lists all of them\. Fix or remove them"):
        prepare_here(Storage.at(str(run)), Recipe(data=str(photos)))
    listed = [json.loads(line) for line in (run / "dataset/bad_images.jsonl").read_text().splitlines()]
    assert {bad["image_id"] for bad in listed} == {str(path.relative_to(photos)) for path in whole}
    assert {bad["reason"] for bad in listed} == {"text, not an image"}
    for path, content in whole.items():
        path.write_bytes(content)
    prepare_here(Storage.at(str(run)), Recipe(data=str(photos)))
    assert not (run / "dataset/bad_images.jsonl").exists()


def test_data_that_the_nodes_do_not_see_are_told_from_bad_files(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = FolderImages.read

    def on_a_node(reader: FolderImages, image: ImageFile) -> bytes:
        if image.image_id.startswith("train/class_0"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), image.image_id)
        return read(reader, image)

    monkeypatch.setattr(FolderImages, "read", on_a_node)
    with pytest.raises(
        UserError, match=rf"^8 files of {photos} \(train/class_0/0.jpg, .*not from the nodes that prepare"
    ):
        prepare_here(Storage.at(str(tmp_path / "run")), Recipe(data=str(photos)))


@pytest.mark.parametrize("name", ["train.tar", "train.parquet"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 99\n", "a Git-LFS pointer.*`git lfs pull`$"),
        (b"<!DOCTYPE html><html>Log in</html>", r"a web page \(HTML\) instead of the file: download it again$"),
    ],
)
def test_what_was_downloaded_in_place_of_a_file_is_named(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} is {words}"):
        images_to_train_on(str(tmp_path), 10, 0)
