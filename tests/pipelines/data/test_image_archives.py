"""ImageNet's archives, Hugging Face's Parquet and WebDataset: images read, compared with those written."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
from PIL import Image

from googlenet.images.decoding import decode_rgb
from pipelines.data.imagenet import DEVKIT, META, TRAIN, TRUTH, VAL
from pipelines.data.sources import images_to_evaluate, images_to_train_on
from pipelines.errors import UserError
from pipelines.run.storage import Storage
from tests.pipelines.data.archives import tar

CLASSES = ("n01440764", "n01443537", "n02105855")
# The kit numbers classes in its own order, not in that of their WordNet ids.
KIT_NUMBERS = {"n02105855": 1, "n01440764": 2, "n01443537": 3}


def picture(seed: int, mode: str = "RGB", encoding: str = "JPEG", orientation: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
    image, buffer = Image.fromarray(pixels).convert(mode), io.BytesIO()
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    image.save(buffer, encoding, exif=exif)
    return buffer.getvalue()


def devkit() -> bytes:
    table = np.zeros(len(CLASSES), [("ILSVRC2012_ID", int), ("WNID", object), ("words", object)])
    for row, (wordnet_id, number) in zip(table, KIT_NUMBERS.items(), strict=True):
        row["ILSVRC2012_ID"], row["WNID"], row["words"] = number, wordnet_id, "a, b"
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": table})
    return tar({TRUTH: b"2\n1\n3\n", META: meta.getvalue()}, "w:gz")


@pytest.fixture
def imagenet(tmp_path: Path) -> tuple[Path, dict[str, bytes]]:
    return tmp_path, write_imagenet(tmp_path)


def write_imagenet(folder: Path) -> dict[str, bytes]:
    """Write the archives with the known oddities; return each image by its expected id."""
    images = {
        "train/n01440764/n01440764_1.JPEG": picture(1),
        "train/n01440764/n01440764_2.JPEG": picture(2, "CMYK"),
        "train/n01443537/n01443537_1.JPEG": picture(3, "L"),
        "train/n02105855/n02105855_2933.JPEG": picture(4, encoding="PNG"),
        "train/n02105855/n02105855_2.JPEG": picture(5, orientation=6),
        "val/n01440764/ILSVRC2012_val_00000001.JPEG": picture(6),
        "val/n02105855/ILSVRC2012_val_00000002.JPEG": picture(7),
        "val/n01443537/ILSVRC2012_val_00000003.JPEG": picture(8),
    }
    inner = {
        f"{cls}.tar": tar({i.split("/")[2]: d for i, d in images.items() if i.startswith(f"train/{cls}/")})
        for cls in reversed(CLASSES)
    }
    folder.mkdir(exist_ok=True)
    (folder / TRAIN).write_bytes(tar(inner))
    (folder / VAL).write_bytes(tar({i.split("/")[2]: d for i, d in images.items() if i.startswith("val/")}))
    (folder / f"{DEVKIT}.tar.gz").write_bytes(devkit())
    return images


def test_imagenets_archives_give_every_image_its_bytes_and_class_without_unpacking(
    imagenet: tuple[Path, dict[str, bytes]],
) -> None:
    folder, images = imagenet
    before = sorted(folder.iterdir())
    reader, listing = images_to_train_on(str(folder), 10, 0)
    assert listing.classes == CLASSES
    found = {file.image_id: (reader.read(file), file.label) for split in listing.splits.values() for file in split}
    assert found == {name: (data, CLASSES.index(name.split("/")[1])) for name, data in images.items()}
    assert len(listing.splits["val"]) == 3
    assert sorted(folder.iterdir()) == before
    for data, _ in found.values():
        assert decode_rgb(data).shape[2] == 3


def test_the_validation_archive_alone_can_be_evaluated(imagenet: tuple[Path, dict[str, bytes]]) -> None:
    folder, images = imagenet
    (folder / TRAIN).unlink()
    reader, listing = images_to_evaluate(str(folder), CLASSES[::-1])
    assert [(file.image_id, file.label) for file in listing.splits["val"]] == [
        ("val/n01440764/ILSVRC2012_val_00000001.JPEG", 2),
        ("val/n01443537/ILSVRC2012_val_00000003.JPEG", 1),
        ("val/n02105855/ILSVRC2012_val_00000002.JPEG", 0),
    ]
    assert reader.read(listing.splits["val"][0]) == images["val/n01440764/ILSVRC2012_val_00000001.JPEG"]
    with pytest.raises(UserError, match="no training images"):
        images_to_train_on(str(folder), 10, 0)


def store_that_is_away(_root: Storage, name: str) -> bytes:
    raise OSError(f"When reading information for key '{name}': AWS Error NETWORK_CONNECTION during HeadObject")


def test_what_is_missing_or_damaged_of_imagenet_is_named(imagenet: tuple[Path, dict[str, bytes]]) -> None:
    folder, _ = imagenet
    kit = folder / f"{DEVKIT}.tar.gz"
    whole = kit.read_bytes()
    kit.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"ILSVRC2012_devkit_t12.tar.gz is not ImageNet's development kit"):
        images_to_train_on(str(folder), 10, 0)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match="NETWORK_CONNECTION"):
        patch.setattr(Storage, "read", store_that_is_away)
        images_to_train_on(str(folder), 10, 0)
    kit.unlink()
    with pytest.raises(UserError, match=r"put ILSVRC2012_devkit_t12.tar.gz or LOC_val_solution.csv into"):
        images_to_train_on(str(folder), 10, 0)
    kit.write_bytes(whole)
    train = (folder / TRAIN).read_bytes()
    (folder / TRAIN).write_bytes(train[: len(train) // 2])
    with pytest.raises(UserError, match=r"ILSVRC2012_img_train.tar.* (is cut off within|is damaged after)"):
        images_to_train_on(str(folder), 10, 0)


def hugging_face(
    path: Path, images: list[bytes], labels: list[Any], names: list[str], column: str = "label", **others: list[Any]
) -> None:
    table = pa.table({"image": [{"bytes": data, "path": None} for data in images], column: labels, **others})
    features = {"image": {"_type": "Image"}, column: {"_type": "ClassLabel", "names": names}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=2)


def test_hugging_faces_parquet_is_read_by_its_names_and_labels(tmp_path: Path) -> None:
    images = [picture(seed) for seed in range(8)]
    names = ["tench, Tinca tinca", "goldfish", "brittany"]
    hugging_face(tmp_path / "data/train-00000-of-00002-ab.parquet", images[:3], [2, 0, 1], names)
    hugging_face(tmp_path / "data/train-00001-of-00002-cd.parquet", images[3:5], [1, 0], names)
    hugging_face(tmp_path / "data/validation-00000-of-00001-ef.parquet", images[5:7], [0, 2], names)
    hugging_face(tmp_path / "data/test-00000-of-00001-gh.parquet", images[7:], [-1], names)
    reader, listing = images_to_train_on(str(tmp_path), 10, 0)
    assert listing.classes == tuple(names)  # in the order of the labels, not alphabetical
    assert [(reader.read(file), file.label) for file in listing.splits["train"]] == [
        *zip(images[:5], [2, 0, 1, 1, 0], strict=True)
    ]
    assert [(reader.read(file), file.label) for file in listing.splits["val"]] == [
        *zip(images[5:7], [0, 2], strict=True)
    ]
    assert listing.ignored_summary() == "1 file in data/"


@pytest.mark.parametrize(("column", "is_told"), [("label", False), ("fine_label", True)])
def test_a_column_of_labels_of_another_name_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], column: str, is_told: bool
) -> None:
    """CIFAR-100 has fine labels and coarse ones."""
    images = [picture(seed) for seed in range(2)]
    for part in ("train", "test"):
        hugging_face(tmp_path / f"{part}-0.parquet", images, [0, 1], ["a", "b"], column, coarse_label=[0, 0])
    assert images_to_evaluate(str(tmp_path), ("a", "b")).listing.classes == ("a", "b")
    assert ("data: labels: column fine_label\n" in capsys.readouterr().out) is is_told


@pytest.mark.parametrize("labels", [[0, 1], ["two\nlines", "b"]])
def test_names_of_classes_are_text_in_one_line(tmp_path: Path, labels: list[Any]) -> None:
    names = ["two\nlines", "b"] if labels[0] == 0 else []
    for seed, part in enumerate(("train", "validation")):
        hugging_face(tmp_path / f"data/{part}-0.parquet", [picture(seed), picture(seed + 2)], labels, names)
    assert set(images_to_train_on(str(tmp_path), 10, 0).listing.classes) == {r"two\x0alines", "b"}


def test_a_set_with_train_and_test_alone_is_evaluated_on_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [picture(seed) for seed in range(6)]
    hugging_face(tmp_path / "mnist/train-0.parquet", images[:4], [0, 1, 0, 1], ["a", "b"])
    hugging_face(tmp_path / "mnist/test-0.parquet", images[4:], [1, 0], ["a", "b"])
    reader, listing = images_to_evaluate(str(tmp_path), ("a", "b"))
    assert [(reader.read(file), file.label) for file in listing.splits["val"]] == [
        *zip(images[4:], [1, 0], strict=True)
    ]
    assert "data: there are no validation images; the test images are evaluated\n" in capsys.readouterr().out
    training = images_to_train_on(str(tmp_path), 10, 0).listing
    assert [file.image_id for files in training.splits.values() for file in files if "test" in file.image_id] == []
    assert training.ignored_summary() == "1 file in mnist/"
    hugging_face(tmp_path / "mnist/test-0.parquet", images[4:], [-1, -1], ["a", "b"])
    with pytest.raises(UserError, match=r"row 0 has no label \(-1\), as in test sets whose answers are not published"):
        images_to_evaluate(str(tmp_path), ("a", "b"))


def test_class_folders_for_training_and_test_alone_are_evaluated_on_test(tmp_path: Path) -> None:
    for name in ("train/a/1.jpg", "train/b/1.jpg", "test/a/2.jpg", "test/b/2.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    listing = images_to_evaluate(str(tmp_path), ("a", "b")).listing
    assert [file.image_id for file in listing.splits["val"]] == ["test/a/2.jpg", "test/b/2.jpg"]


def test_parquet_of_another_kind_is_refused_by_its_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "train.parquet")
    with pytest.raises(UserError, match=r"train.parquet has no column image or img; its columns are text"):
        images_to_train_on(str(tmp_path), 10, 0)
    hugging_face(tmp_path / "train.parquet", [b"", b""], [0, 3], ["a", "b"])
    with pytest.raises(UserError, match=r"row group 0, row 1: 3 is not a valid class label"):
        images_to_train_on(str(tmp_path), 10, 0)
    hugging_face(tmp_path / "train.parquet", [b"", b""], [0, 1], ["crane", "dog", "crane"])
    with pytest.raises(UserError, match=r"train.parquet names 2 classes crane \(labels 0, 2\): each needs a name of"):
        images_to_train_on(str(tmp_path), 10, 0)


def test_parquet_with_damaged_labels_is_named(tmp_path: Path) -> None:
    file = tmp_path / "train.parquet"
    hugging_face(file, [b"", b""], [0, 1], ["a", "b"])
    group = pq.read_metadata(file).row_group(0)
    [labels] = [column for n in range(group.num_columns) if (column := group.column(n)).path_in_schema == "label"]
    content = bytearray(file.read_bytes())
    start = labels.dictionary_page_offset or labels.data_page_offset
    content[start : start + 20] = bytes(20)
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"train\.parquet is not a complete Parquet file: "):
        images_to_train_on(str(tmp_path), 10, 0)


@pytest.mark.parametrize("label", [0, "cat"])
def test_parquet_files_with_and_without_names_of_classes_are_refused_by_name(tmp_path: Path, label: object) -> None:
    hugging_face(tmp_path / "train-0.parquet", [b"", b""], [0, 1], ["a", "b"])
    pq.write_table(pa.table({"image": [b""], "label": [label]}), tmp_path / "train-1.parquet")
    with pytest.raises(UserError, match=rf"train-0\.parquet names its classes, and .*train-1\.parquet .*'{label}'"):
        images_to_train_on(str(tmp_path), 10, 0)


def test_a_parquet_file_with_a_damaged_footer_is_named(tmp_path: Path) -> None:
    hugging_face(tmp_path / "train.parquet", [picture(seed) for seed in range(4)], [0, 0, 1, 1], ["a", "b"])
    whole = (tmp_path / "train.parquet").read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    places, noticed = range(footer, len(whole) - 4, 17), 0
    for at in places:
        (tmp_path / "train.parquet").write_bytes(whole[:at] + b"\xff\xff\xff\xff" + whole[at + 4 :])
        try:
            images_to_train_on(str(tmp_path), 50, 0)
        except UserError as error:
            noticed += 1
            assert f"{tmp_path}/train.parquet" in str(error)
    assert noticed > len(places) / 10  # most of the others are in what nobody reads, such as statistics


def test_webdataset_is_read_by_its_neighbours(tmp_path: Path) -> None:
    images = [picture(seed) for seed in range(6)]
    shards: dict[str, dict[str, bytes]] = {"imagenet1k-train-0000.tar": {}, "imagenet1k-validation-00.tar": {}}
    for number, (data, label) in enumerate(zip(images[:4], [1, 0, 10, 2], strict=True)):
        shards["imagenet1k-train-0000.tar"] |= {f"a/{number}.jpg": data, f"a/{number}.cls": b"%d\n" % label}
    for number, (data, label) in enumerate(zip(images[4:], [2, 10], strict=True)):
        name = f"{number}.v1"
        shards["imagenet1k-validation-00.tar"] |= {
            f"{number}.JPG": data, f"{number}.json": json.dumps({"label": label, "name": name}).encode()
        }  # fmt: skip
    for name, members in shards.items():
        (tmp_path / name).write_bytes(tar(members))
    reader, listing = images_to_train_on(str(tmp_path), 10, 0)
    assert listing.classes == ("0", "1", "2", "10")  # sorted as numbers, not as text
    assert [(reader.read(file), file.label) for file in listing.splits["train"]] == [
        *zip(images[:4], [1, 0, 3, 2], strict=True)
    ]
    assert [reader.read(file) for file in listing.splits["val"]] == images[4:]
    (tmp_path / "classes.txt").write_text("".join(f"class {number}\n" for number in range(11)))
    classes = ("class 0", "class 1", "class 2", "class 10")
    assert images_to_train_on(str(tmp_path), 10, 0).listing.classes == classes
    alone = images_to_evaluate(str(tmp_path / "imagenet1k-train-0000.tar"), classes).listing
    assert [alone.classes[file.label] for file in alone.splits["val"]] == ["class 1", "class 0", "class 10", "class 2"]


def test_a_webdataset_without_split_is_divided_and_one_without_labels_refused(tmp_path: Path) -> None:
    members = {f"{n}.{ending}": data for n in range(20) for ending, data in (("png", b"x"), ("cls", b"%d" % (n % 2)))}
    for name in ("shard-000000.tar", "train-000000.tar"):
        (tmp_path / name).write_bytes(tar(members))
        listing = images_to_train_on(str(tmp_path), 10, 0)[1]
        assert [len(listing.splits[split]) for split in ("train", "val")] == [18, 2]
        (tmp_path / name).unlink()
    del members["7.cls"]
    (tmp_path / "shard-000000.tar").write_bytes(tar(members))
    with pytest.raises(UserError, match=r"shard-000000.tar: 7 has no label; expected 7.cls"):
        images_to_train_on(str(tmp_path), 10, 0)
    del members["7.png"]
    (tmp_path / "shard-000000.tar").write_bytes(tar({**members, "6.cls": b"-1"}))
    with pytest.raises(UserError, match=r"has label -1"):
        images_to_train_on(str(tmp_path), 10, 0)
    (tmp_path / "shard-000000.tar").write_bytes(tar({"1.txt": b"x", "1.cls": b"1"}))
    with pytest.raises(UserError, match=r"1 has 0 images, expected one \(1.txt, 1.cls\)"):
        images_to_train_on(str(tmp_path), 10, 0)
    (tmp_path / "classes.txt").write_text("crane\nfox\ncrane\n")
    with pytest.raises(UserError, match=r"classes.txt has an empty line or names a class twice"):
        images_to_train_on(str(tmp_path), 10, 0)


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
