"""The layout of a data set, as it is recognised from names."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """Kinds of layouts."""

    CLASS_FOLDERS = "class folders"
    WEBDATASET = "WebDataset archives"
    PARQUET = "Parquet files"
    IMAGENET = "ImageNet's archives"


@dataclass(frozen=True)
class Layout:
    """What the names in a data set say about it.

    Attributes:
        kind: how its images are stored.
        parts: by split (train, val and test, or ``UNSPLIT`` alone): its class folders, or its files. ImageNet's
            validation folder without classes is listed itself.
        description: what it is taken for, for the user.
        base: folder below the root to which parts and image ids are relative; empty for the root itself.
        hint: what to try if the classes are not those that were meant.
    """

    kind: Kind
    parts: Mapping[str, tuple[str, ...]]
    description: str
    base: str = ""
    hint: str = ""
