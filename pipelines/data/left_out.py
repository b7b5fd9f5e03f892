"""Lines for the user about what is left out of a data set, and about names that are not what they seem."""

from collections import Counter
from collections.abc import Iterator, Sequence

from pipelines.data.file_names import normalisation_twins
from pipelines.data.folder_tree import Tree
from pipelines.data.layout import Layout
from pipelines.data.split_names import UNSPLIT
from pipelines.job.console import count, some

NAMES_IN_MESSAGE = 10


def remarks(tree: Tree) -> Iterator[str]:
    """Yield a line for each kind of name in ``tree`` that is not opened, or that looks like another."""
    if tree.specials:
        yield f"left out, since they are not regular files: {some(tree.specials)}"
    if tree.litter:
        kinds = Counter(_own_name(name) for name in tree.litter)
        shown = [f"{number:,} {name}" for name, number in sorted(kinds.items())]
        yield f"left out, as hidden or left behind by a system or a tool: {some(shown)}"
    if twins := normalisation_twins(tree.files):
        yield (
            f"names that look the same and differ only by Unicode normalisation (NFC, NFD): "
            f"{some([group[0] for group in twins])}"
        )


def remarks_on_classes(tree: Tree, layout: Layout) -> Iterator[str]:
    """Yield a line for empty class folders, and one for class folders that are one folder through links.

    ``tree`` is that of the layout's base.
    """
    if empty := [name for name in tree.empty_folders if _may_be_a_class(name, layout)]:
        yield f"empty, so no class: {some(empty)}"
    classes = {path for paths in layout.parts.values() for path in paths}
    groups = [[name for name in group if name in classes] for group in tree.linked]
    if shared := [" and ".join(group[:2]) for group in groups if len(group) > 1]:
        yield f"linked to the same folder, so with the same images: {some(shared)}"


def summary(names: Sequence[str]) -> str:
    """Return files at the root by name, others counted by their first folder; empty if there are none."""
    at_root = [name for name in names if "/" not in name]
    shown = at_root[:NAMES_IN_MESSAGE]
    if len(at_root) > len(shown):
        shown.append(count(len(at_root) - len(shown), "more file"))
    folders = Counter(name.split("/")[0] for name in names if "/" in name)
    in_folders = [f"{count(number, 'file')} in {name}/" for name, number in sorted(folders.items())]
    return ", ".join([*shown, *([some(in_folders)] if in_folders else [])])


def _may_be_a_class(folder: str, layout: Layout) -> bool:
    if UNSPLIT in layout.parts:
        return "/" not in folder
    split_folders = {path.split("/")[0] for paths in layout.parts.values() for path in paths}
    return folder.count("/") == 1 and folder.split("/", maxsplit=1)[0] in split_folders


def _own_name(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2] + ("/" if name.endswith("/") else "")
