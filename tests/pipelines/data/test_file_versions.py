"""Versions of the files that hold images: they change if a file is replaced under its name, wherever it lies."""

import os
from pathlib import Path

import fsspec
import pytest

from pipelines.data.file_versions import FileVersions
from pipelines.data.huggingface_parquet import ParquetImages
from pipelines.data.image_folder import FolderImages
from pipelines.data.listing import ImageFile, ImageReader
from pipelines.data.prepare import prepare_for_evaluation
from pipelines.data.shards import write_shard
from pipelines.data.sources import unlabelled_images
from pipelines.data.tar_archives import TarImages
from pipelines.errors import UserError
from pipelines.run.storage import Storage

NAMES = [f"{number}.jpg" for number in range(150)]


def files(names: list[str], place: str = "") -> list[ImageFile]:
    return [ImageFile(name, 0, place) for name in names]


@pytest.mark.parametrize("number", [3, 150])
def test_a_file_of_a_store_that_is_replaced_has_another_version(number: int) -> None:
    store = fsspec.filesystem("memory")
    for name in NAMES:
        store.pipe(f"/versions/{name}", b"x")
    images, reader = files(NAMES[:number]), FolderImages(Storage.at("memory://versions"))
    before = FileVersions(reader).digest(images)
    assert FileVersions(reader).digest(images) == before
    store.pipe("/versions/2.jpg", b"longer")
    assert FileVersions(reader).digest(images) != before


@pytest.mark.parametrize(
    ("make", "place"),
    [(FolderImages, ""), (ParquetImages, "caf\\xe9.jpg#0:1"), (TarImages, "caf\\xe9.jpg@0+1")],
)
@pytest.mark.linux
def test_a_file_of_the_same_size_that_is_newer_has_another_version(
    tmp_path: Path, make: type[ImageReader], place: str
) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.jpg")
    reader, images = make(Storage.at(str(tmp_path))), files(["caf\\xe9.jpg", "gone.jpg"], place)  # type: ignore[call-arg]
    found = []
    for seconds in (1, 1, 2):
        path.write_bytes(b"x")
        os.utime(path, (seconds, seconds))
        found.append(FileVersions(reader).digest(images))
    path.unlink()
    found.append(FileVersions(reader).digest(images))
    assert len(set(found)) == 3
    assert found[0] == found[1]


def test_a_finished_evaluation_is_not_taken_for_that_of_a_picture_with_the_same_name(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pipelines.data.prepare.write_shards",
        lambda run, reader, plans: [write_shard(run, reader, plan) for plan in plans],
    )
    picture, run = tmp_path / "latest.jpg", Storage.at(str(tmp_path / "run"))
    picture.write_bytes((photo_folder / "val/class_0/0.jpg").read_bytes())
    found = unlabelled_images(str(picture), ("a", "b"))
    done = prepare_for_evaluation(run, str(picture), found, "stop")
    assert prepare_for_evaluation(run, str(picture), unlabelled_images(str(picture), ("a", "b")), "stop") == done
    picture.write_bytes((photo_folder / "val/class_1/0.jpg").read_bytes())
    other = unlabelled_images(str(picture), ("a", "b"))
    assert (other.listing.digest, other.listing.versions == found.listing.versions) == (found.listing.digest, False)
    with pytest.raises(UserError, match=r"latest\.jpg may have been replaced under their names since .*/run was made"):
        prepare_for_evaluation(run, str(picture), other, "stop")
    # What an earlier version made says nothing of versions, and is used as it is.
    manifest = run.read_json("dataset/manifest.json")
    del manifest["prepared_from"]["versions"]
    run.write_json("dataset/manifest.json", manifest)
    assert prepare_for_evaluation(run, str(picture), other, "stop").digest == done.digest
