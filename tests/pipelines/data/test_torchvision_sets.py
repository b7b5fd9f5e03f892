"""torchvision's data sets by name; they count as downloaded, since the machine may have no internet access."""

import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pipelines.data.listing import Listing
from pipelines.data.sources import images_to_train_on
from pipelines.data.torchvision_downloads import marked_until_complete
from pipelines.data.torchvision_sets import _class_names, _kept, _typed
from pipelines.errors import UserError
from tests.others_files import somebody_elses

WORDNET_IDS = ("n01440764", "n02102040")
EXTRACT = "torchvision.datasets.imagenette.download_and_extract_archive"
# As they lie in the archive.
FILES = [
    f"imagenette2/{split}/{cls}/{number}.JPEG" for split in ("train", "val") for cls in WORDNET_IDS for number in "12"
]


@pytest.mark.parametrize("options", ["", "?root=~nobody-of-this-name/data"])
def test_a_home_folder_that_is_not_known_is_told_with_another_place(
    options: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(UserError, match=r"there is no such home folder; name a folder with \?root=/FOLDER"):
        images_to_train_on(f"torchvision:FashionMNIST{options}", 10, 0)


def test_a_set_of_files_keeps_its_bytes(tmp_path: Path) -> None:
    written = {}
    for split in ("train", "val"):
        for wordnet_id in WORDNET_IDS:
            folder = tmp_path / "imagenette2-160" / split / wordnet_id
            folder.mkdir(parents=True)
            buffer = io.BytesIO()
            Image.new("RGB", (20, 30), (len(written), 0, 0)).save(buffer, "JPEG")
            (folder / "1.JPEG").write_bytes(buffer.getvalue())
            written[f"imagenette2-160/{split}/{wordnet_id}/1.JPEG"] = buffer.getvalue()
    reader, listing = images_to_train_on(f"torchvision:Imagenette?size=160px&root={tmp_path}", 10, 0)
    assert listing.classes == ("tench, Tinca tinca", "English springer, English springer spaniel")
    assert [len(listing.splits[split]) for split in ("train", "val")] == [2, 2]
    for files in listing.splits.values():
        assert {file.image_id: reader.read(file) for file in files}.items() <= written.items()
        assert [file.label for file in files] == [0, 1]


def test_a_set_of_pixels_is_kept_without_loss(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
    for part in ("train", "t10k"):
        header = b"\0\0\x08\x03" + np.array([3, 28, 28], ">i4").tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(
            b"\0\0\x08\x01" + np.array([3], ">i4").tobytes() + b"\x09\x00\x02"
        )
    reader, listing = images_to_train_on(f"torchvision:FashionMNIST?root={tmp_path}", 10, 0)
    assert listing.classes == ("T-shirt/top", "Pullover", "Ankle boot")  # of ten classes, those that have images
    for files in listing.splits.values():
        assert [file.label for file in files] == [2, 0, 1]
        decoded = [np.asarray(Image.open(io.BytesIO(reader.read(file)))) for file in files]
        assert np.array_equal(np.stack(decoded), pixels)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Imagenet21k", "has no downloadable data set of this name"),
        ("FakeData", r"has no downloadable data set of this name \(try Imagenette\)"),
        ("cifar10", r"has no downloadable data set of this name \(did you mean CIFAR10\?\)"),
        ("Imagenette?root=", "root is empty; is a shell variable unset"),
        ("Imagenette?root=here", "root=here must be an absolute path"),
        ("EMNIST?split=letters&root=/tmp/none", "split cannot be set; train and val"),
        ("Imagenette?sise=160px&root=/tmp/none", "sise"),
        ("CIFAR10?train=False&root=/tmp/none", "train cannot be set; train and val"),
        ("Omniglot?background=maybe&root=/tmp/none", "background must be true or false, got 'maybe'"),
        ("DTD?partition=two&root=/tmp/none", "partition must be a whole number, got 'two'"),
    ],
)
def test_what_cannot_be_meant_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        images_to_train_on(f"torchvision:{name}", 10, 0)


def test_a_set_that_names_two_classes_alike_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cranes = {"n02012849": ("crane",), "n03126707": ("crane",)}  # the bird and the machine, as in lists of ImageNet
    monkeypatch.setattr("torchvision.datasets.imagenette.Imagenette._WNID_TO_CLASS", cranes)
    for split in ("train", "val"):
        for wordnet_id in cranes:
            folder = tmp_path / "imagenette2" / split / wordnet_id
            folder.mkdir(parents=True)
            (folder / "1.JPEG").write_bytes(b"x")
    with pytest.raises(UserError, match=r"names 2 classes crane \(labels 0, 1\): each needs a name of its own"):
        images_to_train_on(f"torchvision:Imagenette?root={tmp_path}", 10, 0)


def test_options_have_the_types_of_the_data_set() -> None:
    from torchvision import datasets  # takes three seconds, and most processes of the suite do without it

    typed = _typed({"background": "False"}, datasets.Omniglot, "x")
    assert typed == {"background": False}
    assert _typed({"small": "yes"}, datasets.Places365, "x") == {"small": True}
    assert _typed({"partition": "2"}, datasets.DTD, "x") == {"partition": 2}
    assert _typed({"size": "160px"}, datasets.Imagenette, "x") == {"size": "160px"}


def test_cats_and_dogs_have_their_own_names() -> None:
    pets = SimpleNamespace(classes=["Abyssinian", "American Bulldog"], bin_classes=["Cat", "Dog"])
    assert _class_names(pets) == ("Abyssinian", "American Bulldog")
    pets._target_types = ["binary-category"]
    assert _class_names(pets) == ("Cat", "Dog")


def unpack(folder: str, files: list[str]) -> None:
    for name in files:
        path = Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def extracting(most: int) -> Callable[..., None]:
    """Return torchvision's extraction, killed after ``most`` files."""

    def extract(_url: str, folder: str, **_: object) -> None:
        (Path(folder) / "imagenette2.tgz").write_bytes(b"the archive")
        unpack(folder, FILES[:most])
        if most < len(FILES):
            raise KeyboardInterrupt

    return extract


def listed(data: str) -> Listing:
    return images_to_train_on(data, 10, 0).listing


def ids(listing: Listing) -> list[str]:
    return sorted(file.image_id for files in listing.splits.values() for file in files)


@pytest.mark.parametrize("most", [3, 6])  # without a validation split, and within it
def test_a_download_that_was_killed_while_it_was_unpacked_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], most: int
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(EXTRACT, extracting(most))
    with pytest.raises(KeyboardInterrupt):
        listed("torchvision:Imagenette")
    monkeypatch.setattr(EXTRACT, extracting(len(FILES)))
    assert ids(listed("torchvision:Imagenette")) == FILES
    assert "was interrupted and begins anew" in capsys.readouterr().out
    # What had come may be a user's, who has fetched it by other means meanwhile.
    [kept] = tmp_path.rglob("imagenette2.tgz.interrupted-*")
    assert kept.read_bytes() == b"the archive"
    monkeypatch.setattr(EXTRACT, extracting(0))
    assert ids(listed("torchvision:Imagenette")) == FILES
    assert "interrupted" not in capsys.readouterr().out


def test_what_a_killed_download_left_in_a_folder_of_the_users_is_named_and_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    data = f"torchvision:Imagenette?root={tmp_path}"
    monkeypatch.setattr(EXTRACT, extracting(6))
    with pytest.raises(KeyboardInterrupt):
        listed(data)
    monkeypatch.setattr(EXTRACT, extracting(len(FILES)))
    with pytest.raises(
        UserError, match=r"was interrupted.*: delete imagenette2, imagenette2\.tgz there, or \.googlenet_download if"
    ):
        listed(data)
    for path in sorted((tmp_path / "imagenette2").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (tmp_path / "imagenette2").rmdir()
    (tmp_path / "imagenette2.tgz").unlink()
    assert ids(listed(data)) == FILES
    assert (tmp_path / "photos").is_dir()


def test_a_set_that_was_there_before_an_interruption_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpack(str(tmp_path), FILES)
    data = f"torchvision:Imagenette?root={tmp_path}"

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("pipelines.data.torchvision_sets._open", interrupted)
        listed(data)
    assert ids(listed(data)) == FILES


def test_a_set_that_may_only_be_read_is_used(tmp_path: Path) -> None:
    unpack(str(tmp_path / "sets"), FILES)
    listed(f"torchvision:Imagenette?root={tmp_path / 'sets'}")  # imports torchvision
    (tmp_path / "sets/.googlenet_download").unlink()
    with somebody_elses(tmp_path / "sets") as folder:
        assert ids(listed(f"torchvision:Imagenette?root={folder}")) == FILES


def test_two_commands_may_keep_one_picture_at_once(tmp_path: Path) -> None:
    class SavedMeanwhile:
        """A picture that another command keeps while it is saved here."""

        def save(self, path: Path, encoding: str) -> None:
            Image.new("L", (2, 2)).save(path, encoding)
            _kept(Image.new("L", (2, 2)), tmp_path / "0.png")

    assert Image.open(_kept(SavedMeanwhile(), tmp_path / "0.png")).size == (2, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["0.png"]


def test_what_a_user_adds_after_a_download_that_left_nothing_is_the_users(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError), marked_until_complete(tmp_path, "x", is_own=True):
        raise ConnectionError
    (tmp_path / "imagenette2.tgz").write_bytes(b"mine")
    with marked_until_complete(tmp_path, "x", is_own=True):
        pass
    assert (tmp_path / "imagenette2.tgz").read_bytes() == b"mine"
