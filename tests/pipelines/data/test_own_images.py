"""Images that a run was trained with are not evaluated as if they were others, wherever the evaluation names them."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from googlenet.images.records import RecordsError
from pipelines.data.image_folder import FolderImages
from pipelines.data.listing import ImageFile
from pipelines.data.own_images import count_own_images, has_validation_images
from pipelines.data.sources import images_to_evaluate, unlabelled_images
from pipelines.errors import UserError
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from tests.prepared import prepare_here

CLASSES = ("class_0", "class_1", "class_2")
OTHERS = {"train": 0, "val": 0}


def count(run: Storage, data: Path) -> dict[str, int]:
    return count_own_images(run, str(data), unlabelled_images(str(data), CLASSES))


@pytest.fixture
def unsplit(photo_folder: Path, tmp_path: Path) -> tuple[Storage, Path]:
    """A run trained with a folder of class folders, a tenth of which is held out."""
    photos = Path(shutil.copytree(photo_folder / "val", tmp_path / "photos"))
    run = Storage.at(str(tmp_path / "run"))
    prepare_here(run, Recipe(data=str(photos)))
    return run, photos


def test_own_images_are_known_in_any_folder_of_the_training_data(prepared_run: Path, photo_folder: Path) -> None:
    run = Storage.at(str(prepared_run))
    assert count(run, photo_folder) == {"train": 24, "val": 42}
    assert count(run, photo_folder.parent) == {"train": 24, "val": 42}
    assert count(run, photo_folder / "train/class_1") == {"train": 8, "val": 0}
    assert count(run, photo_folder / "val/class_1/3.jpg") == {"train": 0, "val": 1}
    labelled = images_to_evaluate(str(photo_folder), CLASSES)
    assert count_own_images(run, str(photo_folder), labelled) == {"train": 0, "val": 42}


def test_images_elsewhere_are_others_though_they_have_the_same_names(
    prepared_run: Path, photo_folder: Path, tmp_path: Path, unsplit: tuple[Storage, Path]
) -> None:
    copied = Path(shutil.copytree(photo_folder, tmp_path / "copied"))
    assert count(Storage.at(str(prepared_run)), copied) == OTHERS
    run, photos = unsplit
    shutil.copytree(photos, photos / "new")  # in the folder of the training data
    assert count(run, photos / "new") == {"train": 36, "val": 6}  # copies of them
    write_photos_again(photos / "new")
    assert count(run, photos / "new") == OTHERS
    embedded = images_to_evaluate("embedded", (), 0)
    assert count_own_images(run, "embedded", embedded) == OTHERS


def test_new_images_in_the_place_and_with_the_names_of_old_ones_are_others(unsplit: tuple[Storage, Path]) -> None:
    run, photos = unsplit
    write_photos_again(photos)
    assert count(run, photos) == OTHERS


def test_a_question_mark_in_a_folders_name_is_a_part_of_it(photo_folder: Path, tmp_path: Path) -> None:
    seen, new = (tmp_path / f"Which bird? {part}" for part in ("train", "test"))
    shutil.copytree(photo_folder / "val", seen)
    shutil.copytree(seen, new)
    write_photos_again(new)
    run = Storage.at(str(tmp_path / "run"))
    prepare_here(run, Recipe(data=str(seen)))
    assert count(run, new) == OTHERS
    assert count(run, seen) == {"train": 36, "val": 6}


def test_a_run_whose_prepared_images_are_gone_still_answers(
    prepared_run: Path, photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(prepared_run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/dataset/train")
    assert count(Storage.at(str(tmp_path / "run")), photo_folder) == OTHERS
    assert "are gone: whether it was trained on these is unknown" in " ".join(capsys.readouterr().out.split())


def test_a_run_whose_dataset_was_removed_asks_for_its_manifest(
    prepared_run: Path, photo_folder: Path, tmp_path: Path
) -> None:
    run = Storage.at(str(shutil.copytree(prepared_run, tmp_path / "run")))
    shutil.rmtree(tmp_path / "run/dataset")
    with pytest.raises(
        UserError, match=r"^.*/run has no dataset/manifest\.json: restore its folder dataset/ \(at least"
    ):
        count(run, photo_folder)


def write_photos_again(folder: Path) -> None:
    """Other pictures under the same names."""
    for number, path in enumerate(sorted(folder.rglob("*.jpg"))):
        Image.new("RGB", (60, 60), (number, 0, 0)).save(path)


def test_a_data_set_one_folder_down_is_known(photo_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(photo_folder, tmp_path / "download/photos")
    run = Storage.at(str(tmp_path / "run"))
    prepare_here(run, Recipe(data=str(tmp_path / "download")))
    assert count(run, tmp_path / "download") == {"train": 24, "val": 42}
    assert count(run, tmp_path / "download/photos/train") == {"train": 24, "val": 0}


def test_images_of_no_folder_are_those_of_a_run_that_names_the_same_source(
    prepared_run: Path, photo_folder: Path, tmp_path: Path
) -> None:
    run = Storage.at(str(tmp_path / "run"))
    shutil.copytree(prepared_run, tmp_path / "run")
    manifest = run.read_json("dataset/manifest.json")
    run.write_json("dataset/manifest.json", {**manifest, "prepared_from": {"data": "embedded"}})
    assert count_own_images(run, "embedded", unlabelled_images(str(photo_folder), CLASSES)) == {"train": 24, "val": 42}


def test_errors_on_training_images_are_refused_and_answers_told(
    unsplit: tuple[Storage, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run, photos = unsplit
    labelled = images_to_evaluate(str(photos), CLASSES)
    assert "data: there are no folders or files for training and validation; all images" in capsys.readouterr().out
    told = rf"^36 of the 42 images in {photos} are training images .*give only --run-dir"
    with pytest.raises(UserError, match=told):
        has_validation_images(run, str(photos), labelled, is_labelled=True)
    assert has_validation_images(run, str(photos), labelled, is_labelled=False)
    assert "data: 36 of these images were trained on: probabilities are higher" in capsys.readouterr().out


def test_validation_images_are_told(prepared_run: Path, photo_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled = images_to_evaluate(str(photo_folder / "val"), CLASSES)
    assert has_validation_images(Storage.at(str(prepared_run)), str(photo_folder / "val"), labelled, is_labelled=True)
    assert "data: 42 of these images are validation images of the run" in capsys.readouterr().out


class Away:
    """A reader in place of another, whose store does not answer."""

    def __init__(self, reader: FolderImages) -> None:
        self.root = reader.root

    def read(self, image: ImageFile) -> bytes:
        raise OSError(f"When reading information for key '{image.image_id}': AWS Error NETWORK_CONNECTION")


def test_while_a_store_is_away_images_are_not_taken_for_others(prepared_run: Path, photo_folder: Path) -> None:
    images = unlabelled_images(str(photo_folder), CLASSES)
    assert isinstance(images.reader, FolderImages)
    away = images._replace(reader=Away(images.reader))
    with pytest.raises(OSError, match="NETWORK_CONNECTION"):
        count_own_images(Storage.at(str(prepared_run)), str(photo_folder), away)


def test_a_damaged_shard_of_the_run_is_not_taken_for_other_images(
    prepared_run: Path, photo_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(prepared_run, tmp_path / "run")
    for shard in (tmp_path / "run/dataset/train").glob("*.parquet"):
        content = bytearray(shard.read_bytes())
        at = content.index(b"\xff\xd8") + 200  # within the first image
        content[at] ^= 255
        shard.write_bytes(content)
    with pytest.raises(RecordsError, match=r"00000\.parquet is damaged"):
        count(Storage.at(str(tmp_path / "run")), photo_folder)
