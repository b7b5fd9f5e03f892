"""Recognition of data sets from their names: layouts that people have, what they are taken for, and those refused."""

import pytest

from pipelines.data.folder_tree import Tree
from pipelines.data.layout import Kind, Layout
from pipelines.data.recognition import recognise
from pipelines.errors import UserError
from pipelines.run.storage import Storage


def recognised(names: str) -> Layout:
    return recognise(Tree.of_names(names.split()), Storage("/data"))


@pytest.mark.parametrize(
    ("names", "parts", "description"),
    [
        ("cat/1.jpg dog/2.jpg", {"": ("cat", "dog")}, "class folders: cat, dog"),
        ("cat/a/b/1.jpg dog/2.HEIC", {"": ("cat", "dog")}, "class folders: cat, dog"),
        ("cat/0a1b dog/2c3d", {"": ("cat", "dog")}, "class folders: cat, dog"),  # names without an ending
        (
            "train/cat/1.jpg train/dog/2.jpg val/cat/3.jpg",
            {"train": ("train/cat", "train/dog"), "val": ("val/cat",)},
            "class folders in train/ and val/: cat, dog",
        ),
        ("train/a/1.jpg train/b/2.jpg", {"train": ("train/a", "train/b")}, "class folders in train/: a, b"),
        ("test/a/1.jpg test/b/2.jpg", {"test": ("test/a", "test/b")}, "class folders in test/: a, b"),
        # Pictures of a test set without labels, and a folder that others link to, are beside the data set.
        ("train/a/1.jpg train/b/2.jpg test1/3.jpg", {"train": ("train/a", "train/b")}, "class folders in train/: a, b"),
        ("train/a/1.jpg train/b/2.jpg pool/1.jpg", {"train": ("train/a", "train/b")}, "class folders in train/: a, b"),
        # A folder without pictures is no class, nor is one that a system, a drive or a tool left.
        ("n1/1.JPEG n2/1.JPEG ILSVRC2012_devkit_t12/COPYING", {"": ("n1", "n2")}, "class folders: n1, n2"),
        ("cat/1.jpg dog/2.jpg xml/1.xml docs/README", {"": ("cat", "dog")}, "class folders: cat, dog"),
        ("cat/1.jpg dog/2.jpg @eaDir/1.jpg cat/@eaDir/1.jpg/M.jpg", {"": ("cat", "dog")}, "class folders: cat, dog"),
        # Archives beside what was unpacked from them.
        ("cat/1.jpg dog/2.jpg backup.tar old.parquet", {"": ("cat", "dog")}, "class folders: cat, dog"),
    ],
)
def test_folders_of_pictures_are_classes(names: str, parts: dict[str, tuple[str, ...]], description: str) -> None:
    layout = recognised(names)
    assert (layout.kind, layout.parts, layout.description) == (Kind.CLASS_FOLDERS, parts, description)


def test_one_class_may_have_folders_with_the_names_of_splits(capsys: pytest.CaptureFixture[str]) -> None:
    layout = recognised("food/1.jpg food/2.jpg music/1.jpg sport/training/1.jpg sport/test/1.jpg")
    assert layout.parts == {"": ("food", "music", "sport")}
    told = "data: test/ and training/ in sport/ are not taken for splits, since food, music have none"
    assert told in capsys.readouterr().out


@pytest.mark.parametrize("litter", [
    ".DS_Store", "Thumbs.db", "desktop.ini", "._1.jpg", "@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", ".git/objects/1.jpg",
    "__MACOSX/cat/._1.jpg", "lost+found/1.jpg", ".ipynb_checkpoints/1.jpg", "$RECYCLE.BIN/1.jpg", "#recycle/1.jpg",
    "System Volume Information/1.jpg", ".hidden/1.jpg", "__pycache__/1.pyc", ".thumbnails/1.png", "@Recycle/1.jpg",
    "Icon\\x0d",
])  # fmt: skip
def test_litter_is_neither_a_class_nor_an_image(litter: str) -> None:
    names = ["cat/1.jpg", "dog/1.jpg", litter, f"cat/{litter}"]
    tree = Tree.of_names(names)
    assert tree.files == ("cat/1.jpg", "dog/1.jpg")
    assert len(tree.litter) == 2
    assert recognise(tree, Storage("/data")).parts == {"": ("cat", "dog")}


@pytest.mark.parametrize(
    ("words", "split"),
    [
        (("train", "training", "Train", "TRAIN", "train_images", "training-set", "train2017"), "train"),
        (("trainset", "TrainImages", "TrainingSet", "trainData", "TRAINSET", "train_dataset", "trainimgs"), "train"),
        (("val", "valid", "validation", "dev", "Val", "val2017", "validation_set"), "val"),
        (("test", "test1", "testing", "test_images", "Test", "testset", "TestSet", "evalset"), "test"),
        (("valset", "ValidationImages", "devset"), "val"),
    ],
)
def test_a_split_folder_is_known_by_its_name(words: tuple[str, ...], split: str) -> None:
    for word in words:
        assert recognised(f"{word}/a/1.jpg {word}/b/1.jpg").parts == {split: (f"{word}/a", f"{word}/b")}
        with pytest.raises(UserError, match=rf"1 image lies directly in {word}/, beside nok/ and ok/"):
            recognised(f"ok/1.jpg nok/1.jpg {word}/1.jpg")


@pytest.mark.parametrize("name", [
    "trainer", "retrained", "contest", "valley", "devices", "train_station", "latest", "TrainStation", "setting",
    "testsetting", "valued", "TEST_TUBE", "TestTube",
])  # fmt: skip
def test_a_class_whose_name_merely_begins_like_a_split_is_a_class(name: str) -> None:
    assert recognised(f"{name}/1.jpg bus/2.jpg").parts == {"": tuple(sorted(["bus", name]))}


@pytest.mark.parametrize(
    ("names", "kind", "parts", "description"),
    [
        ("train-0.tar val-0.tar", Kind.WEBDATASET, {"train": ("train-0.tar",), "val": ("val-0.tar",)},
         "1 WebDataset archive for training, 1 for validation"),
        ("train/0000.tar train/0001.tar val/0000.tar", Kind.WEBDATASET,
         {"train": ("train/0000.tar", "train/0001.tar"), "val": ("val/0000.tar",)},
         "2 WebDataset archives in train/, 1 in val/"),
        ("train-0.tar extra.tar", Kind.WEBDATASET, {"train": ("train-0.tar",)}, "1 WebDataset archive for training"),
        ("train/train-0.tar val/val-0.tar", Kind.WEBDATASET,
         {"train": ("train/train-0.tar",), "val": ("val/val-0.tar",)},
         "1 WebDataset archive in train/, 1 in val/"),
        ("x-train/a/0.tar x-train/b/0.tar x-val/a/0.tar", Kind.WEBDATASET,
         {"train": ("x-train/a/0.tar", "x-train/b/0.tar"), "val": ("x-val/a/0.tar",)},
         "2 WebDataset archives in x-train/, 1 in x-val/"),
        ("00000.tar 00000.parquet 00000_stats.json 00001.tar 00001.parquet", Kind.WEBDATASET,
         {"": ("00000.tar", "00001.tar")}, "2 WebDataset archives"),
        ("metadata.parquet x-train-0.tar", Kind.WEBDATASET, {"train": ("x-train-0.tar",)},
         "1 WebDataset archive for training"),
        ("blood-test-photos-train.tar", Kind.WEBDATASET, {"train": ("blood-test-photos-train.tar",)},
         "1 WebDataset archive for training"),
        ("blood-test-train-00000-of-00002-ab12cd.parquet", Kind.PARQUET,
         {"train": ("blood-test-train-00000-of-00002-ab12cd.parquet",)}, "1 Parquet file for training"),
        ("data/train-0-of-1.parquet data/test-0-of-1.parquet README.md", Kind.PARQUET,
         {"train": ("data/train-0-of-1.parquet",), "test": ("data/test-0-of-1.parquet",)},
         "1 Parquet file for training in data/, 1 for test in data/"),
        ("mnist/train-0.parquet mnist/test-0.parquet", Kind.PARQUET,
         {"train": ("mnist/train-0.parquet",), "test": ("mnist/test-0.parquet",)},
         "1 Parquet file for training in mnist/, 1 for test in mnist/"),
        ("plain_text/train-0.parquet", Kind.PARQUET, {"train": ("plain_text/train-0.parquet",)},
         "1 Parquet file for training in plain_text/"),
        ("default/train/0000.parquet default/validation/0000.parquet", Kind.PARQUET,
         {"train": ("default/train/0000.parquet",), "val": ("default/validation/0000.parquet",)},
         "1 Parquet file in default/train/, 1 in default/validation/"),
        ("default/partial-train/0000.parquet", Kind.PARQUET, {"train": ("default/partial-train/0000.parquet",)},
         "1 Parquet file in default/partial-train/"),
        ("data/train-0.parquet assets/logo.png .gitattributes", Kind.PARQUET, {"train": ("data/train-0.parquet",)},
         "1 Parquet file for training in data/"),
        ("repository/data/train-0.parquet repository/assets/logo.png", Kind.PARQUET,
         {"train": ("data/train-0.parquet",)}, "1 Parquet file for training in data/; in repository/"),
        ("ILSVRC2012_img_val.tar ILSVRC2012_devkit_t12.tar.gz", Kind.IMAGENET, {"val": ("ILSVRC2012_img_val.tar",)},
         "ImageNet's archives: ILSVRC2012_img_val.tar"),
        ("imagenet/ILSVRC2012_img_val.tar", Kind.IMAGENET, {"val": ("ILSVRC2012_img_val.tar",)},
         "ImageNet's archives: ILSVRC2012_img_val.tar; in imagenet/"),
    ],
)  # fmt: skip
def test_archives_and_tables_are_found_where_people_have_them(
    names: str, kind: Kind, parts: dict[str, tuple[str, ...]], description: str
) -> None:
    layout = recognised(names)
    assert (layout.kind, layout.parts, layout.description) == (kind, parts, description)


def test_a_folder_around_the_data_set_is_entered_where_that_is_certain() -> None:
    layout = recognised("photos/train/a/1.jpg photos/train/b/1.jpg photos/val/a/1.jpg notes.txt")
    assert (layout.base, layout.parts["train"]) == ("photos", ("train/a", "train/b"))
    layout = recognised("Training/train/n1/1.JPEG Training/train/n2/1.JPEG Training/val/ILSVRC2012_val_00000001.JPEG")
    assert (layout.base, layout.parts["val"]) == ("Training", ("val",))
    layout = recognised("PetImages/Cat/1.jpg PetImages/Dog/1.jpg")
    assert (layout.base, layout.parts) == ("", {"": ("PetImages",)})
    assert layout.hint == "if Cat, Dog are the classes, specify /data/PetImages"


@pytest.mark.parametrize(
    "names",
    [
        "bullet_train/1.jpg test_tube/1.jpg",
        "part/1.jpg whole/1.jpg",
        "batch_1/1.jpg other/1.jpg",
        "mask/1 no/1",
        "batch1_ok/1.jpg batch1_defect/1.jpg",
        "part_1001/1.jpg part_1002/1.jpg",
        "part1/1.jpg part3/1.jpg",
    ],
)
def test_classes_with_such_words_in_their_names_are_classes(names: str) -> None:
    folders = sorted(name.partition("/")[0] for name in names.split())
    assert recognised(names).parts == {"": tuple(folders)}


def test_folders_with_the_same_folders_in_them_are_classes_unless_a_name_is_like_that_of_a_split() -> None:
    # A class may have a folder train, without other splits; and other splits, without train.
    assert recognised("toys/train/a/1.jpg toys/bus/1.jpg cat/train/1.jpg").parts == {"": ("cat", "toys")}
    assert recognised("blood/test/1.jpg blood/val/1.jpg urine/test/1.jpg").parts == {"": ("blood", "urine")}
    names = "apple/red/1.jpg apple/green/1.jpg pear/red/1.jpg pear/green/1.jpg valley/a/1.jpg valley/b/1.jpg"
    assert recognised(names).parts == {"": ("apple", "pear", "valley")}
    # Ends and beginnings of words say nothing unless they are of two splits, one of them for training.
    for one, other in (("strain_A", "strain_B"), ("buses", "trains"), ("contest", "protest"), ("medieval", "modern")):
        layout = recognised(f"{one}/a/1.jpg {one}/b/1.jpg {other}/a/1.jpg {other}/b/1.jpg")
        assert layout.description == f"class folders: {one}, {other}"


def test_parts_that_are_classes_may_be_said_to_be() -> None:
    masks = recognised("train/images/1.jpg train/masks/1.jpg")
    assert masks.parts == {"train": ("train/images", "train/masks")}
    assert recognised("train/fold1/1.jpg train/fold2/1.jpg").parts == {"train": ("train/fold1", "train/fold2")}


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        ("food-101/images/pie/1.jpg food-101/images/ribs/1.jpg", "if pie, ribs are the classes, specify /data/food"),
        ("a/a/glass/1.jpg a/a/paper/1.jpg", "if glass, paper are the classes, specify /data/a/a"),
        ("training_set/training_set/cats/1.jpg training_set/training_set/dogs/1.jpg test_set/test_set/cats/1.jpg",
         "if cats, dogs are the classes, move them from training_set/training_set/ into training_set/"),
        ("train/a/1.jpg train/a/x/1.jpg train/a/y/1.jpg val/a/1.jpg", "if x, y are the classes, move them from train"),
        ("train/images/1.jpg val/images/1.jpg", ""),
    ],
)  # fmt: skip
def test_the_only_class_folder_may_hold_the_classes_at_any_depth(names: str, hint: str) -> None:
    found = recognised(names).hint
    assert found.startswith(hint)
    assert bool(found) == bool(hint)


def test_a_folder_of_pictures_beside_a_table_is_no_class_folder() -> None:
    assert "labels in a table are not read" in recognised("images/1.jpg images/2.jpg labels.csv").hint


def test_numbers_of_a_camera_are_not_taken_for_classes_in_names() -> None:
    with pytest.raises(UserError) as refused:
        recognised("IMG_1.jpg IMG_2.jpg IMG_3.jpg")
    assert "begin with their classes" not in str(refused.value)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("train/cat.0.jpg val/dog.1.jpg", "2 images lie directly in train/ and val/; expected <class>/<image>"),
        ("train/cat.0.jpg test1/1.jpg", "2 images lie directly in test1/ and train/; expected"),
        ("train/a/1.jpg train/b/1.jpg val/1.jpg", "1 image lies directly in val/; expected"),
        ("photos/train/1.jpg photos/val/1.jpg", "no class folders in /data/photos: 2 images lie directly in train/"),
        (
            "ok/1.jpg nok/1.jpg test/1.jpg",
            "if test/ is the test split, it needs a folder for each class, and the others belong into train/; if it",
        ),
        ("ok/1.jpg nok/1.jpg test/ok/1.jpg test/nok/1.jpg", "has test/ beside nok/ and ok/; if test/ is the test"),
        ("cat/1.jpg test/cat/1.jpg", "has test/ beside cat/; if test/ is the test split"),
        ("train/1.jpg bus/1.jpg", "directly in train/, beside bus/; if train/ is the training split"),
        ("train/steam/1.jpg train/diesel/1.jpg bus/1.jpg car/1.jpg", "has train/ beside bus/ and car/"),
        (
            "cat/train/1.jpg cat/test/1.jpg dog/train/1.jpg dog/test/1.jpg",
            r"has test/ and train/ in cat/ and dog/: .* put the split first \(train/cat/ instead of cat/train/\)",
        ),
        (
            "data/train/a/1.jpg data/train/b/1.jpg data/val/a/1.jpg figures/x.png",
            "has train/ and val/ in data/: if the data set is in one folder, specify it, such as /data/data;",
        ),
        ("data/train/a/1.jpg data/val/a/1.jpg docs/1.jpg figures/x.png", "has train/ and val/ in data/: "),
        ("data/train/a/1.jpg data/train/b/1.jpg figures/x.png", "has train/ in data/: .* such as /data/data;"),
        ("train/a/1.jpg val/a/1.jpg validation/a/1.jpg", "val/ and validation/, both for validation"),
        ("a/train-0.parquet b/train-0.parquet", "several data sets, in a/, b/: specify one of them, such as /data/a"),
        ("a.parquet b.tar", r"1 tar archive \(b.tar\) and 1 Parquet file \(a.parquet\): keep only the data set there"),
        ("train-0.parquet train-0.tar", r"1 tar archive \(train-0.tar\) and 1 Parquet file \(train-0.parquet\)"),
        ("train-for-the-test.tar", "train-for-the-test.tar names more than one split"),
        ("cat/1.jpg dog/1.jpg data/train.parquet", "pictures in cat/ and dog/, and .* in data/: specify /data/data if"),
        ("train/a/1.jpg ILSVRC2012_img_val.tar", "train as a folder, val as an archive"),
        ("1.jpg 2.jpg", "2 images lie directly in it"),
        ("1.jpg 2.jpg old-backup.zip", "2 images lie directly in it"),
        ("train/a/1.jpg train/b/1.jpg val/1.jpg val/2.jpg val/a/3.jpg", "most .* in no class folder: 2 images lie dir"),
        ("split1/cat/1.jpg split1/dog/1.jpg split2/cat/1.jpg split2/dog/1.jpg", "suggest parts of a data set"),
        ("set1/1.jpg set2/1.jpg", "has set1/, set2/, whose names suggest parts of a data set"),
        ("photos.zip", r"unpack photos\.zip first"),
        ("photos.z01 photos.z02 photos.zip", r"unpack photos\.zip first"),
        ("photos.r00 photos.rar", r"unpack photos\.rar first"),
        ("notes.txt docs/notes.txt", r"no images in /data: it has files of other kinds \(2 txt\); expected"),
        ("", "no images in /data: it is empty; expected"),
        ("train/data-00000.arrow dataset_dict.json", r"other kinds \(1 arrow, 1 json\)"),
        ("cat/1.mp4 dog/1.MOV", r"no images in /data: it has files of other kinds \(1 mov, 1 mp4\)"),
        # Labels in names, and in a table.
        (
            "cat.0.jpg cat.1.jpg dog.0.jpg dog.1.jpg",
            r"4 images lie directly in it; .* begin with their classes \(cat, dog\)",
        ),
        ("train/cat.0.jpg train/cat.1.jpg train/dog.0.jpg train/dog.1.jpg test1/1.jpg", r"their classes \(cat, dog\)"),
        ("great_pyrenees_1.jpg great_pyrenees_2.jpg pug_1.jpg pug_2.jpg", r"their classes \(great_pyrenees, pug\)"),
        ("1.jpg 2.jpg labels.csv", r"labels in a table are not read: docs/data\.md .* \(labels\.csv\)"),
        (
            r"train\cat\1.jpg train\dog\1.jpg",
            r"names have backslashes \(train\\cat\\1\.jpg\), as from an archive made on Windows: unpack it again",
        ),
        (
            "00000/1.jpg 00000.parquet 00001/2.jpg 00001.parquet",
            "as img2dataset writes them: such folders .* are parts",
        ),
        # Data sets as they are downloaded: splits with a name before them, numbered parts, kinds of files.
        (
            "seg_train/seg_train/sea/1.jpg seg_test/seg_test/sea/1.jpg seg_pred/seg_pred/1.jpg",
            "has seg_test/, seg_train/, whose names suggest training and test splits: rename them to train/, val/ and",
        ),
        ("asl_alphabet_train/x/A/1.jpg asl_alphabet_test/x/A_test.jpg", "has asl_alphabet_test/, asl_alphabet_train/"),
        ("pets-train/a/1.jpg pets-val/a/1.jpg", "has pets-train/, pets-val/, whose names suggest training and"),
        ("HAM10000_images_part_1/1.jpg HAM10000_images_part_2/1.jpg m.csv", "parts of a data set: put their pictures"),
        ("fold1/a/1.jpg fold1/b/1.jpg fold2/a/1.jpg", "has fold1/, fold2/, whose names suggest parts of a data set"),
        ("SegTrain/sea/1.jpg SegTest/sea/1.jpg", "has SegTest/, SegTrain/, whose names suggest training and test"),
        # By what is in them, whatever the names; one may lack a class.
        (
            "mytrain/cat/1.jpg mytrain/dog/1.jpg mytest/cat/1.jpg mytest/dog/1.jpg",
            "has mytest/, mytrain/, each with the folders cat, dog, so they seem to be parts .*: rename them to train/",
        ),
        ("mytrain/cat/1.jpg mytrain/dog/1.jpg mytrain/owl/1.jpg mytest/cat/1.jpg mytest/emu/1.jpg", "has mytest/, my"),
        ("mytrain/cat/1.jpg mytrain/dog/1.jpg mytest/cat/1.jpg", "has mytest/, mytrain/, each with the folders cat,"),
        (
            "train/images/1.jpg train/masks/1.png val/images/1.jpg val/masks/1.png",
            "has images/, masks/ in train/, val/, whose names suggest kinds .* classes, rename them, or move val/",
        ),
        (
            "Images/a/1.jpg Images/b/1.jpg masks/a/1.png annotations/a/1.png",
            r"kinds of files: if .* specify it, such as /data/Images; if they",
        ),
    ],
)
def test_a_doubtful_layout_is_refused_with_the_fix(names: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        recognised(names)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 400
