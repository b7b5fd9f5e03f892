"""torchvision's data sets by name; they count as downloaded, since the machine may have no internet access."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.data.sources import images_to_train_on
from pipelines.errors import UserError

WORDNET_IDS = ("n01440764", "n02102040")


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
        ("FakeData", "has no downloadable data set of this name"),
        ("Imagenette?root=here", "root=here must be an absolute path"),
        ("EMNIST?split=letters&root=/tmp/none", "split cannot be set; train and val"),
        ("Imagenette?sise=160px&root=/tmp/none", "sise"),
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
