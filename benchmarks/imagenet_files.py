"""ImageNet's archives in its layout and sizes, generated: with images, or with holes in their place.

Archives with holes take 4 KB of disk an image, so that all 1.28 million fit; their images can be listed, not decoded.
"""

import csv
import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.data.imagenet import KAGGLE, TRAIN_ARCHIVE, VAL_ARCHIVE, VALIDATION_IMAGE

CLASSES = 1000
TRAINING_IMAGES, VALIDATION_IMAGES = 1_281_167, 50_000
MEAN_BYTES = 110_000
END_BYTES = 2 * tarfile.BLOCKSIZE


@dataclass(frozen=True)
class Member:
    """A file in an archive; ``data`` is None for a hole of ``num_bytes``."""

    name: str
    num_bytes: int
    data: bytes | None = None

    @property
    def header(self) -> bytes:
        """The block before the file."""
        info = tarfile.TarInfo(self.name)
        info.size = self.num_bytes
        return info.tobuf(tarfile.USTAR_FORMAT)

    @property
    def padded_bytes(self) -> int:
        """The size in whole blocks."""
        return -(-self.num_bytes // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def class_names() -> list[str]:
    """Return names like ImageNet's, in order."""
    return [f"n{1_440_764 + 1000 * label:08d}" for label in range(CLASSES)]


def write_archives(folder: Path, training: int, validation: int, encoded: Sequence[bytes] = ()) -> None:
    """Write both archives, and the table of the validation images' classes.

    Args:
        folder: where to write.
        training: number of training images.
        validation: number of validation images.
        encoded: images, repeated as needed; holes without them.
    """
    sizes = np.random.default_rng(0).gamma(4, MEAN_BYTES / 4, training + validation).astype(int) + 1000
    names = class_names()[:training]
    counts = [training // len(names) + (label < training % len(names)) for label in range(len(names))]
    with (folder / TRAIN_ARCHIVE).open("wb") as archive:
        for label, count in enumerate(counts):
            first = sum(counts[:label])
            members = list(_members(f"{names[label]}_{{}}.JPEG", range(first, first + count), sizes, encoded))
            inside = sum(tarfile.BLOCKSIZE + member.padded_bytes for member in members) + END_BYTES
            archive.write(Member(f"{names[label]}.tar", inside).header)
            _write_members(archive, members)
        archive.truncate(archive.seek(END_BYTES, io.SEEK_CUR))
    with (folder / VAL_ARCHIVE).open("wb") as archive:
        numbers = range(1, validation + 1)
        _write_members(archive, list(_members(f"{VALIDATION_IMAGE}.JPEG", numbers, sizes[training - 1 :], encoded)))
    with (folder / KAGGLE).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["ImageId", "PredictionString"])
        table.writerows(
            [VALIDATION_IMAGE.format(number), f"{names[number % len(names)]} 0 0 1 1"] for number in numbers
        )


def _members(pattern: str, numbers: Sequence[int], sizes: np.ndarray, encoded: Sequence[bytes]) -> Iterator[Member]:
    for number in numbers:
        data = encoded[number % len(encoded)] if encoded else None
        yield Member(pattern.format(number), int(sizes[number]) if data is None else len(data), data)


def _write_members(archive: io.BufferedWriter, members: Sequence[Member]) -> None:
    """Write members, and the end of their archive, from the current position on."""
    for member in members:
        archive.write(member.header)
        if member.data:
            archive.write(member.data)
        archive.seek(member.padded_bytes - len(member.data or b""), io.SEEK_CUR)
    archive.truncate(archive.seek(END_BYTES, io.SEEK_CUR))
