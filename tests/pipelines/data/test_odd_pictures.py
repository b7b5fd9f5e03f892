"""Odd pictures on their way into a shard: sound ones are stored as they are, with a note; others are listed."""

from pathlib import Path

import numpy as np
import pytest

from googlenet.images.decoding import decode_rgb
from googlenet.images.inspection import UNREADABLE_EXIF
from googlenet.images.jpeg_damage import SURPLUS
from pipelines.data.bad_images import names_of_bad
from pipelines.data.image_folder import FolderImages
from pipelines.data.listing import ImageFile
from pipelines.data.shards import ShardPlan, write_shard
from pipelines.data.written_shards import BadImage, WrittenShard
from pipelines.run.dataset import Manifest, Shard, Split, open_records
from pipelines.run.storage import Storage
from tests.picture_files import encode, exif_block, exif_entry, photograph, tiff, with_segment

PHOTO = photograph(160, 120)
JPEG = encode(PHOTO)
ROTATED = with_segment(JPEG, 0xE1, exif_block(exif_entry(274, 3, 1, 6)))
SOUND = {
    "exif.jpg": with_segment(JPEG, 0xE1, b"Exif\0\0rubbish"),
    "float.tif": tiff(np.linspace(0, 1, 1024, dtype=np.float32).reshape(32, 32)),
    "plain.jpg": JPEG,
    "rotated.jpg": ROTATED,
    "surplus.jpg": JPEG[:-2] + bytes(1000) + b"\xff\xd9",
}
BAD = {
    "cut.jpg": (JPEG[: len(JPEG) // 2] + bytes(9000), "the last"),
    "lfs.png": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
    "values.tif": (tiff(np.full((32, 32), 1000, np.float32)), "not clear which value is white"),
}


def write(folder: Path, short_side_px: int | None = None) -> tuple[Storage, WrittenShard]:
    files = {**SOUND, **{name: data for name, (data, _) in BAD.items()}}
    (folder / "images").mkdir(parents=True)
    for name, data in files.items():
        (folder / "images" / name).write_bytes(data)
    run = Storage.at(str(folder / "run"))
    plan = ShardPlan("train/0.parquet", tuple(ImageFile(name, 0) for name in files), "", short_side_px)
    return run, write_shard(run, FolderImages(Storage.at(str(folder / "images"))), plan)


def stored(run: Storage, result: WrittenShard) -> dict[str, bytes]:
    records = open_records(run, Split((Shard("train/0.parquet", result.images, result.digest),), {}))
    return {record.image_id: record.image for record in (records[index] for index in range(len(records)))}


def test_sound_pictures_are_stored_and_noted_and_the_others_listed_with_their_reasons(tmp_path: Path) -> None:
    run, result = write(tmp_path)
    assert stored(run, result) == SOUND
    assert result.notes == {UNREADABLE_EXIF: ["exif.jpg"], SURPLUS: ["surplus.jpg"]}
    assert [bad.image_id for bad in result.bad_images] == list(BAD)
    assert all(BAD[bad.image_id][1] in bad.reason for bad in result.bad_images)
    assert not any(bad.unreadable for bad in result.bad_images)


def test_the_refusal_of_many_files_names_some_for_each_reason() -> None:
    bad = [BadImage(f"{number:02}.heic", "HEIC: convert it") for number in range(24)]
    bad.insert(13, BadImage("cut.jpg", "truncated"))
    assert names_of_bad(bad, "cannot be decoded", "Fix them") == (
        "25 files cannot be decoded:\n"
        "  00.heic, 01.heic, 02.heic and 21 more: HEIC: convert it\n"
        "  cut.jpg: truncated\n"
        "Fix them"
    )
    few = names_of_bad(bad[:10], "cannot be decoded", "Fix them").splitlines()
    assert few[1:-1] == [f"  {number:02}.heic: HEIC: convert it" for number in range(10)]
    all_different = [BadImage(f"{number}.jpg", f"reason {number}") for number in range(13)]
    assert names_of_bad(all_different, "cannot be decoded", "Fix them").splitlines()[-2:] == [
        "  and 3 files for other reasons",
        "Fix them",
    ]


def test_what_is_stored_smaller_is_upright_and_as_bright_as_its_original(tmp_path: Path) -> None:
    run, result = write(tmp_path, short_side_px=16)
    sizes = {}
    for name, data in stored(run, result).items():
        small = decode_rgb(data)
        sizes[name] = small.shape[:2]
        assert small.mean() == pytest.approx(decode_rgb(SOUND[name]).mean(), abs=2)
    assert sizes["rotated.jpg"] == (21, 16)
    assert sizes["plain.jpg"] == (16, 21)


def test_a_manifest_of_an_earlier_version_has_no_notes() -> None:
    values = Manifest({}, ("a", "b"), {}, "digest", 0).to_dict()
    del values["notes"]
    assert Manifest.from_dict(values).notes == {}
