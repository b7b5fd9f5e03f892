"""Names that nobody can tell apart, splits in any language, and pictures that are elsewhere: all are told."""

import re
from pathlib import Path

import pytest

from pipelines.data.file_names import case_twins, look_alikes
from pipelines.data.sources import images_to_evaluate, images_to_train_on
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
@pytest.mark.parametrize("other", ["cat ", " cat", "cat\u200b", "c\u00adat", "\u00a0cat"])
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
    assert case_twins(["Polish", "polish", "German"]) == [("Polish", "polish")]
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
    assert "are taken for the classes, and each has the folders cat, dog: if those are the classes, rename" in said
    assert f"{first}/" in said


def test_splits_in_another_language_are_told_where_one_lacks_a_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path, *(f"treino/{name}" for name in ("cat", "dog", "owl")), "validacao/cat", "validacao/dog")
    (tmp_path / "treino" / "stray.jpg").write_bytes(b"x")
    assert "treino/ and validacao/ are taken for the classes, and each has the folders cat, dog" in said_of(
        tmp_path, capsys
    )


def test_kinds_of_files_beside_splits_are_not_taken_for_a_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path, *(f"{folder}/{name}" for folder in ("train", "val", "masks") for name in ("cat", "dog")))
    assert "rename" not in said_of(tmp_path, capsys)


@pytest.mark.parametrize("below", [("cat/a", "dog/b"), ("cat/in", "cat/out", "dog/in"), ("cat", "cat/in", "dog/in")])
def test_classes_with_folders_of_their_own_are_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], below: tuple[str, ...]
) -> None:
    assert "taken for the classes" not in said_of(made(tmp_path, *below), capsys)


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
        ("torchvison:CIFAR10", "torchvision:CIFAR10"),
        ("TorchVision:Imagenette?size=160px", "torchvision:Imagenette?size=160px"),
    ],
)
def test_the_misspelt_name_of_a_data_set_is_no_missing_folder(misspelt: str, meant: str) -> None:
    with pytest.raises(UserError, match=rf"^there is no folder {re.escape(f'{misspelt} (did you mean {meant}?)')}$"):
        images_to_train_on(misspelt, 10.0, 0)


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
