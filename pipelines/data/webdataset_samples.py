"""Samples of a WebDataset archive: which of its members are the image and the label of one sample.

Members belong together if their names are equal before the first dot: ``0001.jpg``, ``0001.cls``. Cameras and other
programs put dots into names too: if several images share that part, the part before the last dot decides
(``IMG.0001.jpg``, ``IMG.0001.cls``). They need not be neighbours.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from pipelines.data.file_endings import ending
from pipelines.data.tar_archives import Index, Member
from pipelines.errors import UserError
from pipelines.job.console import count, some

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm", "tga", "avif", "heic", "heif")
LABEL_ENDINGS = ("cls", "json")


class Sample(NamedTuple):
    """An image, the member with its label, and the name that they share."""

    key: str
    image: Member
    label: Member


def samples(index: Index) -> Iterator[Sample]:
    """Yield the samples of an archive.

    Raises:
        UserError: a sample has no image, several images or no label, or a name occurs twice.
    """
    try:
        yield from _complete_samples(index)
    except UserError as error:
        if index.is_ended:
            raise
        cause = "the archive has no end-of-archive mark, so it may have been cut off: compare it with the source"
        raise UserError(f"{error}; {cause}") from error


def _complete_samples(index: Index) -> Iterator[Sample]:
    _refuse_doubles(index)
    for key, group in _grouped(index.members, _before_first_dot).items():
        if len(_images(group)) < 2:
            yield _sample(index.name, key, group)
            continue
        for stem, part in _parts(index.name, key, group).items():
            yield _sample(index.name, stem, part)


def _parts(archive: str, key: str, group: Sequence[Member]) -> dict[str, list[Member]]:
    """Return the members of several images by their names before the last dot."""
    parts = _grouped(group, _before_last_dot)
    parts = {stem: part for stem, part in parts.items() if _images(part)}
    several = key in parts or any(len(_images(part)) > 1 for part in parts.values())
    if several and not all(_label(part) for part in parts.values()):
        raise UserError(_not_one_image(archive, key, group))  # one label for several images: 1.jpg, 1.mask.png, 1.cls
    return parts


def _sample(archive: str, key: str, group: Sequence[Member]) -> Sample:
    images = _images(group)
    if len(images) != 1:
        raise UserError(_not_one_image(archive, key, group))
    if (label := _label(group)) is None:
        expected = f"{key}.cls with a number, or {key}.json with a number 'label'"
        folders = "; class folders in an archive are not read: unpack it, and specify the folder" if "/" in key else ""
        raise UserError(f"{archive}: {key} has no label; expected {expected}{folders}")
    return Sample(key, images[0], label)


def _label(group: Sequence[Member]) -> Member | None:
    """Return the member with the label: 1.cls, or the only one like 1.label.cls; the same for json."""
    for wanted in LABEL_ENDINGS:
        candidates = [member for member in group if ending(member.name) == wanted]
        exact = [member for member in candidates if _before_first_dot(member.name) == _before_last_dot(member.name)]
        if len(chosen := exact or candidates) == 1:
            return chosen[0]
    return None


def _images(group: Sequence[Member]) -> list[Member]:
    return [member for member in group if ending(member.name) in IMAGE_ENDINGS]


def _not_one_image(archive: str, key: str, group: Sequence[Member]) -> str:
    names = some([member.name for member in group])
    return f"{archive}: {key} has {count(len(_images(group)), 'image')}, expected one ({names})"


def _refuse_doubles(index: Index) -> None:
    seen: set[str] = set()
    for member in index.members:
        if member.name in seen:
            raise UserError(f"{index.name}: {member.name} occurs twice; pack the archive anew")
        seen.add(member.name)


def _grouped(members: Sequence[Member], key: Callable[[str], str]) -> dict[str, list[Member]]:
    groups: dict[str, list[Member]] = defaultdict(list)
    for member in members:
        groups[key(member.name)].append(member)
    return groups


def _before_first_dot(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.partition('.')[0]}"


def _before_last_dot(name: str) -> str:
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.rpartition('.')[0]}"
