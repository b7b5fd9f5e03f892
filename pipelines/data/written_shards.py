"""Result of writing a shard: what is in it, and what was left out."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class BadImage:
    """An image that is in no shard.

    Attributes:
        image_id: its id.
        reason: what is wrong with it.
        unreadable: whether it could not be read, so that it may be intact.
    """

    image_id: str
    reason: str
    unreadable: bool = False


@dataclass(frozen=True)
class WrittenShard:
    """A shard that was written.

    Attributes:
        images: number of images in it.
        counts: these by label, as text.
        digest: digest of their ids, labels and bytes.
        bad_images: those that were left out.
        notes: ids of stored images by what is peculiar about them; shards of earlier versions say nothing.
        contents: digits of the SHA-256 of each stored image, one after the other; neither do they say this.
    """

    images: int
    counts: Mapping[str, int]
    digest: str
    bad_images: Sequence[BadImage] = ()
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    contents: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "WrittenShard":
        """Inverse of :meth:`to_dict`."""
        return cls(**{**values, "bad_images": [BadImage(**bad) for bad in values["bad_images"]]})
