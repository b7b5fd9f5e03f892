"""Claims: the plan counts only what there is; the time of the evaluation is in test_evaluation_plan.py."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from googlenet.evaluation.crops import view_groups, views_of_all
from pipelines.evaluation.predictors import PredictorOptions, Predictors, predictors_on
from pipelines.job.console import size
from pipelines.run.dataset import Counts
from pipelines.run.directory import ReplicaFiles
from pipelines.run.named_recipes import finetune
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training import plan, time_estimate
from pipelines.training.plan import placement_lines
from pipelines.training.resources import Resources
from pipelines.training.storage_plan import storage_line
from pipelines.training.time_estimate import estimate
from pipelines.training.trial import Trial
from tests.pipelines.training.planned_runs import COUNTS, MEASURED, estimated, measure, predict, trained
from tests.pipelines.training.ray_nodes import node


@pytest.mark.parametrize(
    ("replicas", "line"),
    [(3, "plan: 3 replicas of 1 CPU each, 3 finished"), (1, "plan: 1 replica of 1 CPU, finished")],
)
def test_nothing_waits_where_all_is_finished(tmp_path: Path, replicas: int, line: str) -> None:
    run = Storage.at(str(tmp_path))
    for replica in range(replicas):
        run.write(ReplicaFiles(replica).weights, b"")
    assert placement_lines(run, Recipe(replicas=replicas), Resources(parallel_replicas=2)) == [line]


def test_an_elastic_replica_takes_all_the_workers_that_it_may_have_and_the_others_wait(
    nodes: list[dict[str, object]], tiny_recipe: Recipe, tmp_path: Path
) -> None:
    nodes[:] = [node({"CPU": 4.0})]
    run = Storage.at(str(tmp_path))
    recipe = replace(tiny_recipe, replicas=7, variant="paper", workers_per_replica=4, min_workers_per_replica=1)
    assert placement_lines(run, recipe, Resources()) == [
        "plan: 7 replicas of 4 workers, 1 CPU each, 1 at once, 6 waiting"
    ]
    assert " in 7 rounds (" in plan._training_line(run, recipe, Resources(), COUNTS, MEASURED)
    one, seven = (
        time_estimate.training_seconds(run, replace(recipe, replicas=replicas), Resources(), COUNTS, MEASURED)
        for replicas in (1, 7)
    )
    assert seven == pytest.approx(7 * one)


def test_once_all_replicas_are_trained_the_trial_has_a_predictors_resources_and_later_there_is_none(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes that held the workers may be gone: the trial would wait for them for half an hour."""
    run, asked = trained(tmp_path, tiny_recipe, monkeypatch), []

    def run_trial(*of_trial: Any) -> Trial:
        asked.append((of_trial[1], *of_trial[-2:]))
        return MEASURED

    monkeypatch.setattr(time_estimate, "run_trial", run_trial)
    on_gpus = Resources(8.0, 2.0, {"large": 1.0}, memory_bytes=10**10)

    def planned(_memory_bytes: object) -> Predictors:
        return Predictors(3, 0.0)

    found = estimate(run, tiny_recipe, on_gpus, COUNTS, planned, (), soup=False)
    assert asked == [(Resources(), 3, 0)]
    assert found.evaluation_seconds == pytest.approx(42 * 144 * 3 / 100 / 3)
    told = plan.plan_lines(run, tiny_recipe, on_gpus, found)
    assert [line.partition(":")[0] for line in told] == ["plan", "data", "training", "evaluation", "storage"]
    predict(run, 3)
    found = estimate(run, tiny_recipe, on_gpus, COUNTS, planned, (), soup=False)
    assert len(asked) == 1
    assert found.seconds == 0
    finished = ["training: finished", "evaluation: finished"]
    assert plan.plan_lines(run, tiny_recipe, on_gpus, found)[-2:] == finished


def test_a_students_plan_counts_the_storage_and_the_time_of_its_teachers_answers(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = Storage.at(str(tmp_path / "teacher"))
    teacher.write_json("run.json", {"id": "1", "recipe": tiny_recipe.to_dict()})
    for replica in range(3):
        teacher.write(ReplicaFiles(replica).weights, b"")
    student = replace(tiny_recipe, replicas=1, teacher=teacher.root, teacher_policy=10)
    measure(monkeypatch, seconds_per_scaled_image=0.5, start_seconds=3.0)
    run, counts = Storage.at(str(tmp_path / "student")), Counts(10**6, 42, 3)
    found = estimated(run, student, Resources(), counts=counts)
    # Three networks, ten crops; an image is scaled once.
    assert found.targets_seconds == pytest.approx(10**6 * (3 * 10 / 100 + 0.5) + 2 * 3)
    line = storage_line(student, counts, 1, found.targets)
    views = 10
    groups = len(view_groups(views_of_all((10,), 35)))
    # 3 replicas x (1 policy + 1 maximum) x 3 classes, and the likeliest class of each view and group by 3 + 1.
    answers = 10**6 * 4 * (3 * 2 * 3 + 4 * (views + groups))
    assert f", {size(10**6 * 3 * 4)} of targets, {size(answers)} of the teacher's answers until the targets" in line
    run.write("teacher/targets.parquet", b"")
    done = storage_line(student, counts, 1, estimated(run, student, Resources(), counts=counts).targets)
    assert " of targets" in done
    assert "answers" not in done


@pytest.mark.parametrize(
    ("policies", "classes", "images", "kept"),
    [
        ((1, 10, 144), 3, 42, "108.9 KB"),  # float16, 3 replicas x 144 views x 3 classes of each image
        ((144,), 1000, 50_000, "1.07 GB"),  # as many images as 1 GiB holds
        ((1, 10), 3, 42, ""),
    ],
)
def test_the_storage_counts_the_single_views_that_are_kept(
    tiny_recipe: Recipe, policies: tuple[int, ...], classes: int, images: int, kept: str
) -> None:
    line = storage_line(replace(tiny_recipe, policies=policies), Counts(24, images, classes), 1, None)
    assert re.findall(r"of predictions(?:, (.*) of single views)?, plus a copy of the images$", line) == [kept]


@pytest.mark.parametrize(("memory", "told"), [(3e9, True), (64e9, False)])
def test_the_plan_tells_that_memory_limits_the_predictors(
    nodes: list[dict[str, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: float, told: bool
) -> None:
    """Seven replicas of full width need more than a gigabyte in each of the eight predictors."""
    measure(monkeypatch)
    resources = {"CPU": 8.0, "memory": memory}
    nodes[:] = [node(resources)]
    run = Storage.at(str(tmp_path))

    def that_fit(memory_bytes: Any) -> Predictors:
        return predictors_on([resources], PredictorOptions(), memory_bytes, may_grow=False)

    found = estimate(run, finetune(), Resources(), Counts(24, 420, 3), that_fit, (), soup=False)
    lines = [line for line in plan.plan_lines(run, finetune(), Resources(), found) if line.startswith("predictors: ")]
    assert bool(lines) == told
    assert all(re.search(r"the nodes hold [12] of 8 predictors, limited by memory: each reserves", x) for x in lines)


@pytest.mark.parametrize(("resources", "told"), [
    (Resources(memory_bytes=10**9), True), (Resources(memory_bytes=3 * 10**9), False), (Resources(), False),
    (Resources(8, 1, memory_bytes=10**9), False),
])  # fmt: skip
def test_the_plan_tells_that_a_worker_needs_more_memory_than_was_estimated(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resources: Resources, told: bool
) -> None:
    measure(monkeypatch)
    measured = replace(MEASURED, memory_bytes=2 * 10**9)
    run = Storage.at(str(tmp_path))
    [line] = [x for x in plan._training_lines(run, tiny_recipe, resources, COUNTS, measured) if "memory" in x]
    assert (
        "including its images, a worker needs about 2.54 GB: train fewer at once with --parallel-replicas" in line
    ) == told


def test_the_targets_of_a_student_count_as_memory_that_its_trial_has_not_taken(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(monkeypatch)
    measured = replace(MEASURED, memory_bytes=2 * 10**9)
    run, resources, counts = Storage.at(str(tmp_path)), Resources(memory_bytes=26 * 10**8), Counts(10**7, 42, 3)
    for recipe, told in ((tiny_recipe, False), (replace(tiny_recipe, teacher="teacher"), True)):
        lines = plan._training_lines(run, recipe, resources, counts, measured)
        assert ("a worker needs about 2.78 GB: train fewer at once" in "\n".join(lines)) == told
