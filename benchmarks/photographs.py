"""Images for the benchmarks: from a folder of photographs, or built-in ones."""

import io
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from pipelines.data.embedded_dataset import generate, image_ids

SUFFIXES = {".jpg", ".jpeg", ".png"}


def photographs(folder: str, number: int) -> list[bytes]:
    """Return the first ``number`` images below ``folder``, sorted by name and repeated if there are fewer."""
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
        yield generate(image_id, 0)


def photographs_of_size(folder: str, number: int, width: int, height: int, quality: int = 75) -> list[bytes]:
    """Return ``number`` different JPEGs of one size, with chroma at half the resolution as in cameras."""
    encoded = []
    # The built-in photographs come again in the same windows.
    known: dict[tuple[bytes, int], bytes] = {}
    for position, data in enumerate(photographs(folder, number) if folder else _sample_images(number)):
        key = data, position % 8
        if key in known:
            encoded.append(known[key])
            continue
        # Crop each photograph differently, so that repeated ones differ.
        image = Image.open(io.BytesIO(data)).convert("RGB")
        margin = image.width * (position % 8) // 40
        window = image.crop((margin, 0, image.width, image.height)).resize((width, height), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        window.save(buffer, "JPEG", quality=quality)
        known[key] = buffer.getvalue()
        encoded.append(known[key])
    return encoded


def _sample_images(number: int) -> list[bytes]:
    from sklearn import datasets

    names = ("china.jpg", "flower.jpg")
    found = [(Path(datasets.__file__).parent / "images" / name).read_bytes() for name in names]
    return [found[position % len(found)] for position in range(number)]
