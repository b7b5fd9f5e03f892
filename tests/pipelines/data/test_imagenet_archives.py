"""ImageNet's archives: every image with its class without unpacking, and what is missing or damaged."""

from pathlib import Path

import pytest

from googlenet.images.decoding import decode_rgb
from pipelines.data.imagenet import DEVKIT, TRAIN_ARCHIVE
from pipelines.data.sources import images_to_evaluate, images_to_train_on
from pipelines.errors import UserError
from pipelines.run.storage import Storage
from tests.pipelines.data.archives import CLASSES, write_imagenet


@pytest.fixture
def imagenet(tmp_path: Path) -> tuple[Path, dict[str, bytes]]:
    return tmp_path, write_imagenet(tmp_path)


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
    (folder / TRAIN_ARCHIVE).unlink()
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
    train = (folder / TRAIN_ARCHIVE).read_bytes()
    (folder / TRAIN_ARCHIVE).write_bytes(train[: len(train) // 2])
    with pytest.raises(UserError, match=r"ILSVRC2012_img_train.tar.* (is cut off within|is damaged after)"):
        images_to_train_on(str(folder), 10, 0)
