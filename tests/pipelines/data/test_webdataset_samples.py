"""Samples of WebDataset archives: members that belong together, and archives refused with the right cause."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipelines.data.listing import Listing
from pipelines.data.sources import images_to_evaluate, images_to_train_on
from pipelines.data.tar_archives import Index, Member
from pipelines.data.webdataset_samples import samples
from pipelines.data.webdataset_tars import class_list_beside
from pipelines.errors import UserError
from tests.pipelines.data.archives import picture, tar


def found(names: Sequence[str], is_ended: bool = True) -> list[tuple[str, str]]:
    """Return the names of each image and its label in an archive of ``names``."""
    index = Index("x.tar", [Member(name, 0, 0) for name in names], is_ended, 0)
    return [(sample.image.name, sample.label.name) for sample in samples(index)]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["1.jpg", "1.cls"], [("1.jpg", "1.cls")]),
        (["a/1.JPG", "a/1.json", "b/1.png", "b/1.CLS"], [("a/1.JPG", "a/1.json"), ("b/1.png", "b/1.CLS")]),
        (["1.jpg", "1.cls", "1.json", "1.txt"], [("1.jpg", "1.cls")]),  # the number is preferred
        (["1.image.jpg", "1.label.cls"], [("1.image.jpg", "1.label.cls")]),
        (["1.jpg", "1.cls", "1.label.cls"], [("1.jpg", "1.cls")]),
        # Names as cameras give them, with dots.
        (["IMG.000001.jpg", "IMG.000001.cls"], [("IMG.000001.jpg", "IMG.000001.cls")]),
        (
            ["IMG.1.jpg", "IMG.1.cls", "IMG.2.jpg", "IMG.2.cls"],
            [("IMG.1.jpg", "IMG.1.cls"), ("IMG.2.jpg", "IMG.2.cls")],
        ),
        # Members that are not neighbours.
        (["1.jpg", "2.jpg", "2.cls", "1.cls"], [("1.jpg", "1.cls"), ("2.jpg", "2.cls")]),
        (["I.1.jpg", "I.2.jpg", "I.1.cls", "I.2.cls"], [("I.1.jpg", "I.1.cls"), ("I.2.jpg", "I.2.cls")]),
    ],
)  # fmt: skip
def test_members_of_one_name_are_a_sample(names: list[str], expected: list[tuple[str, str]]) -> None:
    assert found(names) == expected


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1.jpg"], "x.tar: 1 has no label; expected 1.cls with a number"),
        (["IMG.1.jpg", "IMG.2.jpg", "IMG.1.cls"], r"x.tar: IMG.2 has no label; expected IMG.2.cls"),
        (["1.txt", "1.cls"], r"x.tar: 1 has 0 images, expected one \(1.txt, 1.cls\)"),
        (["1.jpg", "1.mask.png", "1.cls"], r"1 has 2 images, expected one \(1.jpg, 1.mask.png, 1.cls\)"),
        (["1.jpg", "1.png", "1.cls"], r"1 has 2 images, expected one \(1.jpg, 1.png, 1.cls\)"),
        (["1.jpg", "1.cls", "1.jpg"], "x.tar: 1.jpg occurs twice"),
        (["1.jpg", "1.a.cls", "1.b.cls"], "1 has no label"),
    ],
)
def test_what_a_sample_lacks_is_named(names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        found(names)


@pytest.mark.parametrize("names", [["1.jpg"], ["1.cls"]])
def test_an_archive_that_may_have_been_cut_off_is_named_as_the_cause(names: list[str]) -> None:
    with pytest.raises(
        UserError, match=r"x.tar: 1 has .*; the archive has no end-of-archive mark, so it may have been"
    ):
        found(names, is_ended=False)


def test_messages_stay_short_whatever_the_number_of_members() -> None:
    many = [f"IMG.{number:06d}.{ending}" for number in range(10_000) for ending in ("jpg", "cls")]
    assert len(found(many)) == 10_000
    with pytest.raises(UserError, match=r"IMG has 10,000 images, expected one \(.* and 9,990 more\)") as refused:
        found([*(f"IMG.jpg.{number}.jpg" for number in range(9999)), "IMG.jpg"])
    assert len(str(refused.value)) < 400


def listed(folder: Path, members: dict[str, bytes], archive: str = "shard-0.tar") -> Listing:
    path = folder / archive
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar(members))
    return images_to_train_on(str(folder), 10, 0).listing


def labelled(label: object) -> dict[str, bytes]:
    """Return an archive of four images, the last of which has ``label``, as JSON."""
    labels = [0, 1, 0, label]
    return {
        name: content
        for number, value in enumerate(labels)
        for name, content in ((f"{number}.jpg", b"x"), (f"{number}.json", json.dumps({"label": value}).encode()))
    }


@pytest.mark.parametrize(("label", "classes"), [(2, ("0", "1", "2")), (2.0, ("0", "1", "2")), ("2", ("0", "1", "2"))])
def test_a_whole_number_is_a_label(tmp_path: Path, label: object, classes: tuple[str, ...]) -> None:
    assert listed(tmp_path, labelled(label)).classes == classes


@pytest.mark.parametrize(
    ("label", "shown"),
    [(0.7, "0.7"), (1.7, "1.7"), (True, "true"), (False, "false"), (-1, "-1"), ("cat", "cat"), (None, "null"),
     ([1], r"\[1\]"), (float("nan"), "NaN"), (1e400, "Infinity"), ("x" * 10_000, "x{40},")],
)  # fmt: skip
@pytest.mark.parametrize("class_list", [True, False])
def test_what_is_no_whole_number_is_no_label(tmp_path: Path, label: object, shown: str, class_list: bool) -> None:
    if class_list:
        (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    with pytest.raises(UserError, match=rf"shard-0.tar: 3.json has label {shown}.* expected a whole number") as refused:
        listed(tmp_path, labelled(label))
    assert "classes.txt" not in str(refused.value)


def test_a_class_list_beside_each_split_is_refused_instead_of_read_by_some_commands() -> None:
    archives = {"train": ["train/0.tar"], "val": ["val/0.tar"]}
    files = ["train/0.tar", "train/classes.txt", "val/0.tar", "val/classes.txt"]
    with pytest.raises(UserError, match=r"train/classes\.txt, val/classes\.txt: put one classes.txt into the folder"):
        class_list_beside(archives, files)
    assert class_list_beside(archives, [*files, "classes.txt"]) == "classes.txt"
    assert class_list_beside(archives, files[:3]) == "train/classes.txt"  # one names the numbers of both


def test_a_label_beyond_the_class_list_blames_both(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("a\nb\n")
    with pytest.raises(UserError, match=r"3.jpg has label 2, but classes.txt names 2 classes"):
        listed(tmp_path, labelled(2))


def test_what_a_mac_adds_to_an_archive_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = labelled(1)
    for name in list(members):
        members[f"._{name}"] = members[f"__MACOSX/._{name}"] = b"\0\5\26\7"
    members[".DS_Store"] = b""
    assert sum(map(len, listed(tmp_path, members).splits.values())) == 4
    assert "left out of the archives: 17 members hidden, or left by an operating system" in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_class_list_is_read_in_its_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "classes.txt").write_text("Äpfel\nBirnen\n", encoding=encoding)
    assert listed(tmp_path, labelled(1)).classes == ("Äpfel", "Birnen")


def test_a_class_list_in_latin_1_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("Äpfel\nBirnen\n", encoding="latin-1")
    with pytest.raises(UserError, match=r"classes\.txt is not UTF-8 \(byte 0xc4 at position 0; Latin-1 perhaps\)"):
        listed(tmp_path, labelled(1))


def test_the_output_of_img2dataset_is_read_from_its_archives(tmp_path: Path) -> None:
    for name in ("00000.parquet", "00000_stats.json"):
        (tmp_path / name).write_bytes(b"not read")
    listing = listed(tmp_path, labelled(1), "00000.tar")
    ids = sorted(image.image_id for images in listing.splits.values() for image in images)
    assert ids == [f"00000.tar/{number}.jpg" for number in range(4)]
    assert listing.ignored_summary() == "00000.parquet, 00000_stats.json"


def test_archives_for_test_alone_are_evaluated_and_not_trained_on(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no training images"):
        listed(tmp_path, labelled(1), "test-0.tar")
    assert len(images_to_evaluate(str(tmp_path), ("0", "1")).listing.splits["val"]) == 4


def test_archives_in_split_folders_share_the_class_list_above_them(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/classes.txt").write_text("a\nb\n")
    (tmp_path / "set/val").mkdir()
    (tmp_path / "set/val/0000.tar").write_bytes(tar(labelled(0)))
    listing = listed(tmp_path, labelled(1), "set/train/0000.tar")
    assert listing.classes == ("a", "b")
    assert {split: len(files) for split, files in listing.splits.items()} == {"train": 4, "val": 4}
    assert listing.ignored == ()


def test_an_archive_without_members_and_an_empty_class_list_are_named(tmp_path: Path) -> None:
    (tmp_path / "train.tar").write_bytes(tar({}))
    with pytest.raises(UserError, match=r"^no labelled images to train on in"):
        images_to_train_on(str(tmp_path), 10, 0)
    (tmp_path / "classes.txt").write_text("\n")
    with pytest.raises(UserError, match=r"classes\.txt lists no classes; remove it"):
        images_to_train_on(str(tmp_path), 10, 0)


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
