"""Stage 1: images become Parquet shards and a manifest, with Ray Data.

    python pipelines/prepare_dataset.py --data FOLDER --run-dir RUN

Every file is decoded once, to be sure that it can be; what is stored are the original bytes, unless the recipe asks
for smaller images. A file that cannot be
decoded stops the stage with a list of all such files, or, with ``--bad-images quarantine``, goes into
``dataset/quarantine.jsonl`` instead of the data set.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from googlenet.crops import scaled_size
from googlenet.images import ImageDecodeError, decode_rgb
from googlenet.records import ROW_GROUP_IMAGES, SCHEMA
from pipelines import embedded_dataset
from pipelines.command_line import absolute_data, parse, run_command
from pipelines.dataset import MANIFEST, SPLITS, Manifest, Shard, Split, read_manifest
from pipelines.errors import UserError
from pipelines.image_folder import ImageFile, Listing, list_image_folder
from pipelines.progress import say
from pipelines.ray_session import connected, native_errors_in
from pipelines.recipes import Recipe, differences
from pipelines.run_directory import DATASET
from pipelines.storage import Storage

BadImages = Literal["stop", "quarantine"]
QUARANTINE = f"{DATASET}/quarantine.jsonl"
# The fields of a recipe that decide the prepared data set.
RECIPE_FIELDS = ("data", "data_seed", "val_percent", "images_per_shard", "stored_short_side_px")
STORED_JPEG_QUALITY = 95
EVALUATION_IMAGES_PER_SHARD = 1024
NAMES_IN_MESSAGE = 20


@dataclass(frozen=True)
class ShardPlan:
    """One shard to write: its file below ``dataset/`` and its images."""

    file: str
    images: tuple[ImageFile, ...]

    @property
    def note(self) -> str:
        """The file beside the shard that says what is in it; written after the shard."""
        return self.file.replace(".parquet", ".json")

    @property
    def digest(self) -> str:
        """Of the images that belong into the shard."""
        return hashlib.sha256(_images_to_json(self).encode()).hexdigest()


@dataclass(frozen=True)
class Source:
    """Where image bytes come from: a folder, or the embedded data set with its seed; and how they are stored."""

    folder: Storage | None
    seed: int = 0
    short_side_px: int | None = None

    def read(self, image_id: str) -> bytes:
        """The original bytes of an image."""
        return self.folder.read(image_id) if self.folder else embedded_dataset.generate(image_id, self.seed).image

    def to_store(self, image_id: str) -> tuple[bytes, int, int]:
        """Bytes to store, width and height in pixels.

        Raises:
            ImageDecodeError: the image cannot be decoded.
        """
        data = self.read(image_id)
        pixels = decode_rgb(data)
        height, width = pixels.shape[:2]
        if self.short_side_px is None or min(width, height) <= self.short_side_px:
            return data, width, height
        width, height = scaled_size(width, height, self.short_side_px)
        return _encode_jpeg(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)), width, height


def find_images(run: Storage, recipe: Recipe) -> tuple[Source, Listing] | None:
    """The images to prepare, listed but not read; None where they are prepared already. Needs no cluster.

    Raises:
        UserError: the images cannot be used.
    """
    return None if run.exists(MANIFEST) else _open_source(recipe)


def prepare(
    run: Storage, recipe: Recipe, bad_images: BadImages = "stop", found: tuple[Source, Listing] | None = None
) -> Manifest:
    """Prepare ``recipe.data`` in ``run`` for training; does nothing where that is done already.

    Needs a connection to a Ray cluster. ``found`` is what :func:`find_images` gave, if it was called.

    Raises:
        UserError: the images cannot be used; nothing is lost, mend them and call again.
    """
    prepared_from = {name: recipe.to_dict()[name] for name in RECIPE_FIELDS}
    if run.exists(MANIFEST):
        return _read_matching_manifest(run, prepared_from)
    source, listing = found or _open_source(recipe)
    manifest = _prepare(run, source, listing, prepared_from, bad_images)
    if gone := [name for name, count in manifest.splits["train"].counts.items() if count == 0]:
        # Quarantine may empty a class; training on a class without images would go unnoticed.
        raise UserError(f"no training image of class {', '.join(gone)} can be decoded; mend its files or remove it")
    run.write_json(MANIFEST, manifest.to_dict())
    return manifest


def prepare_for_evaluation(run: Storage, data: str, listing: Listing, bad_images: BadImages) -> Manifest:
    """Prepare the labelled images of the folder ``data`` in ``run``, as a validation split without a training split.

    ``listing`` is what :func:`pipelines.image_folder.list_evaluation_folder` gave. Needs a connection to a Ray cluster.

    Raises:
        UserError: the images cannot be used.
    """
    prepared_from = {"data": data, "classes": list(listing.classes), "images_per_shard": EVALUATION_IMAGES_PER_SHARD}
    if run.exists(MANIFEST):
        return _read_matching_manifest(run, prepared_from)
    manifest = _prepare(run, Source(Storage.at(data)), listing, prepared_from, bad_images)
    run.write_json(MANIFEST, manifest.to_dict())
    return manifest


def _prepare(
    run: Storage, source: Source, listing: Listing, prepared_from: dict[str, Any], bad_images: BadImages
) -> Manifest:
    if ignored := listing.ignored_summary():
        say(f"not part of any class, ignored: {ignored}")
    size = prepared_from["images_per_shard"]
    plans = [plan for split in SPLITS for plan in _plan_shards(split, listing.splits[split], size)]
    for split in SPLITS:
        run.remove_partial_files(f"{DATASET}/{split}")
    results = list(_write_shards(run, source, plans))
    rejected = sorted((bad for result in results for bad in result["rejected"]), key=lambda bad: str(bad["image_id"]))
    if rejected and (bad_images == "stop" or any(bad["unreadable"] for bad in rejected)):
        raise UserError(_rejection(rejected, prepared_from["data"]))
    manifest = _manifest(prepared_from, listing.classes, plans, results, len(rejected))
    if not manifest.splits["val"].images:
        raise UserError("no validation image can be decoded; mend them or add others")
    if rejected:
        run.write(QUARANTINE, "".join(json.dumps(bad, ensure_ascii=False) + "\n" for bad in rejected).encode())
    return manifest


def _read_matching_manifest(run: Storage, prepared_from: dict[str, Any]) -> Manifest:
    manifest = read_manifest(run)
    if found := differences(manifest.prepared_from, prepared_from):
        raise UserError(f"the data set in {run} was prepared otherwise:\n  " + "\n  ".join(found))
    return manifest


def _open_source(recipe: Recipe) -> tuple[Source, Listing]:
    if not recipe.data:
        raise UserError("no data: name an image folder with --data, or --data embedded for the built-in digits")
    if recipe.data != embedded_dataset.NAME:
        folder = Storage.at(recipe.data)
        source = Source(folder, short_side_px=recipe.stored_short_side_px)
        return source, list_image_folder(folder, recipe.val_percent)
    classes = embedded_dataset.CLASSES
    splits = {
        split: tuple(ImageFile(name, classes.index(name.split("/")[1])) for name in embedded_dataset.image_ids(split))
        for split in SPLITS
    }
    return Source(None, recipe.data_seed, recipe.stored_short_side_px), Listing(classes, splits)


def _plan_shards(split: str, images: Sequence[ImageFile], images_per_shard: int) -> Iterator[ShardPlan]:
    for number, first in enumerate(range(0, len(images), images_per_shard)):
        yield ShardPlan(f"{split}/{number:05d}.parquet", tuple(images[first : first + images_per_shard]))


def _write_shards(run: Storage, source: Source, plans: Sequence[ShardPlan]) -> Iterator[dict[str, Any]]:
    """Write the shards on the cluster, one task each, and give what each task found, in the order of ``plans``."""
    import ray.data

    # A row carries its own plan, so that no task is sent the names of all images. As JSON: Ray Data would have to
    # guess a schema for lists that are empty in most rows.
    rows = [{"plan": number, "images": _images_to_json(plan)} for number, plan in enumerate(plans)]
    files = [plan.file for plan in plans]

    def write(row: dict[str, Any]) -> dict[str, Any]:
        plan = ShardPlan(files[row["plan"]], tuple(ImageFile(*image) for image in json.loads(row["images"])))
        result = _finished_shard(run, plan) or write_shard(run, source, plan)
        return {"plan": row["plan"], "result": json.dumps(result)}

    found = ray.data.from_items(rows, override_num_blocks=len(rows)).map(write)
    by_plan = {row["plan"]: json.loads(row["result"]) for row in found.iter_rows()}
    for number in range(len(plans)):
        yield by_plan[number]


def _images_to_json(plan: ShardPlan) -> str:
    return json.dumps([(image.image_id, image.label) for image in plan.images])


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
            data, width, height = source.to_store(file.image_id)
        except (ImageDecodeError, OSError) as error:
            # Only what is broken can be left out; what cannot be read now may be whole.
            unreadable = isinstance(error, OSError)
            rejected.append({"image_id": file.image_id, "reason": str(error), "unreadable": unreadable})
            continue
        digest.update(f"{file.image_id}\0{file.label}\0{hashlib.sha256(data).hexdigest()}\n".encode())
        row = (file.image_id, data, file.label, width, height)
        for name, value in zip(SCHEMA.names, row, strict=True):
            columns[name].append(value)
    with run.writing(f"{DATASET}/{plan.file}") as stream:
        # Encoded images do not compress; random access is quicker without.
        pq.write_table(pa.table(columns, SCHEMA), stream, row_group_size=ROW_GROUP_IMAGES, compression="none")
    counts = {str(label): count for label, count in Counter(columns["label"]).items()}
    result = {"images": len(columns["label"]), "counts": counts, "digest": digest.hexdigest(), "rejected": rejected}
    run.write_json(f"{DATASET}/{plan.note}", {"plan": plan.digest, **result})
    return result


def _encode_jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=STORED_JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def _rejection(rejected: Sequence[dict[str, Any]], data: str) -> str:
    shown = [f"  {bad['image_id']}: {bad['reason']}" for bad in rejected[:NAMES_IN_MESSAGE]]
    if len(rejected) > NAMES_IN_MESSAGE:
        shown.append(f"  and {len(rejected) - NAMES_IN_MESSAGE} more")
    return "\n".join(
        [
            f"{len(rejected)} files in {data} cannot be decoded or read:",
            *shown,
            "Mend or remove them, or go on without those that cannot be decoded: --bad-images quarantine",
        ]
    )


def _manifest(
    prepared_from: dict[str, Any],
    classes: tuple[str, ...],
    plans: Sequence[ShardPlan],
    results: Sequence[dict[str, Any]],
    quarantined: int,
) -> Manifest:
    splits = {}
    for split in SPLITS:
        mine = [(p, r) for p, r in zip(plans, results, strict=True) if p.file.startswith(f"{split}/")]
        counts: Counter[str] = Counter()
        for _, result in mine:
            counts.update(result["counts"])
        shards = tuple(Shard(plan.file, r["images"], r["digest"]) for plan, r in mine)
        splits[split] = Split(shards, {name: counts[str(label)] for label, name in enumerate(classes)})
    digests = [shard.digest for split in SPLITS for shard in splits[split].shards]
    digest = hashlib.sha256("\n".join([*classes, *digests]).encode()).hexdigest()
    return Manifest(prepared_from, classes, splits, digest, quarantined)


@dataclass(frozen=True)
class Arguments:
    """Prepare images: Parquet shards and a manifest in the run directory."""

    data: str
    """Image folder (train/<class>/*, val/<class>/*, or <class>/*), or 'embedded' for the built-in digits."""
    run_dir: str
    """Run directory: a path, or a URI of an object store."""
    data_seed: int = 0
    """Seed of the embedded data set."""
    val_percent: float = 10.0
    """Share of each class that becomes validation, in percent, where the folder has no split."""
    images_per_shard: int = 1024
    """Images in one Parquet shard."""
    stored_short_side_px: int | None = None
    """Store larger images shrunk to this shorter side, as JPEG of quality 95; None keeps every original byte."""
    bad_images: BadImages = "stop"
    """What to do about files that cannot be decoded."""


def _main() -> None:
    arguments = parse(Arguments)
    recipe = Recipe(
        data=absolute_data(arguments.data),
        data_seed=arguments.data_seed,
        val_percent=arguments.val_percent,
        images_per_shard=arguments.images_per_shard,
        stored_short_side_px=arguments.stored_short_side_px,
    )
    run = Storage.at(arguments.run_dir)
    found = find_images(run, recipe)
    with native_errors_in(run), connected():
        manifest = prepare(run, recipe, arguments.bad_images, found)
    print(manifest.summary())


if __name__ == "__main__":
    run_command(_main)
