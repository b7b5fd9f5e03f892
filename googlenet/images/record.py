"""One stored image, and the interface of many of them; free of pyarrow."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Record:
    """One stored image: ``image`` holds the original file's bytes."""

    image_id: str
    image: bytes
    label: int


@runtime_checkable
class RecordsByIndex(Protocol):
    """Records of one split; :class:`googlenet.images.records.Records` reads them from shards."""

    def __len__(self) -> int:
        """Return the number of records."""

    def __getitem__(self, index: int) -> Record:
        """Return record ``index``."""

    def labelled_image(self, index: int) -> tuple[bytes, int]:
        """Return the bytes of an image and its label, which costs less than a record."""

    def share_cache(self, processes: int) -> None:
        """Divide the memory for records among ``processes`` processes that read in parallel."""
