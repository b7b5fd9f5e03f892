"""Prepared images: copies in both splits, replicas bound to their images, and shards of an earlier attempt."""

import shutil
from pathlib import Path

import pytest

from pipelines.data.prepare import prepare
from pipelines.errors import UserError
from pipelines.run.claims import claim
from pipelines.run.dataset import check_shards, read_manifest
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from tests.prepared import prepare_here


@pytest.fixture
def photos(photo_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(photo_folder, tmp_path / "photos"))


def test_pictures_in_both_splits_are_told(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare_here(Storage.at(str(tmp_path / "apart")), Recipe(data=str(photos)))
    assert "byte for byte" not in capsys.readouterr().out
    (photos / "train/class_0/00.jpg").write_bytes(b"broken")  # it is left out, and moves those behind it
    for copy, original in (("class_1/3", "class_0/7"), ("class_2/5", "class_1/1")):
        shutil.copy(photos / f"train/{original}.jpg", photos / f"val/{copy}.jpg")
    prepare_here(Storage.at(str(tmp_path / "run")), Recipe(images_per_shard=9, data=str(photos)), "quarantine")
    pairs = "val/class_1/3.jpg is train/class_0/7.jpg, val/class_2/5.jpg is train/class_1/1.jpg"
    line = f"data: validation images that are also training images, byte for byte: 2 ({pairs}); this makes the error"
    assert line in capsys.readouterr().out


def test_replicas_stay_with_the_images_that_they_were_trained_on(photos: Path, tmp_path: Path) -> None:
    run, recipe = Storage.at(str(tmp_path / "run")), Recipe(data=str(photos))
    claim(run, "recipe", recipe.to_dict())
    prepare_here(run, recipe)
    picture, content = photos / "val/class_0/3.jpg", (photos / "val/class_0/3.jpg").read_bytes()
    picture.unlink()
    shutil.rmtree(tmp_path / "run/dataset")
    prepare_here(run, recipe)  # nothing was trained
    run.write("replicas/0/weights.safetensors", b"finished")
    picture.write_bytes(content)
    shutil.rmtree(tmp_path / "run/dataset")
    with pytest.raises(
        UserError, match=r"are not those that the replicas in .*/run were trained on .*Restore the files"
    ):
        prepare_here(run, recipe)
    assert not run.exists("dataset/manifest.json")
    picture.unlink()
    prepare_here(run, recipe)  # of the refused attempt, nothing is left
    manifest = run.read("dataset/manifest.json")
    run.delete("dataset/manifest.json")
    picture.write_bytes(content)
    with pytest.raises(UserError, match=r"If the files are those of the training, remove .*/run/dataset, and run"):
        prepare_here(run, recipe)
    picture.unlink()
    prepare_here(run, recipe)  # the shards are those of before
    assert run.read("dataset/manifest.json") == manifest


def test_a_run_of_an_earlier_version_is_bound_to_the_images_that_it_has(
    prepared_run: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    run = Storage.at(str(shutil.copytree(prepared_run, tmp_path / "run")))
    run.write("replicas/0/weights.safetensors", b"finished")
    earlier = {"id": "1", "recipe": tiny_recipe.to_dict()}
    run.write_json("run.json", earlier)
    manifest = prepare(run, tiny_recipe)
    assert run.read_json("run.json") == {**earlier, "images": manifest.digest}


def test_shards_of_an_attempt_on_other_images_are_removed(photos: Path, tmp_path: Path) -> None:
    stale = [
        tmp_path / "run/dataset" / name for name in ("train/00007.parquet", "train/00007.json", "val/00099.parquet")
    ]
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}")
    run = Storage.at(str(tmp_path / "run"))
    prepare_here(run, Recipe(images_per_shard=9, data=str(photos)))
    assert [path for path in stale if path.exists()] == []
    check_shards(run, read_manifest(run))
    assert run.files("dataset/train") == [f"{number:05d}.{end}" for number in range(3) for end in ("json", "parquet")]


def test_pictures_in_two_classes_are_told(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "train/class_0/00.jpg").write_bytes(b"broken")  # it is left out, and moves those behind it
    for number in range(1, 6):
        shutil.copy(photos / f"train/class_1/{number}.jpg", photos / f"train/class_2/copy_{number}.jpg")
    shutil.copy(photos / "train/class_1/7.jpg", photos / "train/class_1/copy.jpg")  # the same label: no contradiction
    prepare_here(Storage.at(str(tmp_path / "run")), Recipe(images_per_shard=9, data=str(photos)), "quarantine")
    pairs = ", ".join(f"train/class_2/copy_{number}.jpg is train/class_1/{number}.jpg" for number in range(1, 6))
    said = " ".join(capsys.readouterr().out.split())
    assert "data: pictures in two classes, byte for byte: 5 (train/class_2/copy_" in said
    assert " and 2 more); remove each from the wrong one" in said
    told = said.partition("byte for byte: 5 (")[2].partition(" and 2 more")[0].split(", ")
    assert len(told) == 3
    assert set(told) <= set(pairs.split(", "))


def test_classes_that_were_edited_in_the_manifest_are_refused(photos: Path, tmp_path: Path) -> None:
    run = Storage.at(str(tmp_path / "run"))
    prepare_here(run, Recipe(data=str(photos)))
    manifest = run.read_json("dataset/manifest.json")
    for classes in (manifest["classes"][::-1], ["katze", "hund", "maus"]):
        run.write_json("dataset/manifest.json", {**manifest, "classes": classes})
        with pytest.raises(UserError, match=r"classes or shards in .*/manifest\.json were changed; restore"):
            check_shards(run, read_manifest(run))
