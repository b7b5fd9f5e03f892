"""Shards of images: what goes into each, and the tasks that read, check and write them.

Beside each shard lies a note of what is in it; a shard whose note is there, and rejects no file, is not written again.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from googlenet.crops import scaled_size
from googlenet.images import ImageDecodeError, decode_rgb
from googlenet.records import SCHEMA, WRITE_OPTIONS
from pipelines.data.listing import ImageFile, ImageReader
from pipelines.run.dataset import SHARD_DIGEST
from pipelines.run.directory import DATASET
from pipelines.run.storage import Storage

STORED_JPEG_QUALITY = 95


@dataclass(frozen=True)
class ShardPlan:
    """One shard to write: its file below ``dataset/``, its images, and what else decides its content."""

    file: str
    images: tuple[ImageFile, ...]
    settings: str = ""

    @property
    def note(self) -> str:
        """The file beside the shard that says what is in it; written after the shard."""
        return self.file.replace(".parquet", ".json")

    @property
    def digest(self) -> str:
        """Of what belongs into the shard."""
        return hashlib.sha256(f"{self.settings}\n{_images_to_json(self)}".encode()).hexdigest()


@dataclass(frozen=True)
class Source:
    """Where image bytes come from, and how they are stored."""

    reader: ImageReader
    short_side_px: int | None = None

    def to_store(self, image: ImageFile) -> tuple[bytes, int, int]:
        """Bytes to store, width and height in pixels.

        Raises:
            ImageDecodeError: the image cannot be decoded.
        """
        data = self.reader.read(image)
        pixels = decode_rgb(data)
        height, width = pixels.shape[:2]
        if self.short_side_px is None or min(width, height) <= self.short_side_px:
            return data, width, height
        width, height = scaled_size(width, height, self.short_side_px)
        return _encode_jpeg(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)), width, height


def plan_shards(
    split: str, images: Sequence[ImageFile], images_per_shard: int, settings: str = ""
) -> Iterator[ShardPlan]:
    """Divide the images of a split, in their order. Shards of other ``settings`` are never taken for these."""
    for number, first in enumerate(range(0, len(images), images_per_shard)):
        yield ShardPlan(f"{split}/{number:05d}.parquet", tuple(images[first : first + images_per_shard]), settings)


def write_shards(run: Storage, source: Source, plans: Sequence[ShardPlan]) -> Iterator[dict[str, Any]]:
    """Write the shards on the cluster, one task each, and give what each task found, in the order of ``plans``."""
    import ray.data

    # A row carries its own plan, so that no task is sent the names of all images. As JSON: Ray Data would have to
    # guess a schema for lists that are empty in most rows.
    rows = [{"plan": number, "images": _images_to_json(plan)} for number, plan in enumerate(plans)]
    files, settings = [plan.file for plan in plans], plans[0].settings

    def write(row: dict[str, Any]) -> dict[str, Any]:
        images = tuple(ImageFile(*image) for image in json.loads(row["images"]))
        plan = ShardPlan(files[row["plan"]], images, settings)
        result = _finished_shard(run, plan) or write_shard(run, source, plan)
        return {"plan": row["plan"], "result": json.dumps(result)}

    found = ray.data.from_items(rows, override_num_blocks=len(rows)).map(write)
    by_plan = {row["plan"]: json.loads(row["result"]) for row in found.iter_rows()}
    for number in range(len(plans)):
        yield by_plan[number]


def _images_to_json(plan: ShardPlan) -> str:
    return json.dumps([astuple(image) for image in plan.images])


def _finished_shard(run: Storage, plan: ShardPlan) -> dict[str, Any] | None:
    """What an earlier try found in a shard that it wrote whole and without rejecting a file; those are read again."""
    note = f"{DATASET}/{plan.note}"
    found: dict[str, Any] = run.read_json(note) if run.exists(note) else {}
    return found if found.get("plan") == plan.digest and not found["rejected"] else None


def write_shard(run: Storage, source: Source, plan: ShardPlan) -> dict[str, Any]:
    """Read, check and store the images of one shard.

    Returns:
        ``images`` (number stored), ``counts`` (by label), ``digest``, ``rejected`` (image_id and reason of each).
    """
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    digest, rejected = hashlib.sha256(), []
    for file in plan.images:
        try:
            data, width, height = source.to_store(file)
        except (ImageDecodeError, OSError) as error:
            # Only what is broken can be left out; what cannot be read now may be whole.
            unreadable = isinstance(error, OSError)
            rejected.append({"image_id": file.image_id, "reason": str(error), "unreadable": unreadable})
            continue
        digest.update(f"{file.image_id}\0{file.label}\0{hashlib.sha256(data).hexdigest()}\n".encode())
        row = (file.image_id, data, file.label, width, height)
        for name, value in zip(SCHEMA.names, row, strict=True):
            columns[name].append(value)
    schema = SCHEMA.with_metadata({SHARD_DIGEST: digest.hexdigest()})
    with run.writing(f"{DATASET}/{plan.file}") as stream:
        pq.write_table(pa.table(columns, schema), stream, **WRITE_OPTIONS)
    counts = {str(label): count for label, count in Counter(columns["label"]).items()}
    result = {"images": len(columns["label"]), "counts": counts, "digest": digest.hexdigest(), "rejected": rejected}
    run.write_json(f"{DATASET}/{plan.note}", {"plan": plan.digest, **result})
    return result


def _encode_jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=STORED_JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()
