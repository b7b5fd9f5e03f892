"""Images in tar archives, read in place: an index from the headers alone, and one range of bytes per image.

Archives may be untrusted: names that point outside the archive, links, devices, and excessive numbers and sizes are
refused.
"""

import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from googlenet.images.decoding import check_number_of_bytes
from googlenet.images.refusals import LOOKED_AT_BYTES, placeholder
from pipelines.data.file_names import original, readable
from pipelines.data.listing import ImageFile
from pipelines.errors import UserError
from pipelines.job.console import count, some
from pipelines.run.litter import litter_in
from pipelines.run.storage import Storage

# ImageNet's validation archive, the largest in common use, has 50,000.
MAX_MEMBERS = 500_000
# Headers for long names and the like are small; tarfile would read any size into memory.
MAX_HEADER_BYTES = 1 << 20
# The longest path of Linux.
MAX_NAME_CHARACTERS = 4096
READ_AHEAD_BYTES = 1024
# tar fills the last record, of 10,240 bytes unless it is told otherwise, with zeros.
PADDING_BYTES = 1 << 16


@dataclass(frozen=True)
class Member:
    """A file in an archive: its name, and the position of its bytes."""

    name: str
    first_byte: int
    num_bytes: int


@dataclass
class TarImages:
    """Reader of images from archives below a folder, by places from :func:`place_of`."""

    root: Storage
    _open: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def read(self, image: ImageFile) -> bytes:
        """Return the member's bytes."""
        archive, _, span = image.place.rpartition("@")
        first, _, length = span.partition("+")
        check_number_of_bytes(int(length))
        if archive not in self._open:
            while self._open:  # neighbours share an archive; a thousand open ones would be too many
                self._open.popitem()[1].close()
            self._open[archive] = self.root.open(original(archive))
        data: bytes = self._open[archive].read_at(int(length), int(first))
        if len(data) != int(length):
            raise OSError(f"{self.root}/{archive} ends within this image")
        return data

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "_open": {}}


@dataclass(frozen=True)
class Index:
    """The files in an archive, in order.

    Attributes:
        name: the archive's, for messages.
        members: without litter, such as the ``._x`` that a Mac adds to each file ``x``.
        is_ended: whether the archive ends as tar ends one; if not, it may have been cut off between two files.
        litter: number of members left out.
    """

    name: str
    members: list[Member]
    is_ended: bool
    litter: int


def remarks_on_archives(read: Iterable[tuple[Index, int]]) -> tuple[str, ...]:
    """Return lines for the user about archives; ``read`` has their indexes, each with the number of images read."""
    read = list(read)
    lines = []
    if cut := [f"{index.name} ({count(images, 'image')} read)" for index, images in read if not index.is_ended]:
        lines.append(f"no end-of-archive mark, so perhaps cut off (compare with the source): {some(cut)}")
    if litter := sum(index.litter for index, _ in read):
        lines.append(f"left out of the archives: {count(litter, 'member')} hidden, or left by an operating system")
    return tuple(lines)


def place_of(archive: str, member: Member) -> str:
    """Return the place of a member of ``archive`` for :class:`TarImages`."""
    return f"{archive}@{member.first_byte}+{member.num_bytes}"


def read_index(root: Storage, archive: str, within: Member | None = None) -> Index:
    """Return the index of ``archive``, or of the archive that is its member ``within``.

    Raises:
        UserError: it is not a tar archive, or is cut off, damaged, compressed or unsafe.
    """
    name = f"{root}/{archive}" + (f" ({within.name})" if within else "")
    with root.open(original(archive)) as stream:
        first = within.first_byte if within else 0
        end = first + within.num_bytes if within else stream.size()
        headers = _Headers(stream, name)
        headers.seek(first)
        try:
            return _index(headers, name, end)
        except tarfile.TarError as error:
            if words := placeholder(stream.read_at(LOOKED_AT_BYTES, first)):
                raise UserError(f"{name} is {words}") from error
            raise UserError(
                f"{name} is cut off, not a tar archive, or compressed ({error}): download it again, or unpack it"
            ) from error


def _index(headers: "_Headers", name: str, end: int) -> Index:
    members, litter = [], 0
    with tarfile.open(fileobj=headers, mode="r:") as archive:  # type: ignore[call-overload]  # reads, seeks and tells
        number = 0
        while (info := archive.next()) is not None:
            archive.members.clear()  # tarfile would keep them all
            number += 1
            if number > MAX_MEMBERS:
                raise UserError(f"{name} has more than {MAX_MEMBERS:,} members; divide it into several archives")
            if member := _checked(info, name, end):
                if litter_in(member.name):
                    litter += 1
                else:
                    members.append(member)
        return Index(name, members, _is_ended(headers, archive.offset, name, end), litter)


def _checked(info: tarfile.TarInfo, name: str, end: int) -> Member | None:
    own = readable(info.name)
    if len(own) > MAX_NAME_CHARACTERS:
        raise UserError(f"{name} is refused: the name {own[:40]!r}... has {len(own):,} characters")
    path = PurePosixPath(own)
    if "\\" in info.name:
        raise UserError(f"{name} is refused: the name {own!r} has a backslash; pack it with / between folders")
    if path.is_absolute() or ".." in path.parts or "\0" in info.name:
        raise UserError(f"{name} is refused: the name {own!r} points outside the archive")
    if info.isdir():
        return None
    if not info.isreg() or info.issparse():
        raise UserError(f"{name} is refused: {own} is a link or a device, not a file")
    if info.size < 0 or info.offset_data + info.size > end:
        raise UserError(f"{name} is cut off within {own}; download it again")
    return Member(own.removeprefix("./"), info.offset_data, info.size)


def _is_ended(headers: "_Headers", offset: int, name: str, end: int) -> bool:
    """Return whether zeros follow the last file; tarfile takes a damaged header for the end, and reads no further."""
    start = offset
    while data := headers.stream.read_at(min(PADDING_BYTES, end - offset), offset) if offset < end else b"":
        if offset == start and data[: tarfile.BLOCKSIZE].strip(b"\0"):
            raise UserError(f"{name} is damaged after byte {offset}; download it again")
        if data.strip(b"\0"):
            raise UserError(
                f"{name} has data after its end mark, as archives have that were joined: unpack it with "
                "tar --ignore-zeros, and pack it anew"
            )
        offset += len(data)
    return offset > start


@dataclass
class _Headers:
    """File object that lets tarfile read headers, but refuses large reads."""

    stream: Any
    name: str
    position: int = 0
    _read_from: int = 0
    _read: bytes = b""

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise UserError(f"{self.name} is refused: it has a header of {size:,} bytes")
        start = self.position - self._read_from
        if not 0 <= start <= start + size <= len(self._read):
            # tarfile reads the byte before a header, then the header: one request to an object store instead of two.
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
