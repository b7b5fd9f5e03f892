"""Claims: the plan of a student's targets counts the teacher's networks, and only what is left."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.run.directory import ReplicaFiles
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training.network import ensemble_bytes
from pipelines.training.targets_plan import targets_left

CLASSES, IMAGES = 3, 40


@pytest.fixture
def student(tiny_recipe: Recipe, tmp_path: Path) -> tuple[Storage, Recipe]:
    """A student half as wide as its teacher, of whose three replicas the second one has failed."""
    teacher = Storage.at(str(tmp_path / "teacher"))
    teacher.write_json("run.json", {"id": "1", "recipe": replace(tiny_recipe, width=0.5).to_dict()})
    for replica in (0, 2):
        teacher.write(ReplicaFiles(replica).weights, b"")
    recipe = replace(tiny_recipe, replicas=1, width=0.25, teacher=teacher.root, teacher_policy=10)
    return Storage.at(str(tmp_path / "student")), recipe


def test_the_teachers_finished_replicas_are_counted_with_their_own_size(student: tuple[Storage, Recipe]) -> None:
    run, recipe = student
    left = targets_left(run, recipe, IMAGES, ())
    assert left is not None
    assert (left.replicas, left.passes) == ((0, 2), 2 * 10 * IMAGES)
    assert left.passes_of(replace(recipe, width=0.5), CLASSES) == pytest.approx(left.passes)
    assert 2 * left.passes < left.passes_of(recipe, CLASSES) < 5 * left.passes
    # Two replicas of the teacher, not one of the student nor all three that were planned.
    assert left.memory_bytes(CLASSES) == ensemble_bytes(replace(recipe, width=0.5, replicas=2), CLASSES)
    assert left.memory_bytes(CLASSES)["cpu"] > ensemble_bytes(recipe, CLASSES)["cpu"]


def test_a_resumed_stage_is_counted_by_the_shards_that_are_left(student: tuple[Storage, Recipe]) -> None:
    run, recipe = student
    run.write("teacher/predictions/000000.parquet", b"")
    run.write("teacher/predictions/000002.parquet", b"")  # the last one, of 8 images
    left = targets_left(run, recipe, IMAGES, ())
    assert left is not None
    assert (left.images, left.passes) == (16, 2 * 10 * 16)
    run.write("teacher/targets.parquet", b"")
    assert targets_left(run, recipe, IMAGES, ()) is None


def test_views_of_square_images_that_coincide_are_answered_once(student: tuple[Storage, Recipe]) -> None:
    run, recipe = student
    left = targets_left(run, replace(recipe, teacher_policy=144), IMAGES, [(100, 100), (150, 100)])
    assert left is not None
    assert left.passes == 2 * (48 + 144) / 2 * IMAGES


def test_a_wide_replica_counts_with_its_own_width(tiny_recipe: Recipe) -> None:
    alike, one_wide, both_wide = (
        ensemble_bytes(replace(tiny_recipe, replicas=2, width=width, wide_replica_width=wide), CLASSES)["cpu"]
        for width, wide in ((0.125, None), (0.125, 0.5), (0.5, None))
    )
    assert alike < one_wide < both_wide
