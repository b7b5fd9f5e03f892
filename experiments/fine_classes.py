"""Class folders divided into finer classes of photographs that look alike: 1,000 classes from ten.

    python -m experiments.fine_classes --data IMAGENETTE/train --out FINE --parts 100

Does a network start to learn a thousand classes? Random labels cannot say: nothing but memory lowers their loss. Here
each class is halved along the axis on which its photographs' thumbnails vary most, and so are its halves, until it has
as many parts as were asked for, of about as many photographs each. The labels then have to do with what is seen, if
only coarsely. ``FINE`` holds links to the photographs, which prepare_dataset.py reads like any class folders.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tyro
from PIL import Image

from pipelines.data.file_endings import is_picture
from pipelines.errors import UserError
from pipelines.run.litter import litter_in

THUMBNAIL_PX = 8


@dataclass(frozen=True)
class Arguments:
    """Divide each class of a folder into parts of photographs that look alike."""

    data: Path
    """Folder with one folder for each class."""
    out: Path
    """Folder to make, with one folder for each part."""
    parts: int = 100
    """Parts of each class."""


def is_photograph(path: Path) -> bool:
    """Return whether a file of a class folder is a picture, by its name."""
    return path.is_file() and is_picture(path.name) and not litter_in(path.name)


def thumbnail(path: Path) -> npt.NDArray[np.float32]:
    """Return the pixels of a photograph's thumbnail, in one row, from 0 to 1."""
    with Image.open(path) as image:
        small = image.convert("RGB").resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX)
        return np.asarray(small, np.float32).ravel() / 255


def parts_of(rows: npt.NDArray[np.float32], parts: int) -> Iterator[npt.NDArray[np.intp]]:
    """Yield the indices of the ``rows`` (N, D) of each part: halves along the axis of the largest variance, repeatedly.

    ``parts`` need not be a power of two: a side gets rows in proportion to the parts that it becomes. N is at
    least ``parts``, so that none is empty.
    """

    def divide(members: npt.NDArray[np.intp], parts: int) -> Iterator[npt.NDArray[np.intp]]:
        if parts == 1:
            yield members
            return
        centred = rows[members] - rows[members].mean(axis=0)
        axis = np.linalg.svd(centred, full_matrices=False)[2][0]
        order = members[np.argsort(centred @ axis, kind="stable")]
        left = parts // 2
        cut = round(len(order) * left / parts)
        yield from divide(order[:cut], left)
        yield from divide(order[cut:], parts - left)

    return divide(np.arange(len(rows)), parts)


def main(arguments: Arguments) -> None:
    """Write the folders of the parts.

    Raises:
        UserError: the folder to make exists, there are no class folders, or a class has fewer photographs than parts.
    """
    classes = sorted(path for path in arguments.data.glob("*") if path.is_dir())
    if not classes:
        raise UserError(f"{arguments.data} has no class folders")
    if arguments.out.exists():
        raise UserError(f"{arguments.out} exists: choose another --out, or remove it")
    members = {folder: sorted(path for path in folder.iterdir() if is_photograph(path)) for folder in classes}
    for folder, paths in members.items():
        if len(paths) < arguments.parts:
            raise UserError(f"{folder} has {len(paths)} photographs, fewer than --parts {arguments.parts}")
    for folder, paths in members.items():
        rows = np.stack([thumbnail(path) for path in paths])
        for number, part in enumerate(parts_of(rows, arguments.parts)):
            made = arguments.out / f"{folder.name}_{number:0{len(str(arguments.parts - 1))}d}"
            made.mkdir(parents=True)
            for index in part:
                (made / paths[index].name).symlink_to(paths[index].resolve())
    count, photographs = len(classes) * arguments.parts, sum(map(len, members.values()))
    print(f"{count} classes of {photographs:,} photographs in {arguments.out}")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
