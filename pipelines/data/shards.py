"""Shards of images: their plans, and the tasks that read, check and write them.

Next to each shard is a note of its content. A shard whose note lists no bad image is not written again.
"""

import hashlib
import io
import json
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass, replace
from socket import gethostname
from typing import Any

from PIL import Image

from googlenet.images.decoding import ImageDecodeError, decode_rgb
from googlenet.images.inspection import Inspection, inspect
from googlenet.images.records import write_records
from googlenet.images.scaled_image import scaled_size
from pipelines.data.listing import ImageFile, ImageReader
from pipelines.data.written_shards import BadImage, WrittenShard
from pipelines.errors import UserError
from pipelines.run.claims import OtherImagesError
from pipelines.run.dataset import SHARD_DIGEST, Shard, problem_of
from pipelines.run.directory import DATASET
from pipelines.run.storage import PARTIAL, Storage
from pipelines.run.storage_failures import is_outage
from pipelines.run.tables import read_schema

STORED_JPEG_QUALITY = 95
# Digits that are kept of the SHA-256 of an image: of 1.3 million, no two differ and have the same ones.
CONTENT_DIGITS = 16
# Key of a task's result, if it writes no shard: the message that says why.
REFUSED = "refused"


@dataclass(frozen=True)
class ShardPlan:
    """One shard to write.

    Attributes:
        file: its name below ``dataset/``.
        images: in order.
        settings: everything else that decides its content, as JSON.
        short_side_px: larger images are shrunk to this shorter side; None keeps the original bytes.
        versions: digest of the versions of the files that hold the images, before these are read.
        keeps_others: refuse to replace an intact shard of other images: replicas may have been trained on them.
    """

    file: str
    images: tuple[ImageFile, ...]
    settings: str = ""
    short_side_px: int | None = None
    versions: str = ""
    keeps_others: bool = False

    @property
    def note(self) -> str:
        """Name of the file next to the shard that describes its content; written after the shard."""
        return self.file.replace(".parquet", ".json")

    @property
    def digest(self) -> str:
        """SHA-256 over the settings, images and versions of the shard."""
        return hashlib.sha256(f"{self.settings}\n{_images_to_json(self)}\n{self.versions}".encode()).hexdigest()


def plan_shards(
    split: str, images: Sequence[ImageFile], images_per_shard: int, settings: str, short_side_px: int | None
) -> Iterator[ShardPlan]:
    """Divide the images of a split into shards, in order. Shards with other ``settings`` never count as these."""
    for number, first in enumerate(range(0, len(images), images_per_shard)):
        chosen = tuple(images[first : first + images_per_shard])
        yield ShardPlan(f"{split}/{number:05d}.parquet", chosen, settings, short_side_px)


def write_shards(run: Storage, reader: ImageReader, plans: Sequence[ShardPlan]) -> Iterator[WrittenShard]:
    """Write the shards on the cluster, one task each, and yield the tasks' results in the order of ``plans``.

    Raises:
        UserError: a node does not see the run directory of this machine, or a shard of other images may not be
            replaced.
    """
    import ray.data

    # A row has its own plan, so that no task is sent the names of all images. The plan is JSON, since Ray Data would
    # have to guess a schema for lists that are empty in most rows.
    rows = [{"plan": number, "images": _images_to_json(plan)} for number, plan in enumerate(plans)]
    without_images = [replace(plan, images=()) for plan in plans]

    by_plan: dict[int, WrittenShard] = {}
    with _mark(run) as mark:
        # Ray's dashboard shows the names of functions and of the data set.
        def write_images(row: dict[str, Any]) -> dict[str, Any]:
            if mark and not run.exists(mark):
                refusal = (
                    f"{gethostname()} does not see the run directory {run} of this machine: choose a --run-dir that "
                    "all nodes see under the same path, or an object store"
                )
                return {"plan": row["plan"], "result": json.dumps({REFUSED: refusal})}
            images = tuple(ImageFile(*image) for image in json.loads(row["images"]))
            plan = replace(without_images[row["plan"]], images=images)
            try:
                result = (_finished_shard(run, plan) or write_shard(run, reader, plan)).to_dict()
            except OtherImagesError as error:
                result = {REFUSED: str(error)}
            return {"plan": row["plan"], "result": json.dumps(result)}

        written = ray.data.from_items(rows, override_num_blocks=len(rows)).map(write_images)
        written.set_name("preparation")
        for row in written.iter_rows():
            result = json.loads(row["result"])
            if REFUSED in result:
                raise UserError(result[REFUSED])
            by_plan[row["plan"]] = WrittenShard.from_dict(result)
    for number in range(len(plans)):
        yield by_plan[number]


@contextmanager
def _mark(run: Storage) -> Iterator[str]:
    """Write a file for the block, by which tasks know that they see the same folder; yield its name.

    Nodes without a shared disk may have a folder of the same path, also with shards. A store needs no mark.
    """
    if not run.is_local:
        yield ""
        return
    name = f"{DATASET}/seen_by_all{PARTIAL}{uuid.uuid4().hex[:8]}"
    run.write(name, b"")
    try:
        yield name
    finally:
        run.delete(name)


def _images_to_json(plan: ShardPlan) -> str:
    return json.dumps([astuple(image) for image in plan.images])


def _finished_shard(run: Storage, plan: ShardPlan) -> WrittenShard | None:
    """Return the result of a shard written earlier; None if there is none, or some of its images were bad."""
    note = f"{DATASET}/{plan.note}"
    known: dict[str, Any] = {}
    with suppress(UserError):  # a damaged note is that of a shard to be written again
        known = run.read_json(note) if run.exists(note) else {}
    if known.pop("plan", None) != plan.digest or known.get("bad_images", True):
        return None
    shard = WrittenShard.from_dict(known)
    return None if problem_of(run, Shard(plan.file, shard.images, shard.digest)) else shard


def write_shard(run: Storage, reader: ImageReader, plan: ShardPlan) -> WrittenShard:
    """Read, check and store the images of one shard.

    Raises:
        OSError: the store or the network has failed.
        OtherImagesError: the plan forbids to replace the shard of other images that is there.
    """
    rows: deque[tuple[Any, ...]] = deque()
    digest, counts, bad_images, notes = hashlib.sha256(), Counter[str](), [], defaultdict(list)
    contents: list[str] = []
    for file in plan.images:
        try:
            original = reader.read(file)
            inspection = inspect(original)
            data, width, height = _to_store(original, inspection, plan.short_side_px)
        except (ImageDecodeError, OSError) as error:
            if is_outage(error):  # would make a bad image of every one, each after long retries
                raise
            bad_images.append(BadImage(file.image_id, str(error), unreadable=isinstance(error, OSError)))
            continue
        for note in inspection.notes:
            notes[note].append(file.image_id)
        content = hashlib.sha256(data).hexdigest()
        contents.append(content[:CONTENT_DIGITS])
        digest.update(f"{file.image_id}\0{file.label}\0{content}\n".encode())
        counts[str(file.label)] += 1
        rows.append((file.image_id, data, file.label, width, height))
    if plan.keeps_others:
        _refuse_to_replace(run, Shard(plan.file, counts.total(), digest.hexdigest()))
    with run.writing(f"{DATASET}/{plan.file}") as stream:
        # An image that is written is dropped. The digest, which the file holds in its schema, needs all of them first.
        dropped = (rows.popleft() for _ in range(len(rows)))
        write_records(stream, dropped, {SHARD_DIGEST: digest.hexdigest().encode()})
    written = WrittenShard(
        counts.total(), dict(counts), digest.hexdigest(), bad_images, dict(notes), contents="".join(contents)
    )
    run.write_json(f"{DATASET}/{plan.note}", {"plan": plan.digest, **written.to_dict()})
    return written


def _refuse_to_replace(run: Storage, shard: Shard) -> None:
    """Refuse to write a shard in the place of an intact one of other images."""
    name = f"{DATASET}/{shard.file}"
    if run.exists(name) and read_schema(run, name) is not None and problem_of(run, shard):
        raise OtherImagesError(
            f"{run.below(name)} was not overwritten: it holds other images than these, and replicas in {run} were "
            "trained on the prepared images. Restore the files that were added, removed or replaced since, or choose "
            f"another --run-dir. If the files are those of the training, remove {run.below(DATASET)}, and run the "
            "same command again."
        )


def as_stored(data: bytes, short_side_px: int | None) -> bytes:
    """Return the bytes to store of an image.

    Raises:
        ImageDecodeError: ``data`` cannot be decoded.
    """
    return _to_store(data, inspect(data), short_side_px)[0]


def _to_store(data: bytes, inspection: Inspection, short_side_px: int | None) -> tuple[bytes, int, int]:
    """Return bytes to store, width and height in pixels."""
    width, height = inspection.width, inspection.height
    if short_side_px is None or min(width, height) <= short_side_px:
        return data, width, height
    pixels = decode_rgb(data) if inspection.pixels is None else inspection.pixels
    width, height = scaled_size(width, height, short_side_px)
    return _encode_jpeg(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)), width, height


def _encode_jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=STORED_JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()
