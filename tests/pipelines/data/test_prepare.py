"""Preparation of images: original bytes in shards, a manifest, and a list of every file that cannot be decoded."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from googlenet.images.inspection import UNREADABLE_EXIF
from googlenet.images.jpeg_damage import NO_END
from googlenet.images.records import RecordsError
from pipelines.data.embedded_dataset import IMAGES_PER_CLASS
from pipelines.data.prepare import find_images, images_to_time, prepare
from pipelines.errors import UserError
from pipelines.run.dataset import check_shards, image_ids, open_records, read_manifest
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from tests.picture_files import with_segment
from tests.prepared import prepare_here, preparing_here

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def photos(photo_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(photo_folder, tmp_path / "photos"))


def prepared(ray_cluster: str, run: Path, data: Path, **fields: object) -> Storage:
    storage = Storage.at(str(run))
    prepare(storage, replace(Recipe(images_per_shard=9, data=str(data)), **fields))  # type: ignore[arg-type]
    return storage


def prepared_here(run: Path, data: Path, **fields: object) -> Storage:
    """The same with shards that are written in this process; the other tests write theirs on the cluster."""
    storage = Storage.at(str(run))
    prepare_here(storage, replace(Recipe(images_per_shard=9, data=str(data)), **fields))  # type: ignore[arg-type]
    return storage


def test_the_images_that_a_dry_run_times_are_those_that_training_will_read(
    prepared_run: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    new, done = Storage.at(str(tmp_path)), Storage.at(str(prepared_run))
    before = images_to_time(new, tiny_recipe, find_images(new, tiny_recipe))
    assert len(before) == len(set(before)) == 16  # of 24
    assert images_to_time(done, tiny_recipe, find_images(done, tiny_recipe)) == before


def test_a_dry_run_of_images_none_of_which_can_be_used_names_one_with_its_reason(photos: Path, tmp_path: Path) -> None:
    run, recipe = Storage.at(str(tmp_path / "run")), Recipe(data=str(photos))
    [first, *others] = sorted((photos / "train").rglob("*.jpg"))
    for path in others:
        path.write_bytes(b"broken")
    assert images_to_time(run, recipe, find_images(run, recipe)) == [first.read_bytes()]
    first.write_bytes(b"")
    with pytest.raises(UserError, match=r"none of 16 training images .* as train/class_0/0\.jpg: the file is empty"):
        images_to_time(run, recipe, find_images(run, recipe))


def test_shards_hold_the_original_bytes_of_every_image(ray_cluster: str, photos: Path, tmp_path: Path) -> None:
    run = prepared(ray_cluster, tmp_path / "run", photos)
    manifest = read_manifest(run)
    assert manifest.classes == ("class_0", "class_1", "class_2")
    assert manifest.splits["train"].counts == {"class_0": 8, "class_1": 8, "class_2": 8}
    assert [shard.images for shard in manifest.splits["train"].shards] == [9, 9, 6]
    for split in ("train", "val"):
        records = open_records(run, manifest.splits[split])
        stored = {record.image_id: record for record in (records[i] for i in range(len(records)))}
        files = {str(path.relative_to(photos)): path for path in (photos / split).rglob("*.jpg")}
        assert stored.keys() == files.keys()
        assert image_ids(run, manifest.splits[split]) == list(stored)
        for name, path in files.items():
            assert stored[name].image == path.read_bytes()
            assert manifest.classes[stored[name].label] == path.parent.name
    table = pq.read_table(tmp_path / "run/dataset/train/00000.parquet")
    sizes = [Image.open(photos / row["image_id"]).size for row in table.to_pylist()]
    assert [(row["width"], row["height"]) for row in table.to_pylist()] == sizes


def test_the_digest_follows_the_content_and_nothing_else(photos: Path, tmp_path: Path) -> None:
    digests = [read_manifest(prepared_here(tmp_path / name, photos)).digest for name in ("first", "second")]
    assert digests[0] == digests[1]
    image = photos / "train/class_1/3.jpg"
    image.write_bytes(image.read_bytes() + b"\0")
    assert read_manifest(prepared_here(tmp_path / "third", photos)).digest != digests[0]


def damage(photos: Path) -> None:
    truncated = photos / "train/class_0/2.jpg"
    truncated.write_bytes(truncated.read_bytes()[:400])
    (photos / "val/class_1/notes.png").write_text("no image")
    (photos / "train/class_2/empty.png").touch()


def test_every_file_that_cannot_be_decoded_is_named_and_stops_the_stage(
    ray_cluster: str, photos: Path, tmp_path: Path
) -> None:
    damage(photos)
    with pytest.raises(UserError) as error:
        prepared(ray_cluster, tmp_path / "run", photos)
    message = str(error.value)
    assert "3 files" in message
    assert "train/class_0/2.jpg: " in message
    assert "truncated" in message.lower()
    assert "val/class_1/notes.png: text, not an image" in message
    assert "train/class_2/empty.png: the file is empty" in message
    assert "--bad-images quarantine" in message
    assert not (tmp_path / "run/dataset/manifest.json").exists()


def test_quarantine_lists_the_files_and_goes_on_without_them(photos: Path, tmp_path: Path) -> None:
    damage(photos)
    run = Storage.at(str(tmp_path / "run"))
    prepare_here(run, Recipe(images_per_shard=9, data=str(photos)), "quarantine")
    manifest = read_manifest(run)
    listed = [json.loads(line) for line in run.read("dataset/quarantine.jsonl").decode().splitlines()]
    assert [bad["image_id"] for bad in listed] == [
        "train/class_0/2.jpg",
        "train/class_2/empty.png",
        "val/class_1/notes.png",
    ]
    assert manifest.quarantined == 3
    assert manifest.splits["train"].counts == {"class_0": 7, "class_1": 8, "class_2": 8}
    assert manifest.splits["val"].images == 42


def odd_pictures(photos: Path) -> None:
    """Replace pictures by ones with a damaged Exif block, without end marker, and cut with an end marker appended."""
    rubbish, no_end, cut = (photos / f"train/class_{number}/1.jpg" for number in range(3))
    rubbish.write_bytes(with_segment(rubbish.read_bytes(), 0xE1, b"Exif\0\0rubbish"))
    no_end.write_bytes(no_end.read_bytes()[:-2])
    data = cut.read_bytes()
    cut.write_bytes(data[: len(data) - (len(data) - data.index(b"\xff\xda")) // 2] + b"\xff\xd9")


def test_odd_pictures_are_noted_and_damaged_ones_left_to_the_option(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd_pictures(photos)
    run = Storage.at(str(tmp_path / "run"))
    with preparing_here():
        with pytest.raises(UserError, match=r"class_2/1.jpg: damaged: the last \d+ % of the picture is missing"):
            prepare(run, Recipe(images_per_shard=100, data=str(photos)))
        manifest = prepare(run, Recipe(images_per_shard=100, data=str(photos)), "quarantine")
    assert manifest.quarantined == 1
    assert manifest.notes == {NO_END: ("train/class_1/1.jpg",), UNREADABLE_EXIF: ("train/class_0/1.jpg",)}
    assert read_manifest(run) == manifest
    shown = capsys.readouterr().out
    assert f"1 image used although {UNREADABLE_EXIF}: see notes in {run}/dataset/manifest.json" in shown


def test_a_file_that_cannot_be_read_is_not_quarantined(photos: Path, tmp_path: Path) -> None:
    (photos / "train/class_0/gone.jpg").symlink_to(photos / "nowhere.jpg")
    damage(photos)
    with pytest.raises(UserError, match=r"train/class_0/gone\.jpg") as refused:
        prepare_here(Storage.at(str(tmp_path / "run")), Recipe(data=str(photos)), "quarantine")
    assert "empty.png" not in str(refused.value)  # that one would be quarantined
    assert "--bad-images" not in str(refused.value)  # that option is already set


def test_finished_shards_are_not_written_again(photos: Path, tmp_path: Path) -> None:
    run = prepared_here(tmp_path / "run", photos)
    whole = run.read("dataset/manifest.json")
    run.delete("dataset/manifest.json")
    run.delete("dataset/train/00001.json")  # killed before its note was written
    run.write("dataset/train/00002.json", b"")  # cut off with the power
    run.delete("dataset/val/00000.parquet")  # removed, with its note kept
    run.write("dataset/val/00001.parquet", run.read("dataset/val/00002.parquet"))
    shards = [*(tmp_path / "run/dataset").rglob("*.parquet"), tmp_path / "run/dataset/val/00000.parquet"]
    before = {path: path.stat().st_mtime_ns for path in shards if path.exists()}
    prepared_here(tmp_path / "run", photos)
    again = {f"{path.parent.name}/{path.stem}" for path in shards if before.get(path) != path.stat().st_mtime_ns}
    assert again == {"train/00001", "train/00002", "val/00000", "val/00001"}
    check_shards(run, read_manifest(run))
    assert run.read("dataset/manifest.json") == whole


def test_a_shard_of_images_that_were_replaced_since_is_written_again_and_no_other(photos: Path, tmp_path: Path) -> None:
    run = prepared_here(tmp_path / "run", photos)
    run.delete("dataset/manifest.json")  # killed just before the end
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "run/dataset/train").glob("*.parquet")}
    replaced = photos / "train/class_1/3.jpg"
    replaced.write_bytes((photos / "train/class_1/4.jpg").read_bytes())
    prepared_here(tmp_path / "run", photos)
    after = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "run/dataset/train").glob("*.parquet")}
    assert [name for name in before if before[name] != after[name]] == ["00001.parquet"]
    records = open_records(run, read_manifest(run).splits["train"])
    stored = {record.image_id: record.image for record in (records[i] for i in range(len(records)))}
    assert stored["train/class_1/3.jpg"] == replaced.read_bytes()


def test_a_class_that_quarantine_would_empty_is_refused_and_leaves_no_list(photos: Path, tmp_path: Path) -> None:
    run, recipe, broken = Storage.at(str(tmp_path / "run")), Recipe(data=str(photos)), photos / "train/class_1"
    whole = {path: path.read_bytes() for path in broken.iterdir()}
    for path in whole:
        path.write_bytes(b"broken")
    with pytest.raises(UserError, match="class_1"):
        prepare_here(run, recipe, "quarantine")
    assert not run.exists("dataset/quarantine.jsonl")
    run.write("dataset/quarantine.jsonl", b"{}\n")  # of a preparation by an earlier version
    for path, content in whole.items():
        path.write_bytes(content)
    prepare_here(run, recipe, "quarantine")
    assert read_manifest(run).quarantined == 0
    assert not run.exists("dataset/quarantine.jsonl")


def test_a_run_directory_prepared_otherwise_is_refused(photos: Path, tmp_path: Path) -> None:
    prepared_here(tmp_path / "run", photos)
    with pytest.raises(UserError, match=r"--images-per-shard: was 9, is now 10\n.*same --data and options as before"):
        prepared_here(tmp_path / "run", photos, images_per_shard=10)


def test_images_of_every_mode_are_accepted(photos: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    for mode in ("L", "CMYK", "P", "RGBA", "LA", "1"):
        buffer = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(buffer, "TIFF")
        (photos / f"train/class_0/{mode}.tif").write_bytes(buffer.getvalue())
    run = prepared_here(tmp_path / "run", photos)
    assert read_manifest(run).splits["train"].counts["class_0"] == 14


def test_images_are_stored_smaller_only_where_the_recipe_asks(photos: Path, tmp_path: Path) -> None:
    large = np.asarray(
        Image.fromarray(np.random.default_rng(1).integers(0, 256, (6, 9, 3), np.uint8)).resize((900, 600))
    )
    Image.fromarray(large).save(photos / "train/class_0/large.png")
    run = prepared_here(tmp_path / "run", photos, stored_short_side_px=300)
    records = open_records(run, read_manifest(run).splits["train"])
    for record in (records[i] for i in range(len(records))):
        if record.image_id == "train/class_0/large.png":
            stored = Image.open(io.BytesIO(record.image))
            assert (stored.format, stored.size) == ("JPEG", (450, 300))
            reference = np.asarray(Image.fromarray(large).resize((450, 300), Image.Resampling.LANCZOS))
            assert np.abs(np.asarray(stored).astype(int) - reference).mean() < 3
        else:
            assert record.image == (photos / record.image_id).read_bytes()


def test_shards_of_a_killed_preparation_are_not_taken_for_those_of_other_settings(photos: Path, tmp_path: Path) -> None:
    prepared_here(tmp_path / "run", photos)
    (tmp_path / "run/dataset/manifest.json").unlink()  # killed just before the end
    again = prepared_here(tmp_path / "run", photos, stored_short_side_px=20)
    fresh = prepared_here(tmp_path / "fresh", photos, stored_short_side_px=20)
    assert read_manifest(again).digest == read_manifest(fresh).digest


def test_a_shard_that_changed_since_is_named(photos: Path, tmp_path: Path) -> None:
    run = prepared_here(tmp_path / "run", photos)
    shard = tmp_path / "run/dataset/train/00000.parquet"
    whole = shard.read_bytes()
    table = pq.read_table(shard)
    pq.write_table(table.replace_schema_metadata({}), shard)  # the same rows, written by another program
    with pytest.raises(UserError, match=r"dataset/train/00000\.parquet has changed since it was prepared"):
        check_shards(run, read_manifest(run))
    shard.write_bytes(whole[:-50])
    with pytest.raises(UserError, match=r"00000\.parquet is damaged"):
        check_shards(run, read_manifest(run))
    shard.unlink()
    with pytest.raises(UserError, match=r"00000\.parquet is missing"):
        check_shards(run, read_manifest(run))
    shard.write_bytes(whole)
    check_shards(run, read_manifest(run))


def test_a_damaged_image_is_found_when_it_is_read(photos: Path, tmp_path: Path) -> None:
    run = prepared_here(tmp_path / "run", photos)
    shard = tmp_path / "run/dataset/train/00000.parquet"
    stored = bytearray(shard.read_bytes())
    image = open_records(run, read_manifest(run).splits["train"])[0].image
    stored[stored.find(image) + len(image) // 2] ^= 1
    shard.write_bytes(stored)
    check_shards(run, read_manifest(run))  # the footer is intact
    with pytest.raises(RecordsError, match=r"00000\.parquet is damaged: .*checksum"):
        open_records(run, read_manifest(run).splits["train"])[0]


def test_the_embedded_set_is_prepared_whole(tmp_path: Path) -> None:
    run = Storage.at(str(tmp_path))
    with preparing_here():
        manifest = prepare(run, Recipe(data="embedded", images_per_shard=500))
    for split, images in IMAGES_PER_CLASS.items():
        assert manifest.splits[split].counts == {str(digit): images for digit in range(10)}


def test_no_data_at_all_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--data"):
        prepare(Storage.at(str(tmp_path)), Recipe())
