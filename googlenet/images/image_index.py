"""Index of the images in a shard: where each one lies in the file, so that one read of its own bytes returns it.

The index is in the shard's footer, so the two are written, copied and replaced together. Shards of earlier versions
have none.
"""

import base64
import binascii
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

INDEX = b"googlenet_image_index"
ENTRY = np.dtype([("offset", "<i8"), ("bytes", "<i4"), ("label", "<i4"), ("crc32", "<u4")])
CRC_BYTES = 4
# First bytes of an image, with which it is looked for.
PREFIX_BYTES = 64

Index = NDArray[Any]


def index_images(content: bytes, start: int, images: Sequence[bytes], labels: Sequence[int]) -> Index:
    """Return the index of ``images``, which ``content`` stores one after the other; it begins at ``start`` in the file.

    Raises:
        ValueError: an image is not in the content in one piece.
    """
    index = np.zeros(len(images), ENTRY)
    position = 0
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        offset = _find(content, image, position)
        if offset < 0:
            raise ValueError(f"image {row} is not stored in one piece")
        position = offset + len(image)
        index[row] = start + offset, len(image), label, zlib.crc32(image)
    return index


def encode_index(index: Index) -> bytes:
    """Return an index as a value for the footer."""
    entries = index.tobytes()
    return base64.b64encode(zlib.crc32(entries).to_bytes(CRC_BYTES, "little") + entries)


def _find(content: bytes, image: bytes, position: int) -> int:
    """Return the offset of an image from ``position`` on; -1 if it isn't there."""
    prefix = image[:PREFIX_BYTES]
    offset = content.find(prefix, position)
    while offset >= 0 and not content.startswith(image, offset):
        offset = content.find(prefix, offset + 1)
    return offset


def decode_index(footer: Mapping[bytes, bytes]) -> Index | None:
    """Return the index in the metadata of a footer; None if there is none.

    Raises:
        ValueError: it is damaged.
    """
    if INDEX not in footer:
        return None
    try:
        value = base64.b64decode(footer[INDEX], validate=True)
    except binascii.Error as error:
        raise ValueError("its index of images is damaged") from error
    checksum, entries = value[:CRC_BYTES], value[CRC_BYTES:]
    if zlib.crc32(entries) != int.from_bytes(checksum, "little"):
        raise ValueError("its index of images is damaged")
    return np.frombuffer(entries, ENTRY)


def check_image(image: bytes, entry: np.void, row: int) -> None:
    """Check an image that was read against its entry.

    Raises:
        ValueError: its length or checksum differs.
    """
    if len(image) != entry["bytes"]:
        raise ValueError(f"it ends within image {row}")
    if zlib.crc32(image) != entry["crc32"]:
        raise ValueError(f"the checksum of image {row} differs")
