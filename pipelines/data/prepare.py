"""Preparation of a data set: from a listing of images to shards and their manifest."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from googlenet.images.decoding import ImageDecodeError
from pipelines.data.bad_images import error_about, refuse_unseen
from pipelines.data.copies import remarks_on_copies, remarks_on_labels
from pipelines.data.file_versions import FileVersions
from pipelines.data.published_data import commit_read_by
from pipelines.data.shards import ShardPlan, as_stored, plan_shards, write_shards
from pipelines.data.sources import Images, images_to_train_on
from pipelines.data.written_shards import BadImage, WrittenShard
from pipelines.errors import UserError
from pipelines.job.console import count, say, some
from pipelines.run.claims import LISTING, OtherImagesError, claim_images, replicas_need_their_images
from pipelines.run.dataset import (
    SHARD_FILE,
    SPLITS,
    BadImages,
    Counts,
    Manifest,
    Shard,
    Split,
    check_shards,
    digest_of,
    open_records,
    read_manifest,
)
from pipelines.run.differences import differences
from pipelines.run.directory import BAD_IMAGES, DATASET, MANIFEST, QUARANTINE
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.run.storage_failures import is_outage

# Recipe fields that decide the prepared data set.
RECIPE_FIELDS = ("data", "data_seed", "val_percent", "images_per_shard", "stored_short_side_px")
EVALUATION_IMAGES_PER_SHARD = 256
IMAGES_TO_TIME = 16


def find_images(run: Storage, recipe: Recipe) -> Images | None:
    """Return the images to prepare, listed but not read; None if they are already prepared. Needs no cluster.

    Raises:
        UserError: the images cannot be used, or others are prepared, as by prepare_dataset.py with other options.
    """
    if run.exists(MANIFEST):
        _check_same(run, read_manifest(run), _prepared_from(recipe))
        return None
    return _list_images(recipe)


def count_images(run: Storage, images: Images | None) -> Counts:
    """Return the numbers of images as listed, or as prepared if that is done: ``images`` is that of `find_images`."""
    if images is None:
        manifest = read_manifest(run)
        return Counts(manifest.splits["train"].images, manifest.splits["val"].images, len(manifest.classes))
    listing = images.listing
    return Counts(len(listing.splits["train"]), len(listing.splits["val"]), len(listing.classes))


def classes_and_images(run: Storage, images: Images | None) -> tuple[tuple[str, ...], int]:
    """Return the classes and the number of all images, those left out later included; as listed, or as prepared."""
    if images is None:
        manifest = read_manifest(run)
        return manifest.classes, manifest.listed
    return images.listing.classes, sum(map(len, images.listing.splits.values()))


def images_to_time(run: Storage, recipe: Recipe, images: Images | None) -> list[bytes]:
    """Return a few training images as they are or will be stored, to time their loading.

    ``images`` is the result of :func:`find_images`. Those that cannot be used are left out: the preparation names them.

    Raises:
        UserError: none of those that were tried can be used.
    """
    if images is None:
        records = open_records(run, read_manifest(run).splits["train"])
        return [records[index].image for index in _spread(len(records))]
    files, encoded, bad = images.listing.splits["train"], [], []
    for index in _spread(len(files)):
        try:
            encoded.append(as_stored(images.reader.read(files[index]), recipe.stored_short_side_px))
        except (OSError, ImageDecodeError) as error:
            if is_outage(error):
                raise
            bad.append(f"{files[index].image_id}: {error}")
    if bad and not encoded:
        tried = "the training image" if len(bad) == 1 else count(len(bad), "training image")
        raise UserError(f"no time can be estimated, since none of {tried} that were tried can be used, as {bad[0]}")
    return encoded


def _spread(number: int) -> list[int]:
    """Return at most ``IMAGES_TO_TIME`` places among ``number``, evenly spread."""
    chosen = min(number, IMAGES_TO_TIME)
    return [place * number // chosen for place in range(chosen)]


def prepare(
    run: Storage,
    recipe: Recipe,
    bad_images: BadImages = "stop",
    images: Images | None = None,
    check: Callable[[int], None] = lambda _: None,
) -> Manifest:
    """Prepare ``recipe.data`` in ``run`` for training; does nothing if that is already done.

    Needs a connection to a Ray cluster. ``images`` is the result of :func:`find_images`, if it was called. ``check``
    may refuse the number of training images that are left, before the run is bound to its recipe by having images.

    Raises:
        UserError: the images cannot be used, or are not those that the run's replicas were trained on; nothing is lost,
            fix them and call again.
    """
    prepared_from = _prepared_from(recipe)
    if run.exists(MANIFEST):
        manifest = _read_matching_manifest(run, prepared_from)
        claim_images(run, manifest.digest)
        return manifest
    already_there = _shard_files(run)
    manifest, bad = _prepare(run, images or _list_images(recipe), prepared_from, bad_images)
    if gone := [name for name, count in manifest.splits["train"].counts.items() if count == 0]:
        # Quarantine may empty a class, and training on a class without images would go unnoticed.
        raise UserError(f"no training image of class {some(gone)} can be decoded; fix its files or remove it")
    check(manifest.splits["train"].images)
    try:
        claim_images(run, manifest.digest)
    except OtherImagesError:
        # Refused shards would be in the way of those of the right images.
        run.delete_all(sorted(_shard_files(run) - already_there))
        raise
    _keep(run, manifest, bad)
    return manifest


def prepare_for_evaluation(run: Storage, data: str, images: Images, bad_images: BadImages) -> Manifest:
    """Prepare the ``images`` of ``data`` in ``run``, as a validation split without a training split.

    Needs a connection to a Ray cluster.

    Raises:
        UserError: the images cannot be used.
    """
    prepared_from = {
        "data": data,
        LISTING: images.listing.digest,
        "classes": list(images.listing.classes),
        "images_per_shard": EVALUATION_IMAGES_PER_SHARD,
        "versions": images.listing.versions,
    }
    if run.exists(MANIFEST):
        before = read_manifest(run).prepared_from
        if before.get("data") == data and before.get(LISTING) not in (None, prepared_from[LISTING]):
            raise UserError(
                f"images of {data} were added, removed or renamed since {run} was made, or only one of the two "
                "evaluations has --unlabelled: choose another directory for this one"
            )
        if "versions" not in before:  # of an earlier version
            del prepared_from["versions"]
        elif {name for name in before if before[name] != prepared_from.get(name)} == {"versions"}:
            raise UserError(
                f"images in {data} may have been replaced under their names since {run} was made (file sizes, file "
                "times or the commit on the Hub differ; @COMMIT after the name pins a commit): choose another "
                "directory for this evaluation"
            )
        return _read_matching_manifest(run, prepared_from)
    manifest, bad = _prepare(run, images, prepared_from, bad_images)
    _keep(run, manifest, bad)
    return manifest


def _shard_files(run: Storage) -> set[str]:
    return {f"{DATASET}/{split}/{name}" for split in SPLITS for name in run.files(f"{DATASET}/{split}")}


def _keep(run: Storage, manifest: Manifest, bad: Sequence[BadImage]) -> None:
    """Write the manifest, and the list of what is left out, in place of that of an earlier attempt.

    Shards of that attempt, which may be of other images, are removed: programs may read all that are in the folder.
    """
    for split in SPLITS:
        kept = {shard.file.rpartition("/")[2].removesuffix(".parquet") for shard in manifest.splits[split].shards}
        names = filter(SHARD_FILE.fullmatch, run.files(f"{DATASET}/{split}"))
        run.delete_all(f"{DATASET}/{split}/{name}" for name in names if name.partition(".")[0] not in kept)
    if bad:
        run.write_json_lines(QUARANTINE, map(asdict, bad))
    else:
        run.delete(QUARANTINE)
    run.delete(BAD_IMAGES)
    run.write_json(MANIFEST, manifest.to_dict())


def _prepare(
    run: Storage, images: Images, prepared_from: dict[str, Any], bad_images: BadImages
) -> tuple[Manifest, list[BadImage]]:
    """Write the shards; return the manifest, and the images that are left out."""
    plans = _plans(run, images, prepared_from)
    for folder in (DATASET, *(f"{DATASET}/{split}" for split in SPLITS)):
        run.remove_partial_files(folder)
    say(f"preparing {count(sum(len(plan.images) for plan in plans), 'image')} in {run} ...")
    results = list(write_shards(run, images.reader, plans))
    bad = sorted((one for written in results for one in written.bad_images), key=lambda one: one.image_id)
    refuse_unseen(bad, prepared_from["data"], images)
    _refuse_bad(run, prepared_from["data"], bad, bad_images)
    manifest = _manifest(prepared_from, images.listing.classes, plans, results, len(bad))
    if not manifest.splits["val"].images:
        raise UserError("no validation image can be decoded; fix the files or add others")
    for note, image_ids in manifest.notes.items():
        say(f"{count(len(image_ids), 'image')} used although {note}: see notes in {run.below(MANIFEST)}")
    for remark in (*remarks_on_copies(plans, results), *remarks_on_labels(plans, results)):
        say(f"data: {remark}")
    return manifest, bad


def _plans(run: Storage, images: Images, prepared_from: dict[str, Any]) -> list[ShardPlan]:
    """Return the shards to write, with all that decides whether one that exists may stay."""
    reader, listing = images
    size, short_side_px = prepared_from["images_per_shard"], prepared_from.get("stored_short_side_px")
    # A shard from an earlier commit of a published data set is not reused.
    commit = {"commit": read} if (read := commit_read_by(reader)) else {}
    settings = json.dumps({**prepared_from, **commit}, sort_keys=True)
    plans = [
        plan for split in SPLITS for plan in plan_shards(split, listing.splits[split], size, settings, short_side_px)
    ]
    if "versions" not in prepared_from:
        # Each shard has the versions of its own images: if one is replaced meanwhile, only its shard is written again.
        versions = FileVersions(reader)
        plans = [replace(plan, versions=versions.digest(plan.images)) for plan in plans]
    if replicas_need_their_images(run):
        plans = [replace(plan, keeps_others=True) for plan in plans]
    return plans


def _refuse_bad(run: Storage, data: str, bad: Sequence[BadImage], bad_images: BadImages) -> None:
    """Raise if ``bad`` are not to be left out; those that cannot be read now may be intact, and never are."""
    unreadable = [one for one in bad if one.unreadable]
    if bad_images == "quarantine" and unreadable:
        fix = "They may be intact: make them readable, or remove them, and run the same command again."
        raise error_about(unreadable, run, f"in {data} cannot be read", fix)
    if bad_images == "stop" and bad:
        fix = "Fix or remove them, or skip those that cannot be decoded with --bad-images quarantine"
        raise error_about(bad, run, f"in {data} cannot be decoded or read", fix)


def _prepared_from(recipe: Recipe) -> dict[str, Any]:
    values = recipe.to_dict()
    return {name: values[name] for name in RECIPE_FIELDS}


def _read_matching_manifest(run: Storage, prepared_from: dict[str, Any]) -> Manifest:
    manifest = read_manifest(run)
    _check_same(run, manifest, prepared_from)
    say(f"checking the prepared images in {run} ...")
    check_shards(run, manifest)
    return manifest


def _check_same(run: Storage, manifest: Manifest, prepared_from: dict[str, Any]) -> None:
    if changed := differences(_by_option(manifest.prepared_from), _by_option(prepared_from)):
        raise UserError(
            f"the data set in {run} was prepared from other data, or with other options:\n  "
            + "\n  ".join(changed)
            + "\nGive the same --data and options as before, or choose another directory."
        )


def _by_option(values: dict[str, Any]) -> dict[str, Any]:
    """Return values by the names that users know: those of options, if they are set by options."""
    return {f"--{name.replace('_', '-')}" if name in RECIPE_FIELDS else name: values[name] for name in values}


def _list_images(recipe: Recipe) -> Images:
    return images_to_train_on(recipe.data, recipe.val_percent, recipe.data_seed)


def _manifest(
    prepared_from: dict[str, Any],
    classes: tuple[str, ...],
    plans: Sequence[ShardPlan],
    results: Sequence[WrittenShard],
    quarantined: int,
) -> Manifest:
    splits = {}
    for split in SPLITS:
        mine = [(p, w) for p, w in zip(plans, results, strict=True) if p.file.startswith(f"{split}/")]
        counts: Counter[str] = Counter()
        for _, written in mine:
            counts.update(written.counts)
        shards = tuple(Shard(plan.file, written.images, written.digest) for plan, written in mine)
        splits[split] = Split(shards, {name: counts[str(label)] for label, name in enumerate(classes)})
    return Manifest(prepared_from, classes, splits, digest_of(classes, splits), quarantined, _notes(results))


def _notes(results: Sequence[WrittenShard]) -> dict[str, tuple[str, ...]]:
    """Return the ids of images by what is peculiar about them."""
    by_note: dict[str, list[str]] = defaultdict(list)
    for written in results:
        for note, image_ids in written.notes.items():
            by_note[note] += image_ids
    return {note: tuple(sorted(image_ids)) for note, image_ids in sorted(by_note.items())}
