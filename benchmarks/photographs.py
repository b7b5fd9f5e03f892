"""The images that benchmarks run on: a folder of photographs, or the built-in ones."""

from collections.abc import Iterator
from pathlib import Path

from pipelines.embedded_dataset import generate, image_ids

SUFFIXES = {".jpg", ".jpeg", ".png"}


def photographs(folder: str, number: int) -> list[bytes]:
    """The first ``number`` images below ``folder`` in order of their names, again and again if there are fewer."""
    found = list(_of_folder(folder) if folder else _built_in(number))[:number]
    if not found:
        raise SystemExit(f"no photographs in {folder}")
    return [found[position % len(found)] for position in range(number)]


def _of_folder(folder: str) -> Iterator[bytes]:
    for path in sorted(Path(folder).rglob("*")):
        if path.suffix.lower() in SUFFIXES:
            yield path.read_bytes()


def _built_in(number: int) -> Iterator[bytes]:
    for image_id in image_ids("val")[:number]:
        yield generate(image_id, 0).image
