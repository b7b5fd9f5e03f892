"""Images in tar archives, read where they lie: an index from the headers alone, and a range of bytes an image.

Archives may come from strangers: names that lead out of the archive, links, devices, absurd numbers and sizes are
refused.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from googlenet.images.decoding import check_number_of_bytes
from pipelines.data.listing import ImageFile
from pipelines.errors import UserError
from pipelines.run.storage import Storage

# ImageNet's validation archive, the largest that is common, has 50,000.
MAX_MEMBERS = 500_000
# A header that tells of a longer name or the like is small; tarfile would read any size into memory.
MAX_HEADER_BYTES = 1 << 20
READ_AHEAD_BYTES = 1024


@dataclass(frozen=True)
class Member:
    """A file in an archive: its name, and where its bytes are in the archive."""

    name: str
    first_byte: int
    num_bytes: int


@dataclass
class TarImages:
    """Reads images from archives below a folder, by places as :func:`place_of` makes them."""

    root: Storage
    _open: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def read(self, image: ImageFile) -> bytes:
        """The member's bytes."""
        archive, _, span = image.place.rpartition("@")
        first, _, length = span.partition("+")
        check_number_of_bytes(int(length))
        if archive not in self._open:
            while self._open:  # neighbours are in one archive; a thousand open ones would be too many
                self._open.popitem()[1].close()
            self._open[archive] = self.root.filesystem.open_input_file(self.root.path(archive))
        data: bytes = self._open[archive].read_at(int(length), int(first))
        if len(data) != int(length):
            raise OSError(f"{self.root}/{archive} ends within it")
        return data

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "_open": {}}


def place_of(archive: str, member: Member) -> str:
    """Where :class:`TarImages` finds a member of ``archive``."""
    return f"{archive}@{member.first_byte}+{member.num_bytes}"


def read_index(root: Storage, archive: str, within: Member | None = None) -> list[Member]:
    """The files in ``archive``, or in the archive that is its member ``within``, in their order.

    Raises:
        UserError: it is no tar archive, cut off or damaged, compressed, or not to be trusted.
    """
    name = f"{root}/{archive}" + (f" ({within.name})" if within else "")
    with root.filesystem.open_input_file(root.path(archive)) as stream:
        first = within.first_byte if within else 0
        end = first + within.num_bytes if within else stream.size()
        headers = _Headers(stream, name)
        headers.seek(first)
        try:
            return list(_members(headers, name, end))
        except tarfile.TarError as error:
            raise UserError(
                f"{name} is cut off, or no tar archive, or a compressed one ({error}): get it again, or unpack it"
            ) from error


def _members(headers: "_Headers", name: str, end: int) -> Iterator[Member]:
    with tarfile.open(fileobj=headers, mode="r:") as archive:  # type: ignore[call-overload]  # reads, seeks and tells
        count = 0
        while (info := archive.next()) is not None:
            archive.members.clear()  # they would all be kept
            count += 1
            if count > MAX_MEMBERS:
                raise UserError(f"{name} has more than {MAX_MEMBERS:,} members; divide it into several archives")
            if member := _checked(info, name, end):
                yield member
        _check_end(headers, archive.offset, name, end)


def _checked(info: tarfile.TarInfo, name: str, end: int) -> Member | None:
    path = PurePosixPath(info.name)
    if path.is_absolute() or ".." in path.parts or "\\" in info.name or "\0" in info.name:
        raise UserError(f"{name}: the name {info.name!r} leads out of the archive; it is not read")
    if info.isdir():
        return None
    if not info.isreg() or info.issparse():
        raise UserError(f"{name}: {info.name} is a link or a device, not a file; it is not read")
    if info.size < 0 or info.offset_data + info.size > end:
        raise UserError(f"{name} is cut off within {info.name}; get it again")
    return Member(info.name.removeprefix("./"), info.offset_data, info.size)


def _check_end(headers: "_Headers", offset: int, name: str, end: int) -> None:
    """Make sure that the index ended where the archive does; tarfile takes a damaged header for the end."""
    headers.seek(offset)
    block = headers.read(tarfile.BLOCKSIZE) if offset < end else b""
    if block.strip(b"\0"):
        raise UserError(f"{name} is damaged after byte {offset}; get it again")


@dataclass
class _Headers:
    """What tarfile needs of a file to read headers, and no large piece of it."""

    stream: Any
    name: str
    position: int = 0
    _read_from: int = 0
    _read: bytes = b""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise UserError(f"{self.name} has a header of {size:,} bytes; it is not read")
        start = self.position - self._read_from
        if not 0 <= start <= start + size <= len(self._read):
            # tarfile asks for the byte before a header and then for the header: one request to a store instead of two.
            self._read_from, self._read = self.position, self.stream.read_at(size + READ_AHEAD_BYTES, self.position)
            start = 0
        data = self._read[start : start + size]
        self.position += len(data)
        return data

    def seek(self, position: int) -> int:
        self.position = position
        return position

    def tell(self) -> int:
        return self.position
