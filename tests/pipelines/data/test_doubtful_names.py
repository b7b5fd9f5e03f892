"""Names that nobody can tell apart, splits in any language, and pictures that are elsewhere: all are told."""

import re
from pathlib import Path

import pytest

from pipelines.data.file_names import case_twins, look_alikes
from pipelines.data.sources import absolute_data, images_to_evaluate, images_to_train_on
from pipelines.data.split_names import split_of_folder
from pipelines.errors import UserError


def made(root: Path, *folders: str) -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(2):
            (root / folder / f"{number}.jpg").write_bytes(b"x")
    return root


def said_of(root: Path, capsys: pytest.CaptureFixture[str]) -> str:
    images_to_train_on(str(root), 10, 0)
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.linux
@pytest.mark.parametrize("other", ["cat ", " cat", "cat\u200b", "c\u00adat", "\u00a0cat", "cat\u061c", "cat\u3164"])
def test_classes_that_look_the_same_are_refused_by_name(tmp_path: Path, other: str) -> None:
    assert look_alikes(["cat", "dog", other]) == [tuple(sorted(["cat", other]))]
    with pytest.raises(UserError, match=r"look the same .* outer spaces or invisible characters: .*'cat'") as refused:
        images_to_train_on(str(made(tmp_path, "cat", "dog", other)), 10, 0)
    assert repr(other) in str(refused.value)


@pytest.mark.parametrize(
    "names",
    [
        ["\u09b0\u200d\u09cd\u09af", "\u09b0\u09cd\u09af"],  # Bengali: a joiner makes another letter
        ["\u0645\u06cc\u200c\u062e", "\u0645\u06cc\u062e"],  # Persian: a non-joiner ends a word
        ["\U0001f3f4\U000e0067\U000e0065\U000e007f", "\U0001f3f4\U000e0067\U000e0073\U000e007f"],  # flags
    ],
)
def test_classes_that_look_different_are_kept_apart(names: list[str]) -> None:
    assert look_alikes(names) == []


def test_a_space_that_no_line_breaks_at_looks_like_another() -> None:
    assert look_alikes(["golden\u00a0retriever", "golden retriever"]) == [("golden retriever", "golden\u00a0retriever")]


def test_a_class_to_evaluate_in_another_case_is_told_with_its_twin(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"class Cat in .* is not among .*: 'Cat' and 'cat' differ only in case|'Cat'"):
        images_to_evaluate(str(made(tmp_path, "Cat", "dog")), ("cat", "dog"))


@pytest.mark.linux
def test_a_class_that_lacks_training_images_is_not_called_a_twin_of_one_that_has_some(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="class a has validation images but no training images") as refused:
        images_to_train_on(str(made(tmp_path, "train/A", "train/b", "val/A", "val/a", "val/b")), 10, 0)
    assert "differ only in case" not in str(refused.value)


@pytest.mark.linux
def test_classes_that_differ_only_in_case_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert case_twins(["Polish", "polish", "German", "Masse", "Maße"]) == [("Polish", "polish")]
    assert "classes whose names differ only in case: Cat and cat" in said_of(made(tmp_path, "Cat", "cat"), capsys)


@pytest.mark.linux
def test_a_class_that_validation_spells_in_another_case_is_told_with_its_twin(tmp_path: Path) -> None:
    made(tmp_path, "train/cat", "train/dog", "val/cat", "val/Dog")
    with pytest.raises(UserError, match=r"class Dog has validation images .*: 'Dog' and 'dog' differ only in case"):
        images_to_train_on(str(tmp_path), 10, 0)


@pytest.mark.parametrize(
    ("first", "second"), [("训练", "验证"), ("entrenamiento", "validacion"), ("tr", "te"), ("2023", "2024")]
)
def test_splits_in_another_language_are_not_taken_for_classes_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], first: str, second: str
) -> None:
    made(tmp_path, *(f"{split}/{name}" for split in (first, second) for name in ("cat", "dog")))
    said = said_of(tmp_path, capsys)
    assert "are taken for classes, and each has the folders cat, dog: if those are the classes, rename" in said
    assert f"{first}/" in said


def test_splits_in_another_language_are_told_where_one_lacks_a_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path, *(f"treino/{name}" for name in ("cat", "dog", "owl")), "validacao/cat", "validacao/dog")
    (tmp_path / "treino" / "stray.jpg").write_bytes(b"x")
    assert "treino/ and validacao/ are taken for classes, and each has the folders cat, dog" in said_of(
        tmp_path, capsys
    )


def test_splits_in_another_language_are_told_beside_a_folder_for_the_documentation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path, *(f"{split}/{name}" for split in ("entrenamiento", "prueba") for name in ("cat", "dog")), "figuras")
    said = said_of(tmp_path, capsys)
    assert "entrenamiento/ and prueba/ are taken for classes, and each has the folders cat, dog" in said


@pytest.mark.parametrize(
    "classes",
    [
        ("apple", "toy_train", "test_tube", "chess_contest", "banana", "car"),
        ("apple", "banana", "greatest_hits", "train_station", "dog"),
    ],
)
def test_two_of_many_classes_may_be_called_like_splits(tmp_path: Path, classes: tuple[str, ...]) -> None:
    made(tmp_path, *(f"{name}/{side}" for name in classes for side in ("left", "right")))
    assert images_to_train_on(str(tmp_path), 50, 0).listing.classes == tuple(sorted(classes))


@pytest.mark.parametrize("word", ["label", "image"])
def test_numbered_classes_are_no_kinds_of_files(tmp_path: Path, word: str) -> None:
    classes = tuple(f"{word}_{number}" for number in range(3))
    made(tmp_path, *(f"{split}/{name}" for split in ("train", "val") for name in classes))
    assert images_to_train_on(str(tmp_path), 10, 0).listing.classes == classes


@pytest.mark.parametrize("split", ["train/", ""])
def test_masks_beside_images_in_a_class_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], split: str
) -> None:
    made(tmp_path, *(f"{split}{name}/{kind}" for name in ("covid", "healthy") for kind in ("images", "masks")))
    said = said_of(tmp_path, capsys)
    assert f"whatever the folder's name: 2 in {split}covid/masks/, 2 in {split}healthy/masks/; move them" in said
    assert "rename" not in said


@pytest.mark.parametrize("packed", ["val.zip", "val.zip.001", "val.tar.gz.aa", "val.dvc", "val.tbz2", "val.zip.part"])
def test_validation_images_that_are_packed_in_any_way_are_missed(tmp_path: Path, packed: str) -> None:
    made(tmp_path, "train/cat", "train/dog")
    (tmp_path / packed).write_bytes(b"x")
    with pytest.raises(UserError, match=f"{re.escape(packed)} may hold the validation images: add them .unpack"):
        images_to_train_on(str(tmp_path), 10, 0)
    (tmp_path / "val").mkdir()  # no images in it: the way out must name both
    (tmp_path / "val/readme.txt").write_bytes(b"x")
    with pytest.raises(UserError, match=rf"no images in val/: .*, or remove {re.escape(packed)} and val/ from here"):
        images_to_train_on(str(tmp_path), 10, 0)


@pytest.mark.parametrize("beside", ["val.txt", "val.csv", "val.json", "readme.md"])
def test_a_list_of_validation_images_is_no_packed_one(tmp_path: Path, beside: str) -> None:
    made(tmp_path, "train/cat", "train/dog")
    (tmp_path / beside).write_bytes(b"x")
    assert len(images_to_train_on(str(tmp_path), 50, 0).listing.splits["val"]) == 2


@pytest.mark.parametrize(("known", "others"), [("test", ("trian",)), ("train", ("tets", "vaild"))])
def test_misspelt_splits_beside_one_are_refused_with_the_right_fix(
    tmp_path: Path, known: str, others: tuple[str, ...]
) -> None:
    made(tmp_path, *(f"{split}/{name}" for split in (known, *others) for name in ("cat", "dog")))
    named = " and ".join(f"{name}/" for name in others)
    with pytest.raises(UserError, match=f"has {known}/ beside {named} with the same class folders, .* rename them to"):
        images_to_train_on(str(tmp_path), 10, 0)


def test_kinds_of_files_beside_splits_are_not_taken_for_a_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path, *(f"{folder}/{name}" for folder in ("train", "val", "masks") for name in ("cat", "dog")))
    assert "rename" not in said_of(tmp_path, capsys)


@pytest.mark.parametrize("below", [("cat/a", "dog/b"), ("cat/in", "cat/out", "dog/in"), ("cat", "cat/in", "dog/in")])
def test_classes_with_folders_of_their_own_are_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], below: tuple[str, ...]
) -> None:
    assert "taken for classes" not in said_of(made(tmp_path, *below), capsys)


@pytest.mark.parametrize("misspelt", ["vaildation", "Validierung", "holdout"])
def test_a_split_with_another_name_is_not_left_out_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], misspelt: str
) -> None:
    made(tmp_path, "train/cat", "train/dog", f"{misspelt}/cat", f"{misspelt}/dog")
    said = said_of(tmp_path, capsys)
    assert f"{misspelt}/ left out, with the same class folders as the splits: to use the images there, rename" in said


def test_a_training_split_with_another_name_is_named_before_the_refusal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path, "trian/cat", "trian/dog", "val/cat", "val/dog")
    with pytest.raises(UserError, match="has no training images"):
        images_to_train_on(str(tmp_path), 10, 0)
    assert "data: trian/ left out, with the same class folders as the splits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("embeded", "embedded"),
        ("Embedded", "embedded"),
        ("Embedded/", "embedded"),
        ("torchvison:CIFAR10?root=/tmp/x", "torchvision:CIFAR10?root=/tmp/x"),
        ("TorchVision:Imagenette?size=160px", "torchvision:Imagenette?size=160px"),
        ("imagenette", "torchvision:Imagenette"),
        ("CIFAR10", "torchvision:CIFAR10"),
    ],
)
def test_the_misspelt_name_of_a_data_set_is_no_missing_folder(misspelt: str, meant: str) -> None:
    with pytest.raises(UserError, match=rf"^there is no folder {re.escape(f'{misspelt} (did you mean {meant}?)')}$"):
        images_to_train_on(misspelt, 10.0, 0)
    absolute = absolute_data(misspelt)  # as a recipe has it
    with pytest.raises(UserError, match=rf"{re.escape(f'(did you mean {meant}?)')}$"):
        images_to_train_on(absolute, 10.0, 0)


@pytest.mark.parametrize("path", ["scan:2024-01-01", "backup:photos_of_cats", "photos"])
def test_a_path_that_is_not_there_is_no_misspelt_name(path: str) -> None:
    with pytest.raises(UserError) as refused:
        images_to_train_on(path, 10, 0)
    assert "did you mean" not in str(refused.value)


def test_a_folder_that_is_called_embedded_is_not_passed_over_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path, "embedded/cat", "embedded/dog")
    monkeypatch.chdir(tmp_path)
    assert len(images_to_train_on("embedded", 10, 0).listing.classes) == 10
    assert "data: the built-in digits; for the folder of that name, specify ./embedded" in capsys.readouterr().out
    assert images_to_train_on("./embedded", 50, 0).listing.classes == ("cat", "dog")


def test_a_folder_may_be_called_nearly_as_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, "embeded/cat", "embeded/dog")
    monkeypatch.chdir(tmp_path)
    assert images_to_train_on("embeded", 50.0, 0).listing.classes == ("cat", "dog")


def test_pictures_that_are_in_icloud_alone_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path, "cat", "dog")
    for name in ("cat/.IMG_1.jpg.icloud", "dog/.IMG_2.jpg.icloud", "dog/.DS_Store"):
        (tmp_path / name).write_bytes(b"x")
    said = said_of(tmp_path, capsys)
    assert "data: 2 files in iCloud alone: download them" in said
    assert "left out (hidden, or left by an operating system or a tool): 1 .DS_Store" in said


def test_a_folder_whose_pictures_are_all_in_icloud_is_refused_with_that_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("cat/.IMG_1.jpg.icloud", "dog/.IMG_2.jpg.icloud"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match="no images in"):
        images_to_train_on(str(tmp_path), 10, 0)
    assert "data: 2 files in iCloud alone: download them" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", ["поезд (train)", "猫 train", "train_поезд", "τεστ test"])
def test_words_of_other_alphabets_leave_a_folder_a_class(name: str) -> None:
    assert split_of_folder(name) == ""
    assert split_of_folder("train (2)") == split_of_folder("Train_images") == "train"


def test_folders_of_images_with_words_of_other_alphabets_are_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "class folders: 犬 images, 猫 images" in said_of(made(tmp_path, "犬 images", "猫 images"), capsys)
