"""Preparation of a data set: from a listing of images to shards and their manifest."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from pipelines.data.listing import Listing
from pipelines.data.shards import ShardPlan, Source, plan_shards, write_shards
from pipelines.data.sources import Images, images_to_train_on
from pipelines.errors import UserError
from pipelines.job.console import say
from pipelines.run.dataset import SPLITS, Manifest, Shard, Split, check_shards, read_manifest
from pipelines.run.directory import DATASET, MANIFEST, differences
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage

BadImages = Literal["stop", "quarantine"]
QUARANTINE = f"{DATASET}/quarantine.jsonl"
# The fields of a recipe that decide the prepared data set.
RECIPE_FIELDS = ("data", "data_seed", "val_percent", "images_per_shard", "stored_short_side_px")
EVALUATION_IMAGES_PER_SHARD = 256
NAMES_IN_MESSAGE = 20


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


def prepare_for_evaluation(run: Storage, data: str, images: Images, bad_images: BadImages) -> Manifest:
    """Prepare the ``images`` of ``data`` in ``run``, as a validation split without a training split.

    Needs a connection to a Ray cluster.

    Raises:
        UserError: the images cannot be used.
    """
    reader, listing = images
    prepared_from = {
        "data": data,
        "listing": listing.digest,
        "classes": list(listing.classes),
        "images_per_shard": EVALUATION_IMAGES_PER_SHARD,
    }
    if run.exists(MANIFEST):
        return _read_matching_manifest(run, prepared_from)
    manifest = _prepare(run, Source(reader), listing, prepared_from, bad_images)
    run.write_json(MANIFEST, manifest.to_dict())
    return manifest


def _prepare(
    run: Storage, source: Source, listing: Listing, prepared_from: dict[str, Any], bad_images: BadImages
) -> Manifest:
    if ignored := listing.ignored_summary():
        say(f"not part of any class, ignored: {ignored}")
    size = prepared_from["images_per_shard"]
    settings = json.dumps(prepared_from, sort_keys=True)
    plans = [plan for split in SPLITS for plan in plan_shards(split, listing.splits[split], size, settings)]
    for split in SPLITS:
        run.remove_partial_files(f"{DATASET}/{split}")
    results = list(write_shards(run, source, plans))
    rejected = sorted((bad for result in results for bad in result["rejected"]), key=lambda bad: str(bad["image_id"]))
    unreadable = [bad for bad in rejected if bad["unreadable"]]
    if bad_images == "quarantine" and unreadable:
        mend = "They may be images: make them readable, or remove them, and give the same command again."
        raise UserError(_rejection(unreadable, f"in {prepared_from['data']} cannot be read", mend))
    if bad_images == "stop" and rejected:
        mend = "Mend or remove them, or go on without those that cannot be decoded: --bad-images quarantine"
        raise UserError(_rejection(rejected, f"in {prepared_from['data']} cannot be decoded or read", mend))
    manifest = _manifest(prepared_from, listing.classes, plans, results, len(rejected))
    if not manifest.splits["val"].images:
        raise UserError("no validation image can be decoded; mend them or add others")
    if rejected:
        run.write_json_lines(QUARANTINE, rejected)
    return manifest


def _read_matching_manifest(run: Storage, prepared_from: dict[str, Any]) -> Manifest:
    manifest = read_manifest(run)
    if found := differences(manifest.prepared_from, prepared_from):
        raise UserError(f"the data set in {run} was prepared otherwise:\n  " + "\n  ".join(found))
    check_shards(run, manifest)
    return manifest


def _open_source(recipe: Recipe) -> tuple[Source, Listing]:
    reader, listing = images_to_train_on(recipe.data, recipe.val_percent, recipe.data_seed)
    return Source(reader, recipe.stored_short_side_px), listing


def _rejection(rejected: Sequence[dict[str, Any]], problem: str, mend: str) -> str:
    shown = [f"  {bad['image_id']}: {bad['reason']}" for bad in rejected[:NAMES_IN_MESSAGE]]
    if len(rejected) > NAMES_IN_MESSAGE:
        shown.append(f"  and {len(rejected) - NAMES_IN_MESSAGE} more")
    files = "1 file" if len(rejected) == 1 else f"{len(rejected)} files"
    return "\n".join([f"{files} {problem}:", *shown, mend])


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
