"""Lines for the user about what is left out of a data set, and about names that mislead."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set

from pipelines.data.file_endings import ending, is_compressed, without_ending_of_archive
from pipelines.data.file_names import normalisation_twins
from pipelines.data.folder_tree import Tree
from pipelines.data.layout import Kind, Layout
from pipelines.data.packed_files import is_packed
from pipelines.data.split_names import UNSPLIT
from pipelines.job.console import count, some
from pipelines.run.litter import ZONE_MARK

# What a Mac puts in the place of a picture that is in iCloud alone: .IMG_1.jpg.icloud.
ICLOUD = ".icloud"


def remarks(tree: Tree) -> Iterator[str]:
    """Yield a line for each kind of name in ``tree`` that is not opened."""
    if tree.specials:
        yield f"left out, since they are not regular files: {some(tree.specials)}"
    if tree.runs:
        yield f"left out, since they are run directories: {some(tree.runs)}"
    away = [name for name in tree.litter if name.endswith(ICLOUD)]
    if away:
        yield f"{count(len(away), 'file')} in iCloud alone: download them (in the Finder) to use them"
    if litter := [name for name in tree.litter if not name.endswith(ICLOUD)]:
        kinds = Counter(_own_name(name) for name in litter)
        shown = [f"{number:,} {name}" for name, number in sorted(kinds.items())]
        yield f"left out (hidden, or left by an operating system or a tool): {some(shown)}"


def remarks_on_classes(tree: Tree, layout: Layout) -> Iterator[str]:
    """Yield a line for empty class folders, and one for class folders that are one folder through links.

    ``tree`` is that of the layout's base.
    """
    if empty := [name for name in tree.empty_folders if _may_be_a_class(name, layout)]:
        yield f"empty folders, not classes: {some(empty)}"
    classes = {path for paths in layout.parts.values() for path in paths}
    if layout.kind is Kind.CLASS_FOLDERS and (packed := _packed_classes(tree.files, classes)):
        yield f"archives where class folders are, left out: {some(packed)}; unpack them if they hold classes"
    groups = [[name for name in group if name in classes] for group in tree.linked]
    if shared := [" and ".join(group[:2]) for group in groups if len(group) > 1]:
        yield f"class folders that are links to the same folder, so they hold the same images: {some(shared)}"


def remarks_on_other_files(names: Sequence[str]) -> tuple[str, ...]:
    """Return a line about files that lie beside pictures and are none, by their endings."""
    kinds = Counter(ending(name) for name in names)
    shown = [f"{number:,} {kind}" for kind, number in sorted(kinds.items())]
    return (f"left out beside the pictures, by their endings: {some(shown)}",) if shown else ()


def remarks_on_thumbnails(numbers: Mapping[str, int]) -> tuple[str, ...]:
    """Return a line about folders in which copies of pictures lie, given with the number of copies in each."""
    shown = [f"{number:,} in {folder}" for folder, number in sorted(numbers.items())]
    advice = "rename the folders if they hold pictures of their own"
    return (f"left out as thumbnails of the pictures above them: {some(shown)}; {advice}",) if shown else ()


def remarks_on_masks(numbers: Mapping[str, int]) -> tuple[str, ...]:
    """Return a line about folders of pictures that seem to be masks or labels, given with the number in each."""
    shown = [f"{number:,} in {folder}" for folder, number in sorted(numbers.items())]
    advice = "move them out of the class folders if they are masks or labels"
    return (f"used as pictures of their classes, whatever the folder's name: {some(shown)}; {advice}",) if shown else ()


def remarks_on_masks_beside(masks: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return a line about pictures that seem to be masks of those beside them, given for each folder."""
    shown = [
        f"{len(names):,} in {folder}/, as {names[0].rpartition('/')[2]}" for folder, names in sorted(masks.items())
    ]
    advice = "move them out of the class folders if they are masks or labels"
    return (
        (f"used as pictures, though named like masks of those beside them: {some(shown)}; {advice}",) if shown else ()
    )


def remarks_on_ids(image_ids: Iterable[str]) -> Iterator[str]:
    """Yield a line if several images have names that look the same."""
    if twins := normalisation_twins(image_ids):
        names = some([group[0] for group in twins])
        yield f"names of several images differ only in Unicode normalisation (NFC, NFD): {names}"


def _may_be_a_class(folder: str, layout: Layout) -> bool:
    if UNSPLIT in layout.parts:
        return "/" not in folder
    split_folders = {path.split("/")[0] for paths in layout.parts.values() for path in paths}
    return folder.count("/") == 1 and folder.split("/", maxsplit=1)[0] in split_folders


def _packed_classes(files: Sequence[str], classes: Set[str]) -> list[str]:
    """Return archives in the places of classes and of their pictures: train/owl.zip, owl/owl.zip.

    One beside the class folder that it was unpacked to is none. Those at the top are named among what is ignored.
    """
    splits = {path.rpartition("/")[0] for path in classes} - {""}
    packed = [name for name in files if "/" in name and (is_compressed(name) or is_packed(name))]
    packed = [name for name in packed if not splits or name.partition("/")[0] in splits]
    places = {name: "/".join(name.split("/")[: 2 if splits else 1]) for name in packed}
    return [name for name, place in places.items() if classes.isdisjoint({place, without_ending_of_archive(place)})]


def _own_name(name: str) -> str:
    if name.lower().endswith(ZONE_MARK.lower()):
        return f"*{ZONE_MARK}"
    return name.rstrip("/").rpartition("/")[2] + ("/" if name.endswith("/") else "")
