"""Targets of a student: the teacher's own answers, one file, the same after a kill; refusals of unfit teachers."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from googlenet import Ensemble, GoogLeNet
from googlenet.evaluation.crops import chosen_policy
from googlenet.evaluation.kept_budget import KeptBudget
from googlenet.network.arithmetic import FP32
from googlenet.network.complexity import forward_flops
from pipelines.errors import UserError
from pipelines.evaluation.predictors import AS_MANY_AS_FIT
from pipelines.evaluation.targets import keep_teacher, make_targets, predict_training_images
from pipelines.run.budget import write_budget
from pipelines.run.dataset import read_manifest
from pipelines.run.named_recipes import demo, distil
from pipelines.run.predictions import EvaluatedEnsemble
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.run.teacher import (
    check_same_images,
    check_teacher,
    check_that_a_teacher_is_given,
    read_targets,
    recipe_of_student,
    with_named_views,
)
from pipelines.run.weights import weights_digests
from tests.prepared import predicting_here, some_weights

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def student(prepared_run: Path, tmp_path: Path) -> Path:
    """A run with the data set of the teacher and nothing else."""
    return Path(shutil.copytree(prepared_run, tmp_path / "student"))


def of(teacher: Path, recipe: Recipe) -> Recipe:
    return replace(distil(recipe), teacher=str(teacher))


def test_targets_are_the_teachers_answers_in_the_order_of_the_images_whatever_is_killed(
    trained_run: Path, student: Path, tiny_recipe: Recipe, photo_folder: Path
) -> None:
    policy = chosen_policy([0, 70, 143])
    run, recipe = Storage.at(str(student)), replace(of(trained_run, tiny_recipe), teacher_policy=policy)
    with predicting_here():
        predict_training_images(run, recipe, AS_MANY_AS_FIT)
        killed = Path(shutil.copytree(student, student.parent / "killed"))
        make_targets(run, recipe)
    ensemble = Ensemble.load(sorted(trained_run.glob("replicas/*/weights.safetensors")))
    rows = pq.read_table(student / "teacher/targets.parquet").to_pylist()
    assert len(rows) == 24
    for row in rows[::5]:
        expected = ensemble.probabilities(photo_folder / row["image_id"], policy).mean(axis=0)
        np.testing.assert_allclose(row["probabilities"], expected, atol=1e-5)
    found = read_targets(run, read_manifest(run))
    np.testing.assert_array_equal(found, np.array([row["probabilities"] for row in rows], np.float32))
    assert not list(student.glob("teacher/predictions/*"))

    # Killed while a shard was written, and once more between the file and the end of the stage.
    (killed / "teacher/predictions/000001.parquet").rename(killed / "teacher/predictions/000001.parquet.partial-1")
    (killed / "teacher/targets.parquet.partial-1").write_bytes(b"half")
    with predicting_here():
        make_targets(Storage.at(str(killed)), recipe)
    assert list(killed.rglob("*.partial-*")) == []
    files = [folder / "teacher/targets.parquet" for folder in (student, killed)]
    assert files[0].read_bytes() == files[1].read_bytes()
    written = files[1].stat().st_mtime_ns
    (killed / "teacher/predictions/000000.parquet").write_bytes(b"left over")
    make_targets(Storage.at(str(killed)), recipe)
    assert files[1].stat().st_mtime_ns == written
    assert not list(killed.glob("teacher/predictions/*"))


def a_teacher(folder: Path, prepared_run: Path, recipe: Recipe, finished: int) -> Path:
    """A run whose weights are of no network: enough for what is checked before anything is computed."""
    shutil.copytree(prepared_run, folder)
    run = Storage.at(str(folder))
    run.write_json("run.json", {"id": "1", "recipe": recipe.to_dict()})
    for replica in range(finished):
        run.write(f"replicas/{replica}/weights.safetensors", some_weights(replica))
    return folder


def test_a_pass_of_the_teacher_is_weighed_by_its_multiplications(
    prepared_run: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    taught = replace(tiny_recipe, wide_replica_width=0.25)  # of three replicas, one is twice as wide
    teacher = Storage.at(str(a_teacher(tmp_path / "teacher", prepared_run, taught, 3)))
    names = ("replica_0", "replica_2")
    ensemble = EvaluatedEnsemble(names, names, (1,), 35, CLASSES, "digest", FP32)

    def cost(width: float) -> float:
        run = Storage.at(str(tmp_path / "student"))
        keep_teacher(run, replace(tiny_recipe, replicas=1, width=width), teacher, ensemble)
        return float(run.read_json("teacher/teacher.json")["pass_cost"])

    flops = {width: forward_flops(GoogLeNet(3, "bn", width=width), 35) for width in (0.125, 0.25)}
    assert cost(0.125) == pytest.approx((flops[0.125] + flops[0.25]) / 2 / flops[0.125])
    assert cost(0.25) == pytest.approx((flops[0.125] + flops[0.25]) / 2 / flops[0.25])
    assert 2 < flops[0.25] / flops[0.125] < 4


CLASSES = ("class_0", "class_1", "class_2")


def test_a_student_takes_all_settings_of_the_teachers_replicas_but_their_number(
    prepared_run: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    teacher = a_teacher(tmp_path / "teacher", prepared_run, tiny_recipe, 3)
    assert recipe_of_student(distil(), str(teacher)) == replace(
        tiny_recipe, name="distil", replicas=1, teacher=str(teacher)
    )


def test_a_teacher_that_cannot_teach_is_refused_with_the_way_out(
    prepared_run: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    run, teacher = Storage.at(str(tmp_path / "run")), tmp_path / "teacher"
    with pytest.raises(UserError, match="--teacher is for --recipe distil, not for the recipe demo"):
        recipe_of_student(demo(), str(teacher))
    with pytest.raises(UserError, match="teacher holds no training run; give the directory of a finished run"):
        recipe_of_student(distil(), str(teacher))
    with pytest.raises(UserError, match=r"the recipe distil needs a teacher: give the directory .* with --teacher"):
        check_that_a_teacher_is_given(run, distil())
    a_teacher(teacher, prepared_run, tiny_recipe, 2)
    recipe = of(teacher, tiny_recipe)
    with pytest.raises(UserError, match=r"teacher is not finished \(replicas: 2 of 3\); run its command again"):
        check_teacher(run, recipe, CLASSES, 66)
    Storage.at(str(teacher)).write_json("report/report.json", {})  # two were enough for its evaluation
    check_teacher(run, recipe, CLASSES, 66)
    for classes, images, expected in (
        (("class_0", "class_1", "dog"), 66, "other classes: 'class_2', here 'dog'; leave out the data options"),
        (CLASSES[:2], 66, "other classes: 3, here 2"),
        (CLASSES, 67, "another data set: 66 images, here 67"),
    ):
        with pytest.raises(UserError, match=expected):
            check_teacher(run, recipe, classes, images)
    with pytest.raises(UserError, match=r"teacher_policy: .*256\+x"):
        check_teacher(run, replace(recipe, teacher_policy="256+x"), CLASSES, 66)
    with pytest.raises(UserError, match="cannot be its own teacher"):
        check_teacher(Storage.at(str(teacher)), recipe, CLASSES, 66)
    manifest = read_manifest(Storage.at(str(teacher)))
    check_same_images(run, recipe, manifest)
    # As many images of the same classes, of which one has other bytes.
    differing = rf"\(digest {manifest.digest[:12]}\) there, .*\(digest other\) here"
    expected = rf"teacher has another data set than {run}: .*{differing}"
    with pytest.raises(UserError, match=expected):
        check_same_images(run, recipe, replace(manifest, digest="other"))


def test_the_views_that_help_a_teacher_most_are_named_once_from_what_it_keeps(
    prepared_run: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    teacher = Storage.at(str(a_teacher(tmp_path / "teacher", prepared_run, tiny_recipe, 3)))
    run, recipe = Storage.at(str(tmp_path / "run")), of(tmp_path / "teacher", tiny_recipe)
    asked = replace(recipe, teacher_policy="best:3")
    a_teacher(tmp_path / "begun", prepared_run, tiny_recipe, 0)
    with pytest.raises(UserError, match=r"begun is not finished \(replicas: 0 of 3\)"):
        with_named_views(run, replace(asked, teacher=str(tmp_path / "begun")))
    with pytest.raises(UserError, match=r"^--teacher-policy best:3 needs .*teacher/budget\.json"):
        with_named_views(run, asked)
    ones, order = (1.0,) * 144, tuple(range(143, -1, -1))
    write_budget(teacher, KeptBudget(weights_digests(teacher, range(3)), "", 42, order, ((1, 1),), (1.0,), ones, {}))
    named = with_named_views(run, asked)
    assert named == replace(recipe, teacher_policy=chosen_policy([143, 142, 141]))
    for other in (recipe, named, replace(asked, teacher="")):
        assert with_named_views(run, other) == other
    run.write_json("run.json", {"id": "1", "recipe": named.to_dict()})
    teacher.delete("budget.json")  # the command is repeated, and the teacher was evaluated again
    assert with_named_views(run, asked) == named
    with pytest.raises(UserError, match=r"begun is not finished"):  # not the views of the teacher before
        with_named_views(run, replace(asked, teacher=str(tmp_path / "begun")))
    with pytest.raises(UserError, match="--teacher-policy best:4 needs"):
        with_named_views(run, replace(recipe, teacher_policy="best:4"))


def test_a_teacher_is_not_needed_once_its_answers_are_kept(tmp_path: Path, tiny_recipe: Recipe) -> None:
    run, recipe = Storage.at(str(tmp_path / "run")), of(tmp_path / "gone", tiny_recipe)
    with pytest.raises(UserError, match="holds no training run"):
        check_teacher(run, recipe, CLASSES, 66)
    run.write("teacher/targets.parquet", b"")
    check_teacher(run, recipe, CLASSES, 66)


def test_targets_that_are_damaged_or_of_other_images_are_refused(prepared_run: Path, tmp_path: Path) -> None:
    run, manifest = Storage.at(str(tmp_path)), read_manifest(Storage.at(str(prepared_run)))
    run.write("teacher/targets.parquet", b"torn")
    with pytest.raises(UserError, match=r"targets.parquet is damaged .*; delete it, and train_ensemble.py makes it"):
        read_targets(run, manifest)
