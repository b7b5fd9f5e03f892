"""Folders as people download and unpack them: splits in splits, sets in sets, masks, and archives left packed."""

import re
from pathlib import Path

import pytest

from pipelines.data.sources import images_to_train_on
from pipelines.errors import UserError
from pipelines.run.storage import Storage
from tests.pipelines.data.archives import tar


def made(root: Path, *folders: str) -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(2):
            (root / folder / f"{number}.jpg").write_bytes(b"x")
    return root


def written(root: Path, *files: str) -> Path:
    for name in files:
        Storage.at(str(root)).write(name, b"x")
    return root


def classes_of(*folders: str) -> list[str]:
    return [f"{folder}/{name}" for folder in folders for name in ("cat", "dog")]


def said_of(root: Path, capsys: pytest.CaptureFixture[str]) -> str:
    images_to_train_on(str(root), 50, 0)
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("above", ["train", "Training Data", "test_data", "valid"])
def test_a_folder_around_all_splits_is_entered_though_it_has_the_name_of_one(tmp_path: Path, above: str) -> None:
    listing = images_to_train_on(str(made(tmp_path, *classes_of(f"{above}/train", f"{above}/val"))), 10, 0).listing
    assert listing.classes == ("cat", "dog")
    assert {image.image_id.split("/")[0] for image in listing.splits["val"]} == {"val"}


def test_a_folder_around_the_splits_is_entered_though_the_test_pictures_are_in_no_class_folder(tmp_path: Path) -> None:
    made(tmp_path, *classes_of("train_data/train"), "train_data/test")
    assert images_to_train_on(str(tmp_path), 50, 0).listing.classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("folders", "nested"),
    [
        (["train", "train/val"], "train has cat, dog in val/"),
        (["train", "test", "train/validation"], "train has cat, dog in validation/"),
        (["train/train", "train/val", "test"], "train has cat, dog in train/, val/"),
        (["train", "val", "val/Train"], "val has cat, dog in Train/"),
    ],
)
def test_a_split_in_a_split_is_no_class(tmp_path: Path, folders: list[str], nested: str) -> None:
    with pytest.raises(UserError, match=f"{nested}: folders of such names .* put all splits side by side"):
        images_to_train_on(str(made(tmp_path, *classes_of(*folders))), 10, 0)


def test_a_split_in_a_split_is_no_class_though_its_classes_are_written_otherwise(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train has cat, dog in validation/: folders of such names"):
        images_to_train_on(str(made(tmp_path, "train/Cat", "train/Dog", *classes_of("train/validation"))), 10, 0)


def test_a_test_folder_that_is_there_twice_stops_no_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = said_of(made(tmp_path, *classes_of("train", "val", "test", "test/test")), capsys)
    assert "named like other classes (cat, dog): test/test/; if that is a copy" in said


def test_a_class_that_is_called_like_a_split_may_have_folders_of_its_own(tmp_path: Path) -> None:
    made(tmp_path, "train/train/steam", "train/train/diesel", "train/bus/city", "train/test/tube", "train/bus/test")
    made(tmp_path, "train/train/2020", "train/test/2020")
    assert images_to_train_on(str(tmp_path), 50, 0).listing.classes == ("bus", "test", "train")


@pytest.mark.parametrize("split", ["", "train/"])
def test_a_data_set_that_is_there_twice_is_no_class_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], split: str
) -> None:
    made(tmp_path, *(f"{split}{name}" for name in ("no", "yes", "brain_tumor_dataset/no", "brain_tumor_dataset/yes")))
    line = f"classes with folders that are named like other classes (no, yes): {split}brain_tumor_dataset/; if that is"
    assert line in said_of(tmp_path, capsys)


@pytest.mark.parametrize("split", ["", "train/"])
def test_splits_in_most_classes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], split: str) -> None:
    names = ("cat", "dog", "owl")
    made(tmp_path, *(split + name for name in names), *(f"{split}{name}/val" for name in names[:2]))
    said = said_of(tmp_path, capsys)
    assert f"val/ in {split}cat/, {split}dog/: used as pictures of these classes, whatever the name; if it" in said
    assert "put that first (val/cat/ instead of cat/val/)" in said


def test_a_test_in_one_of_several_classes_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "whatever the name" not in said_of(made(tmp_path, "blood/test", "bone/left", "skin"), capsys)


@pytest.mark.parametrize(
    "folders",
    [
        ("JPEGImages", "SegmentationClass", "SegmentationObject"),
        ("images", "masks_png"),
        ("image", "ground_truth"),
        ("img", "gt"),
        ("photos", "masks"),
        ("images", "lung_masks"),
        ("rgb", "depth"),
        ("images_2", "images_5"),
    ],
)
def test_kinds_of_files_are_no_classes_however_they_are_called(tmp_path: Path, folders: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match="whose names suggest kinds of files"):
        images_to_train_on(str(made(tmp_path, *folders)), 10, 0)


def test_numbered_folders_of_images_are_parts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has images_001/, images_002/, whose names suggest parts of a data set"):
        images_to_train_on(str(made(tmp_path, "images_001/images", "images_002/images")), 10, 0)


@pytest.mark.parametrize(
    "classes", [("label_0", "label_1"), ("mask", "no_mask"), ("label_cat", "label_dog"), ("depth", "width")]
)
def test_labels_may_be_classes(tmp_path: Path, classes: tuple[str, ...]) -> None:
    assert images_to_train_on(str(made(tmp_path, *classes)), 50, 0).listing.classes == classes


@pytest.mark.parametrize("masks", ["lung masks", "binary_mask", "masks_png", "ground_truth", "seg"])
def test_masks_in_classes_are_counted_whatever_word_is_before_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], masks: str
) -> None:
    made(tmp_path, *(f"train/{name}/{kind}" for name in ("covid", "normal") for kind in ("images", masks)))
    said = said_of(tmp_path, capsys)
    assert f"2 in train/covid/{masks}/, 2 in train/normal/{masks}/; move them" in said
    assert "taken for classes" not in said


def test_a_folder_with_a_word_for_labels_is_left_alone_where_no_images_are_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "move them" not in said_of(made(tmp_path, "bottle/with labels", "bottle/plain", "can"), capsys)


@pytest.mark.parametrize("mask", ["benign (1)_mask.png", "benign (1)_mask_1.png", "benign (1).gt.png"])
def test_masks_that_lie_beside_their_pictures_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mask: str
) -> None:
    made(tmp_path, "benign", "malignant")
    written(tmp_path, "benign/benign (1).png", f"benign/{mask}", "malignant/no_mask.png")
    line = f"used as pictures, though named like masks of those beside them: 1 in benign/, as {mask}; move them"
    assert line in said_of(tmp_path, capsys)


@pytest.mark.parametrize(
    ("packed", "folder"),
    [
        ("val-20240101T000000Z-001.zip", "val"),
        ("pets-val.zip", "val"),
        ("validation_v2.tar.gz", "val"),
        (".val.zip.icloud", "val"),
        ("val2017.zip", "val2017"),
        ("val.tfrec", "val"),
        ("pets_val_images.zip", "val"),
        ("val_images_part1.zip", "val"),
        ("instance_images_val.zip", "val"),
    ],
)
def test_packed_validation_images_are_missed_by_their_file(tmp_path: Path, packed: str, folder: str) -> None:
    written(made(tmp_path, *classes_of("train")), packed)
    message = f"{packed} may hold the validation images: add them (unpack {packed}, or fix a link), or remove {packed}"
    with pytest.raises(UserError, match=re.escape(message)):
        images_to_train_on(str(tmp_path), 10, 0)


@pytest.mark.parametrize(
    "beside",
    [
        *("val.lst", "val.cache", "val.csv.gz", "val.geojson", "val_labels.zip", "dev-tools.zip", "a.val.b.zip"),
        *("validation_tools.zip", "train_val.zip", "ILSVRC2012_bbox_val_v3.tgz", "coco_annotations_val2017.zip"),
        *("captions_val.zip", "person_keypoints_val2017.zip", "features_val.zip", "attributes_val.tgz"),
        *("caches-val.tar.gz", "instances_val2017.zip", "val_embeddings.tar"),
    ],
)
def test_lists_and_labels_of_validation_images_are_no_packed_ones(tmp_path: Path, beside: str) -> None:
    written(made(tmp_path, *classes_of("train")), beside)
    assert len(images_to_train_on(str(tmp_path), 50, 0).listing.splits["val"]) == 2


@pytest.mark.parametrize("classes", [("invalid_id", "valid_id"), ("tickets_invalid", "tickets_valid")])
def test_archives_of_classes_whose_names_have_words_for_splits_may_stay_beside_them(
    tmp_path: Path, classes: tuple[str, ...]
) -> None:
    written(made(tmp_path, *classes), *(f"{name}.zip" for name in classes))
    assert images_to_train_on(str(tmp_path), 50, 0).listing.classes == classes


@pytest.mark.parametrize("packed", ["pets-val.zip", "ILSVRC2012_img_val.tar"])
def test_the_archive_that_classes_may_have_been_unpacked_from_may_stay_beside_them(tmp_path: Path, packed: str) -> None:
    written(made(tmp_path, "cat", "dog"), packed)
    assert images_to_train_on(str(tmp_path), 50, 0).listing.classes == ("cat", "dog")


def test_a_part_of_packed_validation_images_is_missed_beside_classes_too(tmp_path: Path) -> None:
    written(made(tmp_path, "cat", "dog"), "val-20240101T000000Z-001.zip")
    with pytest.raises(UserError, match=r"-001\.zip may hold the validation images: add them"):
        images_to_train_on(str(tmp_path), 10, 0)


@pytest.mark.parametrize("packed", ["train/owl.zip", "train/owl/owl.7z.001", "train/owl/a/owl.tar"])
def test_a_class_that_is_still_packed_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], packed: str) -> None:
    made(tmp_path, *classes_of("train"), "train/St. Bernard")
    written(tmp_path, packed, "train/cat.zip", "train/St. Bernard.tar.gz", "train/dog.tar", "docs/figures.zip")
    said = said_of(tmp_path, capsys)
    assert f"archives where class folders are, left out: {packed}; unpack them if they hold classes" in said


def test_a_packed_class_beside_others_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(made(tmp_path, "cat", "dog"), "owl/owl.rar", "photos.zip")
    assert "archives where class folders are, left out: owl/owl.rar; unpack" in said_of(tmp_path, capsys)


def test_packed_training_images_are_named(tmp_path: Path) -> None:
    written(made(tmp_path, *classes_of("val")), "train.zip")
    with pytest.raises(UserError, match=r"no training images .*; unpack train\.zip if they are there"):
        images_to_train_on(str(tmp_path), 10, 0)


def test_the_first_part_of_an_archive_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no images in .*: unpack photos\.7z\.001 first"):
        images_to_train_on(str(written(tmp_path, "photos.7z.001", "photos.7z.002")), 10, 0)


def test_arrow_files_are_refused_with_the_way_to_parquet(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"1 arrow\); docs/data\.md shows how to write Arrow files as Parquet"):
        images_to_train_on(str(written(tmp_path, "train/data-00000-of-00001.arrow")), 10, 0)


@pytest.mark.linux
@pytest.mark.parametrize(
    ("first", "line"),
    [
        ("train", "validacao/ left out, with the same class folders"),
        ("treino", "treino/ and validacao/ are taken for classes"),
    ],
)
def test_splits_that_spell_classes_in_another_case_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], first: str, line: str
) -> None:
    assert line in said_of(made(tmp_path, *classes_of(first), "validacao/Cat", "validacao/Dog"), capsys)


@pytest.mark.linux
def test_a_joiner_behind_a_latin_letter_is_invisible(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"look the same .*'Auf\\u200clage', 'Auflage'|'Auflage', 'Auf\\u200clage'"):
        images_to_train_on(str(made(tmp_path, "Auflage", "Auf\u200clage", "dog")), 10, 0)


def test_a_label_that_is_there_twice_is_not_chosen_silently(tmp_path: Path) -> None:
    members = {f"{number}.jpg": b"x" for number in range(4)}
    labels = {f"{number}.json": b'{"meta": {"a": 1, "a": 2}, "label": %d}' % (number % 2) for number in range(4)}
    archive = tmp_path / "train-0.tar"
    archive.write_bytes(tar({**members, **labels}))
    assert images_to_train_on(str(tmp_path), 50, 0).listing.classes == ("0", "1")
    archive.write_bytes(tar({**members, **labels, "3.json": b'{"label": 0, "label": 1}'}))
    with pytest.raises(UserError, match=r"3\.json must have exactly one number 'label'"):
        images_to_train_on(str(tmp_path), 50, 0)
