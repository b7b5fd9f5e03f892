"""Listings of image folders: images found, their splits, and folders refused."""

import shutil
from pathlib import Path

import pytest

from pipelines.data.listing import Listing
from pipelines.data.sources import absolute_data, images_to_evaluate, images_to_train_on, unlabelled_images
from pipelines.errors import UserError
from pipelines.run.storage import Storage
from tests.pipelines.data.archives import tar


def make(root: Path, *names: str) -> Storage:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return Storage.at(str(root))


def ids(listing: Listing, split: str) -> list[str]:
    return [file.image_id for file in listing.splits[split]]


def listed(root: Storage) -> Listing:
    return images_to_train_on(root.root, 10, 0)[1]


def test_a_split_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    names = ["train/a/1.jpg", "train/b/deep/er/2.jpg", "val/b/3.jpg", "train/ä ö/4.JPEG", "notes.txt"]
    root = make(tmp_path, *names, "test/a/5.jpg", "test/b/6.jpg")
    listing = listed(root)
    assert listing.classes == ("a", "b", "ä ö")
    assert ids(listing, "train") == ["train/a/1.jpg", "train/b/deep/er/2.jpg", "train/ä ö/4.JPEG"]
    assert ids(listing, "val") == ["val/b/3.jpg"]
    assert [file.label for file in listing.splits["val"]] == [1]
    assert listing.ignored == ("notes.txt", "test/a/5.jpg", "test/b/6.jpg")
    assert listing.ignored_summary() == "notes.txt, 2 files in test/"


def test_what_a_telephone_puts_beside_pictures_is_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = [
        f"{cls}/IMG_{number}.{kind}" for cls in ("Mütze", "シャツ") for number, kind in enumerate(["HEIC", "jpg"])
    ]
    others = ["Mütze/IMG_0.MOV", "Mütze/IMG_0.AAE", "シャツ/IMG_1.jpg.json", "シャツ/IMG_0.mov"]
    listing = listed(make(tmp_path, *pictures, *others))
    assert sorted(ids(listing, "train") + ids(listing, "val")) == sorted(pictures)
    line = "left out beside the pictures, by their endings: 1 aae, 1 json, 2 mov"
    assert line in capsys.readouterr().out
    assert len(unlabelled_images(str(tmp_path), ()).listing.splits["val"]) == len(pictures)
    assert line in capsys.readouterr().out


def test_an_archive_among_the_pictures_is_not_left_out(tmp_path: Path) -> None:
    """It may hold pictures: the preparation refuses it by name."""
    listing = listed(make(tmp_path, "a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg", "a/more.zip"))
    assert "a/more.zip" in ids(listing, "train") + ids(listing, "val")


def test_a_single_picture_without_a_label_is_taken(tmp_path: Path) -> None:
    make(tmp_path, "a b/1.jpg", "a b/2.jpg", "a b/3.zip")
    assert ids(unlabelled_images(str(tmp_path / "a b/1.jpg"), ()).listing, "val") == ["1.jpg"]
    with pytest.raises(UserError, match=r"3\.zip is not a picture; unpack it"):
        unlabelled_images(str(tmp_path / "a b/3.zip"), ())


def test_a_file_of_a_hubs_cache_is_known_by_the_name_of_its_link(tmp_path: Path) -> None:
    names = [f"{number}.{end}" for number in range(4) for end in ("jpg", "cls")]
    archive = tar({name: str(int(name[0]) % 2).encode() for name in names})
    make(tmp_path, "blobs/2c3d").write("blobs/0a1b", archive)
    make(tmp_path, "snapshot/README.md").write("snapshot/classes.txt", b"cat\ndog\n")
    (tmp_path / "snapshot/train-0.tar").symlink_to("../blobs/0a1b")
    (tmp_path / "snapshot/photo.jpg").symlink_to("../blobs/2c3d")
    listing = images_to_train_on(absolute_data(str(tmp_path / "snapshot/train-0.tar")), 10, 0).listing
    assert (listing.classes, len(ids(listing, "train"))) == (("cat", "dog"), 2)
    photo = absolute_data(str(tmp_path / "snapshot/photo.jpg"))
    assert ids(unlabelled_images(photo, ()).listing, "val") == ["photo.jpg"]


def test_a_class_folder_that_is_a_link_to_nothing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = make(tmp_path, "a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg")
    (tmp_path / "bird").symlink_to("/disk/that/is/away")
    assert listed(root).classes == ("a", "b")
    assert "left out, since they are not regular files: bird (link to nothing)" in capsys.readouterr().out


def test_a_folder_without_a_split_is_split_by_the_hash_of_the_path(tmp_path: Path) -> None:
    names = [f"{cls}/{number}.jpg" for cls in "ab" for number in range(25)]
    root = make(tmp_path, *names)
    listing = listed(root)
    assert sorted(ids(listing, "train") + ids(listing, "val")) == sorted(names)
    held_out = set(ids(listing, "val"))
    assert sum(name.startswith("a/") for name in held_out) == 3  # 10 % of 25, rounded up
    make(tmp_path, *(f"c/{number}.jpg" for number in range(5)))
    assert held_out <= set(ids(listed(root), "val"))  # a new class moves no file of the others


@pytest.mark.parametrize("train", ["train", "Train", "training"])
def test_train_without_validation_is_split_and_test_is_left_alone(tmp_path: Path, train: str) -> None:
    names = [f"{train}/{cls}/{number}.jpg" for cls in "ab" for number in range(10)]
    listing = listed(make(tmp_path, *names, "test/a/1.jpg"))
    assert listing.classes == ("a", "b")
    assert len(ids(listing, "val")) == 2
    assert sorted(ids(listing, "train") + ids(listing, "val")) == sorted(names)
    assert listing.ignored == ("test/a/1.jpg",)


def test_split_folders_may_be_capitalised(tmp_path: Path) -> None:
    listing = listed(make(tmp_path, "Train/a/1.jpg", "Train/b/1.jpg", "Val/a/2.jpg"))
    assert listing.classes == ("a", "b")
    assert ids(listing, "val") == ["Val/a/2.jpg"]


def test_classes_within_a_split_may_be_called_like_splits(tmp_path: Path) -> None:
    names = [f"train/{cls}/{number}.jpg" for cls in ("valid", "invalid", "train") for number in range(10)]
    assert listed(make(tmp_path, *names)).classes == ("invalid", "train", "valid")


def test_archives_beside_unpacked_folders_are_left_alone_and_half_unpacked_imagenet_refused(tmp_path: Path) -> None:
    folders = [f"{split}/{cls}/1.jpg" for split in ("train", "val") for cls in "ab"]
    root = make(tmp_path, *folders, "ILSVRC2012_img_train.tar", "backup.tar", "metadata.parquet")
    listing = listed(root)
    assert ids(listing, "val") == ["val/a/1.jpg", "val/b/1.jpg"]
    assert listing.ignored == ("ILSVRC2012_img_train.tar", "backup.tar", "metadata.parquet")
    shutil.rmtree(tmp_path / "train")
    with pytest.raises(UserError, match="val as a folder, train as an archive: put all archives, or all folders"):
        listed(root)


def test_classes_that_no_validation_image_judges_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed(make(tmp_path / "split", "train/a/1.jpg", "train/b/1.jpg", "train/c/1.jpg", "val/a/2.jpg"))
    line = "data: no validation images, so no class error, for these classes: "
    assert f"{line}b, c\n" in capsys.readouterr().out
    listed(make(tmp_path / "unsplit", "a/1.jpg", "a/2.jpg", "b/1.jpg"))
    assert f"{line}b\n" in capsys.readouterr().out
    listed(make(tmp_path / "whole", "train/a/1.jpg", "train/b/1.jpg", "val/a/2.jpg", "val/b/2.jpg"))
    assert line not in capsys.readouterr().out


def test_a_link_to_nothing_is_listed_and_not_passed_over(tmp_path: Path) -> None:
    root = make(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg")
    (tmp_path / "train/b/2.jpg").symlink_to(tmp_path / "gone.jpg")
    assert "train/b/2.jpg" in ids(listed(root), "train")


def test_what_operating_systems_leave_is_not_an_image(tmp_path: Path) -> None:
    root = make(tmp_path, "train/a/1.jpg", "train/a/.DS_Store", "train/b/Thumbs.db", "train/b/1.jpg", "val/a/1.jpg")
    listing = listed(root)
    assert len(listing.splits["train"]) == 2
    assert listing.ignored == ()


def test_thumbnails_below_the_pictures_of_a_class_are_left_out_with_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = ["train/a/1.jpg", "train/a/2.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/a/june/1.jpg"]
    copies = ["train/a/thumbs/1.jpg", "train/a/thumbs/2.jpg", "val/a/june/Thumbnails/1.jpg"]
    listing = listed(make(tmp_path / "both", *pictures, *copies))
    assert [*ids(listing, "train"), *ids(listing, "val")] == pictures
    line = (
        "left out as thumbnails of the pictures above them: 2 in train/a/thumbs/, 1 in val/a/june/Thumbnails/; rename"
    )
    assert line in capsys.readouterr().out
    # A class of that name, and one whose pictures all lie so.
    alone = ["train/thumbs/1.jpg", "train/b/thumbs/1.jpg", "val/b/1.jpg"]
    listing = listed(make(tmp_path / "alone", *alone))
    assert [*ids(listing, "train"), *ids(listing, "val")] == [
        "train/b/thumbs/1.jpg",
        "train/thumbs/1.jpg",
        "val/b/1.jpg",
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no images"),
        (["notes.txt"], "no images"),
        (["1.jpg"], "no class folders in .*: 1 image lies directly in it; expected <class>/<image>"),
        (["1.jpg", "2.PNG", "notes.txt"], "no class folders in .*: 2 images lie directly in it; expected"),
        (
            ["train/1.jpg", "train/2.jpg", "val/1.jpg", "val/2.jpg"],
            "4 images lie directly in train/ and val/; expected",
        ),
        (["a/1.jpg", "a/2.jpg"], "only one class"),
        (
            ["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/c/1.jpg"],
            "class c has .* no training .*: add some, or",
        ),
        (
            ["train/n1/images/1.jpg", "train/n2/images/1.jpg", "val/images/1.jpg", "test/images/1.jpg"],
            "class images has validation images but .* its name suggests a kind of file, not a class: put each",
        ),
        (["a/1.jpg", "b/1.jpg"], "no validation images"),
        (["val/a/1.jpg", "val/b/1.jpg"], "no training images"),
        (["photos.tar.gz"], r"unpack photos\.tar\.gz first"),
    ],
)
def test_unusable_folders_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        listed(make(tmp_path, *names))


def test_an_evaluation_of_images_without_class_folders_points_to_unlabelled(tmp_path: Path) -> None:
    root = make(tmp_path, *(f"{number}.jpg" for number in range(24)))
    with pytest.raises(UserError, match="24 images lie directly in it; --unlabelled is for images without labels"):
        images_to_evaluate(root.root, ("a", "b"))
    assert len(unlabelled_images(root.root, ("a", "b")).listing.splits["val"]) == 24


def test_a_single_picture_is_never_answered_with_the_folder_around_it(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg")
    picture = str(tmp_path / "a/1.jpg")
    with pytest.raises(UserError, match=r"/a/1\.jpg is a single file, so its class is not known; --unlabelled is for"):
        images_to_evaluate(picture, ("a", "b"))
    with pytest.raises(UserError, match=r"/a/1\.jpg is a single file, .*; expected <class>/<image>, or train/"):
        images_to_train_on(picture, 10, 0)


@pytest.mark.parametrize("name", ["train.rec", "data.lmdb", "set.tar.lz4"])
def test_a_file_of_an_unknown_kind_is_not_called_a_picture(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    for find in (
        lambda: images_to_train_on(str(tmp_path / name), 10, 0),
        lambda: images_to_evaluate(str(tmp_path / name), ()),
    ):
        with pytest.raises(UserError, match="is a file; specify the folder that contains it"):
            find()


def test_a_secret_in_an_address_of_images_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="contains a secret"):
        images_to_train_on("s3://user:topsecret@bucket/set.tar?signature=topsecret", 10, 0)
    printed = capsys.readouterr()
    assert "looking for images in s3://bucket/set.tar ..." in printed.out
    assert "topsecret" not in printed.out + printed.err


def test_a_file_instead_of_its_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"")
    with pytest.raises(UserError, match=r"x\.zip is a file; unpack it, and specify the folder"):
        listed(Storage.at(str(tmp_path / "x.zip")))


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no folder .*nowhere"):
        listed(Storage.at(str(tmp_path / "nowhere")))


IMAGENET_VAL = ["val/ILSVRC2012_val_00000001.JPEG", "val/ILSVRC2012_val_00000002.JPEG"]
KAGGLE_TABLE = (
    "ImageId,PredictionString\nILSVRC2012_val_00000001,n02 1 2 3 4 \nILSVRC2012_val_00000002,n01 1 2 3 4 n01 5\n"
)


def test_imagenets_validation_folder_without_classes_is_labelled_by_what_lies_beside_it(tmp_path: Path) -> None:
    root = make(tmp_path, "train/n01/1.JPEG", "train/n02/1.JPEG", *IMAGENET_VAL)
    with pytest.raises(UserError, match=r"val_00000001.JPEG: put ILSVRC2012_devkit_t12.tar.gz or LOC_val_solution.csv"):
        listed(root)
    root.write("LOC_val_solution.csv", KAGGLE_TABLE.encode("utf-8-sig"))
    assert [(file.image_id, file.label) for file in listed(root).splits["val"]] == [
        *zip(IMAGENET_VAL, (1, 0), strict=True)
    ]


def test_imagenets_validation_images_without_a_label_are_not_left_out(tmp_path: Path) -> None:
    root = make(tmp_path, "train/n01/1.JPEG", "train/n02/1.JPEG", *IMAGENET_VAL, "val/ILSVRC2012_val_00000003.JPEG")
    root.write("LOC_val_solution.csv", KAGGLE_TABLE.encode())
    with pytest.raises(UserError, match=r"^no label for val/ILSVRC2012_val_00000003.JPEG: .* does not name it"):
        listed(root)


def test_imagenets_validation_images_in_train_are_no_class(tmp_path: Path) -> None:
    loose = [name.replace("val/", "train/", 1) for name in IMAGENET_VAL]
    with pytest.raises(UserError, match="2 images lie directly in train/"):
        listed(make(tmp_path, "train/n01/1.JPEG", "val/n01/1.JPEG", *loose))


def test_kaggles_imagenet_is_found_where_kaggle_puts_it(tmp_path: Path) -> None:
    names = ["train/n01/1.JPEG", "train/n02/1.JPEG", *IMAGENET_VAL]
    root = make(tmp_path, *(f"ILSVRC/Data/CLS-LOC/{name}" for name in names))
    root.write("LOC_val_solution.csv", KAGGLE_TABLE.encode())
    reader, listing = images_to_train_on(root.root, 10, 0)
    assert [file.label for file in listing.splits["val"]] == [1, 0]
    assert reader.read(listing.splits["train"][0]) == b"x"


def test_validation_alone_can_be_evaluated(tmp_path: Path) -> None:
    listing = images_to_evaluate(make(tmp_path, "val/a/1.jpg", "val/b/1.jpg").root, ("b", "a"))[1]
    assert [file.label for file in listing.splits["val"]] == [1, 0]


def test_class_folders_for_training_and_test_alone_are_evaluated_on_test(tmp_path: Path) -> None:
    make(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/a/2.jpg", "test/b/2.jpg")
    listing = images_to_evaluate(str(tmp_path), ("a", "b")).listing
    assert [file.image_id for file in listing.splits["val"]] == ["test/a/2.jpg", "test/b/2.jpg"]
