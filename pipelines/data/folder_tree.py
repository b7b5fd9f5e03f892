"""All names below a folder, local or in an object store, without what operating systems and tools leave there.

Linked folders are followed; only a link to a folder above itself is an error.
"""

import os
import stat
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pyarrow.fs as pafs

from pipelines.data.file_endings import has_known_ending
from pipelines.data.file_names import readable
from pipelines.data.split_names import split_of_folder
from pipelines.errors import UserError
from pipelines.run.directory import DATASET, LOCK, REPLICAS, RUN
from pipelines.run.litter import litter_in
from pipelines.run.storage import Storage

FOLDER = "folder"
LINK_TO_NOTHING = "link to nothing"
SPECIAL = {
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


@dataclass(frozen=True)
class Tree:
    """Sorted names below a root, relative to it, with ``/``, readable (:mod:`pipelines.data.file_names`).

    Attributes:
        files: regular files, and links that lead nowhere, so that those are reported, not skipped.
        empty_folders: folders without any of these files below them.
        litter: hidden files and folders, and those that operating systems leave; folders end in ``/``.
        specials: named pipes, sockets and devices, and dead links in place of class folders, each with its kind in
            parentheses.
        linked: groups of names of one folder, through links.
        runs: run directories; they end in ``/``.
    """

    files: tuple[str, ...]
    empty_folders: tuple[str, ...] = ()
    litter: tuple[str, ...] = ()
    specials: tuple[str, ...] = ()
    linked: tuple[tuple[str, ...], ...] = ()
    runs: tuple[str, ...] = ()

    @classmethod
    def of_names(cls, files: Iterable[str], folders: Iterable[str] = ()) -> "Tree":
        """Return the tree of files and folders that another listing named, such as that of an archive or a hub."""
        kept: list[str] = []
        litter: set[str] = set()
        filled: set[str] = set()
        names = sorted(files)
        runs = _run_directories(names)

        def is_in_a_run(name: str) -> bool:
            place = bisect_right(runs, name) - 1  # none lies in another, so that only this one may hold the name
            return place >= 0 and name.startswith(runs[place])

        for name in names:
            if place := litter_in(name):
                litter.add(place)
            elif not is_in_a_run(name):
                kept.append(name)
                filled.update(_folders_above(name, filled))
        empty = [
            name
            for name in sorted(folders)
            if name not in filled and not litter_in(f"{name}/") and not is_in_a_run(f"{name}/")
        ]
        return cls(tuple(kept), tuple(empty), tuple(sorted(litter)), runs=tuple(runs))

    def below(self, folder: str) -> "Tree":
        """Return the part of the tree in ``folder``, with names relative to it."""
        start = f"{folder}/"

        def inside(names: Iterable[str]) -> tuple[str, ...]:
            return tuple(name.removeprefix(start) for name in names if name.startswith(start))

        groups = tuple(group for names in self.linked if len(group := inside(names)) > 1)
        return Tree(
            inside(self.files),
            inside(self.empty_folders),
            inside(self.litter),
            inside(self.specials),
            groups,
            inside(self.runs),
        )


def check_local_folder(root: Storage) -> None:
    """Refuse a folder of this machine that does not exist; nothing is asked of other machines.

    Raises:
        UserError: it does not exist.
    """
    if root.is_local:
        _check_exists(root)


def _check_exists(root: Storage) -> None:
    if not root.exists(""):
        raise UserError(f"there is no folder {root}")


def tree_at(root: Storage) -> Tree:
    """Return all names below ``root``.

    Raises:
        UserError: the folder does not exist or cannot be read, or a link leads to a folder above itself.
    """
    _check_exists(root)
    if root.is_local and not os.path.isdir(root.path()):  # noqa: PTH112 - names are bytes
        raise UserError(f"{root} is neither a folder nor a regular file")
    if root.is_local:
        return _Walk(root.path()).tree()
    infos = root.filesystem.get_file_info(pafs.FileSelector(root.path(), recursive=True, allow_not_found=True))
    names = {readable(info.path[len(root.path()) + 1 :].rstrip("/")): info.is_file for info in infos}
    return Tree.of_names(
        (name for name, is_file in names.items() if is_file), (name for name, is_file in names.items() if not is_file)
    )


def _run_directories(names: Sequence[str]) -> list[str]:
    """Return the run directories among sorted names, sorted, each with a slash behind it; none lies in another.

    Their shards and the pictures of their reports are no images of a data set in which somebody keeps his runs.
    """
    marks = Counter(name.rpartition("/")[0] for name in names if name.endswith((f"/{RUN}", f"/{LOCK}")))
    for folder in marks:
        for part in (f"{folder}/{DATASET}/", f"{folder}/{REPLICAS}/"):
            first = bisect_left(names, part)
            marks[folder] += first < len(names) and names[first].startswith(part)
    runs: list[str] = []
    for run in sorted(f"{folder}/" for folder, number in marks.items() if number > 1):
        if not runs or not run.startswith(runs[-1]):
            runs.append(run)
    return runs


def _folders_above(name: str, known: set[str]) -> list[str]:
    """Return the folders above ``name`` up to the first that is already ``known``."""
    above = []
    while (name := name.rpartition("/")[0]) and name not in known:
        above.append(name)
    return above


@dataclass
class _Walk:
    """A walk through a local folder; collects names as the operating system gives them."""

    root: str
    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    litter: list[str] = field(default_factory=list)
    specials: list[str] = field(default_factory=list)
    by_real_path: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def tree(self) -> Tree:
        """Walk, and return what was named under readable names."""
        self._enter("", (os.path.realpath(self.root),))
        named = Tree.of_names(map(readable, self.files), map(readable, self.folders))
        litter = tuple(sorted({*map(readable, self.litter), *named.litter}))
        specials = tuple(sorted(map(readable, self.specials)))
        linked = tuple(tuple(map(readable, group)) for group in self.by_real_path.values() if len(group) > 1)
        return Tree(named.files, named.empty_folders, litter, specials, linked, named.runs)

    def _enter(self, folder: str, branch: tuple[str, ...]) -> None:
        """Walk through ``folder``; ``branch`` has the real paths of the folders from the root to this one."""
        for entry in self._entries(folder):
            name = f"{folder}/{entry.name}" if folder else entry.name
            kind = _kind(entry, folder)
            if kind != FOLDER:
                self._take(name, entry.name, kind)
            elif litter_in(f"{entry.name}/"):
                self.litter.append(f"{name}/")
            else:
                here = f"{branch[-1].rstrip('/')}/{entry.name}"
                real = os.path.realpath(here) if entry.is_symlink() else here
                if any(above == real or above.startswith(f"{real.rstrip('/')}/") for above in branch):
                    raise UserError(f"the link {self._shown(name)} leads to a folder above itself; remove it")
                self.folders.append(name)
                self.by_real_path[real].append(name)
                self._enter(name, (*branch, real))

    def _entries(self, folder: str) -> list["os.DirEntry[str]"]:
        try:
            with os.scandir(f"{self.root}/{folder}") as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except OSError as error:  # it would otherwise look like a class without images
            raise UserError(
                f"the folder {self._shown(folder)} cannot be read ({error.strerror}); fix that or remove it"
            ) from error

    def _take(self, name: str, own_name: str, kind: str) -> None:
        if litter_in(own_name):
            self.litter.append(name)
        elif kind:
            self.specials.append(f"{name} ({kind})")
        else:
            self.files.append(name)

    def _shown(self, name: str) -> str:
        return readable(f"{self.root}/{name}".rstrip("/"))


def _kind(entry: "os.DirEntry[str]", folder: str) -> str:
    """Return what an entry of ``folder`` is, if not a regular file; empty also for a link to nothing."""
    try:
        if entry.is_dir():
            return FOLDER
        return "" if entry.is_file() else SPECIAL.get(stat.S_IFMT(entry.stat().st_mode), "")
    except OSError:  # a link to nothing, to itself, or to where nobody may look
        # Where class folders are, one of them on a disk that is not mounted; else a file that will be found unreadable.
        holds_classes = not folder or split_of_folder(folder.rpartition("/")[2])
        is_folder = holds_classes and not has_known_ending(entry.name)
        return LINK_TO_NOTHING if is_folder else ""
