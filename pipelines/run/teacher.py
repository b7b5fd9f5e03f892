"""The teacher of a student: a finished run, checked before anything is computed, and its answers in one file."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from googlenet.evaluation.crops import is_chosen, policy_scales_px, short_policy
from googlenet.images.rereading import read_again
from pipelines.errors import DamagedFileError, UserError
from pipelines.run.budget import with_chosen_views
from pipelines.run.dataset import Manifest, read_manifest
from pipelines.run.directory import REPORT_JSON, RUN, TARGETS, finished_replicas, read_recipe, read_run
from pipelines.run.named_recipes import distil
from pipelines.run.recipe import DISTIL, Recipe
from pipelines.run.storage import Storage
from pipelines.run.tables import CONTENT_ERRORS, is_damage, write_table

METADATA_KEY = b"googlenet_targets"
GIVE_ONE = "give the directory of a finished run of train_ensemble.py with --teacher"
SAME_DATA = "leave out the data options to use the teacher's data"


def recipe_of_student(recipe: Recipe, teacher: str) -> Recipe:
    """Return the recipe of a student of the run ``teacher``: that of the teacher's replicas, for one network.

    ``recipe`` is the one that was asked for; only the recipe ``distil`` takes a teacher.

    Raises:
        UserError: another recipe was asked for, or ``teacher`` holds no training run.
    """
    if recipe.name != DISTIL:
        raise UserError(f"--teacher is for --recipe {DISTIL}, not for the recipe {recipe.name}")
    return replace(distil(read_recipe(_run_of(teacher), "give one with --teacher")), teacher=teacher)


def absolute_teacher(teacher: str) -> str:
    """Return a path that does not depend on the working directory."""
    return Storage.at(teacher).root if teacher else ""


def with_named_views(run: Storage, recipe: Recipe) -> Recipe:
    """Return the recipe of ``run`` with the views that a policy such as ``best:24`` stands for in its teacher.

    Once ``run`` has begun, they are those of its start, whatever the teacher keeps now.

    Raises:
        UserError: the teacher is none, or not finished, or keeps no order of views, or the number of views is none.
    """
    asked = recipe.teacher_policy
    if not recipe.teacher or not is_chosen(asked) or asked != short_policy(asked):
        return recipe
    begun = read_run(run).get("recipe", {}) if run.exists(RUN) else {}
    if begun.get("teacher") == recipe.teacher and short_policy(begun["teacher_policy"]) == asked:
        return replace(recipe, teacher_policy=begun["teacher_policy"])
    teacher, _, replicas = _finished(run, recipe)
    return replace(recipe, teacher_policy=with_chosen_views(teacher, replicas, [asked], "--teacher-policy")[0])


def check_that_a_teacher_is_given(run: Storage, recipe: Recipe) -> None:
    """Refuse the recipe ``distil`` without a teacher, before its images are looked for: they are the teacher's.

    Raises:
        UserError: it has none, or another recipe has settings of a student that are not those of the run's start.
    """
    if recipe.name == DISTIL and not recipe.teacher:
        raise UserError(f"the recipe {DISTIL} needs a teacher: {GIVE_ONE}")
    begun = read_run(run).get("recipe", {}) if run.exists(RUN) else {}
    for name in () if recipe.teacher else ("teacher_policy", "teacher_temperature", "label_weight"):
        if (value := getattr(recipe, name)) not in (getattr(Recipe, name), begun.get(name)):
            raise UserError(
                f"{name} {value} has no effect, since only the recipe {DISTIL} learns from a teacher: leave it out, or "
                f"choose --recipe {DISTIL} and --teacher RUN"
            )


def check_teacher(run: Storage, recipe: Recipe, classes: Sequence[str], images: int) -> None:
    """Refuse a teacher that cannot teach ``run``, by its classes and the number of its images, all splits together.

    Once its answers are kept in ``run``, the teacher is not needed any more.

    Raises:
        UserError: it is not finished, is a student, has other classes or images, or not the scales of the crop policy.
    """
    if not recipe.teacher or run.exists(TARGETS):
        return
    teacher, taught, _ = _finished(run, recipe)
    manifest = read_manifest(teacher)
    if tuple(classes) != manifest.classes:
        differing = _first_difference(manifest.classes, classes)
        raise UserError(f"the teacher {teacher} has other classes: {differing}; {SAME_DATA}")
    if images != manifest.listed:
        raise UserError(
            f"the teacher {teacher} has another data set: {manifest.listed:,} images, here {images:,}; {SAME_DATA}"
        )
    try:
        policy_scales_px(recipe.teacher_policy, taught.crop_px)
    except ValueError as error:
        raise UserError(f"teacher_policy: {error}") from error


def _finished(run: Storage, recipe: Recipe) -> tuple[Storage, Recipe, list[int]]:
    """Return the teacher, its recipe and its finished replicas.

    Raises:
        UserError: it is ``run`` itself, is a student, or is not finished.
    """
    teacher = _run_of(recipe.teacher)
    if teacher.root == run.root:
        raise UserError(f"{run} cannot be its own teacher; choose another --run-dir")
    taught = read_recipe(teacher, "give one with --teacher")
    if taught.teacher:
        raise UserError(f"the teacher {teacher} is itself a student; give the run that taught it, {taught.teacher}")
    replicas = finished_replicas(teacher, taught.replicas)
    # A run that ended with fewer replicas than planned has a report.
    if not replicas or (len(replicas) < taught.replicas and not teacher.exists(REPORT_JSON)):
        raise UserError(
            f"the teacher {teacher} is not finished (replicas: {len(replicas)} of {taught.replicas}); "
            "run its command again until it is"
        )
    return teacher, taught, replicas


def check_same_images(run: Storage, recipe: Recipe, manifest: Manifest) -> None:
    """Refuse a teacher of other images: its answers would be about images that the student never sees.

    Raises:
        UserError: the prepared data sets differ.
    """
    if not recipe.teacher or run.exists(TARGETS):
        return
    theirs = read_manifest(_run_of(recipe.teacher))
    if theirs.digest != manifest.digest:
        raise UserError(
            f"the teacher {recipe.teacher} has another data set than {run}: {theirs.summary()} there, "
            f"{manifest.summary()} here; {SAME_DATA}"
        )


def _run_of(teacher: str) -> Storage:
    run = Storage.at(teacher)
    if not run.exists(RUN) or "recipe" not in read_run(run):
        raise UserError(f"the teacher {run} holds no training run; {GIVE_ONE}")
    return run


def _first_difference(theirs: Sequence[str], ours: Sequence[str]) -> str:
    if len(theirs) != len(ours):
        return f"{len(theirs)}, here {len(ours)}"
    return next(f"{theirs!r}, here {ours!r}" for theirs, ours in zip(theirs, ours, strict=True) if theirs != ours)


def write_targets(
    run: Storage, image_ids: Sequence[str], probabilities: npt.NDArray[np.float32], about: dict[str, Any]
) -> None:
    """Write the teacher's averaged probabilities (N, C) of the training images, in their order, as one file."""
    flat = pa.array(probabilities.reshape(-1), pa.float32())
    columns = {
        "image_id": pa.array(image_ids, pa.string()),
        "probabilities": pa.FixedSizeListArray.from_arrays(flat, probabilities.shape[1]),
    }
    table = pa.table(columns).replace_schema_metadata({METADATA_KEY: json.dumps(about)})
    write_table(run, TARGETS, table)


def read_targets(run: Storage, manifest: Manifest) -> npt.NDArray[np.float32]:
    """Return the teacher's probabilities (N, C) of the training images, in their order.

    Raises:
        UserError: the file is damaged, or of other images.
    """
    return read_again(lambda: _read_targets_once(run, manifest), DamagedFileError)


def _read_targets_once(run: Storage, manifest: Manifest) -> npt.NDArray[np.float32]:
    fix = "delete it, and train_ensemble.py makes it again"
    try:
        path, filesystem = run.path(TARGETS), run.filesystem
        with pq.ParquetFile(path, filesystem=filesystem, page_checksum_verification=True) as file:
            about, rows = json.loads(file.schema_arrow.metadata[METADATA_KEY]), file.metadata.num_rows
            is_same = about["dataset_digest"] == manifest.digest and rows == manifest.splits["train"].images
            targets = _read_in_parts(file, len(manifest.classes)) if is_same else None
    except (*CONTENT_ERRORS, KeyError, TypeError) as error:
        if not is_damage(error):
            raise
        reason = " ".join(str(error).split())
        raise DamagedFileError(f"{run.below(TARGETS)} is damaged ({reason}); {fix}") from error
    if targets is None:
        raise UserError(f"{run.below(TARGETS)} was computed for other images; {fix}")
    return targets


def _read_in_parts(file: pq.ParquetFile, classes: int) -> npt.NDArray[np.float32]:
    """Return all rows; of many images and classes they are most of a worker's memory, so there is one copy of them."""
    if file.schema_arrow.field("probabilities").type != pa.list_(pa.float32(), classes):
        raise ValueError(f"it has no vectors of {classes} classes")
    targets, first = np.empty((file.metadata.num_rows, classes), np.float32), 0
    for batch in file.iter_batches(columns=["probabilities"]):
        targets[first : first + len(batch)] = batch.column(0).flatten().to_numpy().reshape(len(batch), classes)
        first += len(batch)
    if first != len(targets):
        raise ValueError(f"it has {first} rows instead of {len(targets)}")
    return targets
