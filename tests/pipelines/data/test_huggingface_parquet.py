"""Parquet of Hugging Face: images, splits and names of classes as written, and files refused by name."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.data.sources import images_to_evaluate, images_to_train_on
from pipelines.errors import UserError
from tests.pipelines.data.archives import hugging_face, picture


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
