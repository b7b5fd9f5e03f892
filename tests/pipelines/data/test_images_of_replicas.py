"""Images that replicas were trained on: no others take their place when they are prepared again."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.data.prepare import prepare
from pipelines.errors import DamagedFileError, UserError
from pipelines.run.claims import claim
from pipelines.run.directory import RUN, ReplicaFiles
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from tests.prepared import prepare_here, preparing_here


@pytest.fixture
def photos(photo_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(photo_folder, tmp_path / "photos"))


def trained(folder: Path, photos: Path, **fields: object) -> tuple[Storage, Recipe]:
    """A run with prepared images and a replica that was trained on them."""
    run, recipe = Storage.at(str(folder)), replace(Recipe(images_per_shard=9, data=str(photos)), **fields)  # type: ignore[arg-type]
    claim(run, "recipe", recipe.to_dict())
    prepare_here(run, recipe)
    run.write(ReplicaFiles(0).weights, b"")
    return run, recipe


def test_shards_that_replicas_were_trained_on_are_not_replaced_by_those_of_other_images(
    photos: Path, tmp_path: Path
) -> None:
    run, recipe = trained(tmp_path / "run", photos)
    run.delete("dataset/manifest.json")
    replaced = photos / "train/class_1/3.jpg"
    before = replaced.read_bytes()
    replaced.write_bytes((photos / "train/class_1/4.jpg").read_bytes())
    shards = {path: path.read_bytes() for path in (tmp_path / "run/dataset").rglob("*.parquet")}
    with pytest.raises(UserError, match=r"run/dataset/train/00001\.parquet was not overwritten: it holds other images"):
        prepare_here(run, recipe)
    assert {path: path.read_bytes() for path in shards} == shards
    replaced.write_bytes(before)
    next(iter(shards)).write_bytes(b"damaged")
    prepare_here(run, recipe)
    assert {path: path.read_bytes() for path in shards} == shards


def test_shards_stay_if_the_run_cannot_be_read_once_they_are_written(photos: Path, tmp_path: Path) -> None:
    run, recipe = Storage.at(str(tmp_path / "run")), Recipe(images_per_shard=9, data=str(photos))
    claim(run, "recipe", recipe.to_dict())
    with preparing_here(), pytest.raises(DamagedFileError, match=r"run\.json"):
        prepare(run, recipe, check=lambda _: run.write(RUN, b"{"))
    assert list((tmp_path / "run/dataset").rglob("*.parquet"))


def test_images_that_another_version_of_pillow_shrank_are_refused_with_that_reason(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, recipe = trained(tmp_path / "run", photos, stored_short_side_px=20)
    shutil.rmtree(tmp_path / "run/dataset")
    monkeypatch.setattr("pipelines.data.shards.STORED_JPEG_QUALITY", 94)  # as another encoder's bytes differ
    with pytest.raises(UserError, match=r"replaced since, or another version of Pillow has shrunk them\. Restore what"):
        prepare_here(run, recipe)
