"""Archives and Parquet files as they are published: tars in memory, ImageNet's files, Hugging Face's data sets."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.io
from PIL import Image

from pipelines.data.imagenet import DEVKIT, META, TRAIN_ARCHIVE, TRUTH, VAL_ARCHIVE
from tests.picture_files import encode

CLASSES = ("n01440764", "n01443537", "n02105855")
# The kit numbers classes in its own order, not in that of their WordNet ids.
KIT_NUMBERS = {"n02105855": 1, "n01440764": 2, "n01443537": 3}


def tar(members: Mapping[str, bytes], mode: str = "w", **options: object) -> bytes:
    """Return an archive of ``members`` by name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, **options) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def picture(seed: int, mode: str = "RGB", encoding: str = "JPEG", orientation: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    return encode(Image.fromarray(pixels).convert(mode), encoding, exif=exif)


def devkit() -> bytes:
    table = np.zeros(len(CLASSES), [("ILSVRC2012_ID", int), ("WNID", object), ("words", object)])
    for row, (wordnet_id, number) in zip(table, KIT_NUMBERS.items(), strict=True):
        row["ILSVRC2012_ID"], row["WNID"], row["words"] = number, wordnet_id, "a, b"
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": table})
    return tar({TRUTH: b"2\n1\n3\n", META: meta.getvalue()}, "w:gz")


def write_imagenet(folder: Path) -> dict[str, bytes]:
    """Write the archives with the known oddities; return each image by its expected id."""
    images = {
        "train/n01440764/n01440764_1.JPEG": picture(1),
        "train/n01440764/n01440764_2.JPEG": picture(2, "CMYK"),
        "train/n01443537/n01443537_1.JPEG": picture(3, "L"),
        "train/n02105855/n02105855_2933.JPEG": picture(4, encoding="PNG"),
        "train/n02105855/n02105855_2.JPEG": picture(5, orientation=6),
        "val/n01440764/ILSVRC2012_val_00000001.JPEG": picture(6),
        "val/n02105855/ILSVRC2012_val_00000002.JPEG": picture(7),
        "val/n01443537/ILSVRC2012_val_00000003.JPEG": picture(8),
    }
    inner = {
        f"{cls}.tar": tar({i.split("/")[2]: d for i, d in images.items() if i.startswith(f"train/{cls}/")})
        for cls in reversed(CLASSES)
    }
    folder.mkdir(exist_ok=True)
    (folder / TRAIN_ARCHIVE).write_bytes(tar(inner))
    (folder / VAL_ARCHIVE).write_bytes(tar({i.split("/")[2]: d for i, d in images.items() if i.startswith("val/")}))
    (folder / f"{DEVKIT}.tar.gz").write_bytes(devkit())
    return images


def hugging_face(
    path: Path, images: list[bytes], labels: list[Any], names: list[str], column: str = "label", **others: list[Any]
) -> None:
    table = pa.table({"image": [{"bytes": data, "path": None} for data in images], column: labels, **others})
    features = {"image": {"_type": "Image"}, column: {"_type": "ClassLabel", "names": names}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=2)
