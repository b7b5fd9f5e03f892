"""Claims: the plan counts only what there is."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import ray
from PIL import Image

from googlenet.evaluation.crops import view_groups, views_of_all
from googlenet.evaluation.temperature import FOLDS
from googlenet.network.arithmetic import FP32
from pipelines.evaluation.predictors import PredictorOptions, Predictors, predictors_on
from pipelines.job.console import size
from pipelines.job.limits import Limits
from pipelines.job.meter import Meter
from pipelines.run.dataset import Counts
from pipelines.run.directory import ReplicaFiles
from pipelines.run.named_recipes import finetune
from pipelines.run.predictions import EvaluatedEnsemble, file_name
from pipelines.run.recipe import Recipe
from pipelines.run.soups import MOST_SOUPS
from pipelines.run.storage import Storage
from pipelines.training import plan, timing, trial
from pipelines.training.network import relative_operations
from pipelines.training.plan import Estimate, estimate, placement_lines
from pipelines.training.resources import Resources
from pipelines.training.storage_plan import storage_line
from pipelines.training.trial import Trial
from tests.picture_files import encode


def one_predictor(_memory_bytes: object) -> Predictors:
    return Predictors(1, 0.0)


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
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": "", "Alive": True, "Resources": {"CPU": 4.0}}])
    monkeypatch.setattr("ray._private.state.state.get_draining_nodes", dict)
    run, counts = Storage.at(str(tmp_path)), Counts(24, 42, 3)
    recipe = replace(tiny_recipe, replicas=7, variant="paper", workers_per_replica=4, min_workers_per_replica=1)
    measured = Trial((FP32,), (0.5,), (0.0,), passes_per_second=100.0, parameters=1)
    assert placement_lines(run, recipe, Resources()) == [
        "plan: 7 replicas of 4 workers, 1 CPU each, 1 at once, 6 waiting"
    ]
    assert " in 7 rounds (" in plan._training_line(run, recipe, Resources(), counts, measured)
    one, seven = (
        plan._training_seconds(run, replace(recipe, replicas=replicas), Resources(), counts, measured)
        for replicas in (1, 7)
    )
    assert seven == pytest.approx(7 * one)


def test_soups_count_in_the_time_and_the_cost_until_they_are_there(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained_run(tmp_path, tiny_recipe, monkeypatch)

    def with_recipe(recipe: Recipe, *, soup: bool) -> Estimate:
        return estimated(run, recipe, Resources(), soup=soup)

    with_soup, without = (with_recipe(tiny_recipe, soup=soup) for soup in (True, False))
    # One network, and five centre crops of each image for the choice: of the three replicas, and of two with one more.
    assert with_soup.seconds - without.seconds == pytest.approx(
        without.evaluation_seconds / tiny_recipe.replicas + 5 * 42 / 100
    )
    # 42 images in 144 views, of which the other policies are a part, at 100 passes per second: a minute for a network.
    [line] = plan._soup_line(with_soup)
    assert line.startswith("soups: about 1:03 for the choice and the uniform one, up to 7:05 if")
    assert plan._soup_line(without) == []
    assert MOST_SOUPS == 2 + FOLDS
    assert with_recipe(replace(tiny_recipe, replicas=1), soup=True).soup_seconds == 0
    kept = {"are_predicted": True, "replicas": [0, 1, 2], "weights_digests": ["a", "b", "c"]}
    run.write_json("soup/soups.json", kept)
    assert with_recipe(tiny_recipe, soup=True).soup_seconds == 0
    run.write_json("soup/soups.json", {**kept, "replicas": [0, 2], "weights_digests": ["a", "c"]})
    assert with_recipe(tiny_recipe, soup=True).soup_seconds == with_soup.soup_seconds  # one has been trained since


def test_views_of_square_images_that_coincide_are_counted_once(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, asked = Storage.at(str(tmp_path)), []

    def run_trial(*of_trial: object) -> Trial:
        asked.append(of_trial[-2:])
        return Trial((FP32,), (0.5,), (0.0,), passes_per_second=100.0, parameters=1)

    monkeypatch.setattr(plan, "run_trial", run_trial)
    monkeypatch.setattr(plan, "nodes_used", lambda *_: 2)
    monkeypatch.setattr(plan, "replicas_at_once", lambda *_: 3)
    monkeypatch.setattr(plan, "check_that_one_fits", lambda *_: None)
    encoded = [encode(Image.new("RGB", size), "PNG") for size in ((100, 100), (150, 100))]
    recipe = replace(tiny_recipe, policies=(1, 10, 144))
    found = estimate(run, recipe, Resources(), Counts(24, 42, 3), one_predictor, encoded, soup=False)
    assert found.views_per_image == (48 + 144) / 2
    assert found.evaluation_seconds == pytest.approx(42 * 96 * recipe.replicas / 100)
    assert asked == [(2, 6)]  # of the three replicas that run at once, on two nodes; two epochs of three steps


@pytest.mark.parametrize(("resources", "threads"), [(Resources(8.0), 8), (Resources(8.0, 1.0), 1), (Resources(0.5), 1)])
def test_a_predictor_has_one_thread_however_many_a_worker_has(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resources: Resources, threads: int
) -> None:
    measure(monkeypatch)
    found = estimated(Storage.at(str(tmp_path)), tiny_recipe, resources)
    assert found.evaluation_seconds == pytest.approx(42 * 144 * tiny_recipe.replicas / (100 / threads))


@pytest.mark.parametrize(("gpus_per_worker", "gpus", "speed"), [(1, 1, 100), (1, 0.25, 25), (0.25, 0.25, 100)])
def test_predictors_that_share_a_gpu_share_its_speed(
    tiny_recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gpus_per_worker: float,
    gpus: float,
    speed: float,
) -> None:
    measure(monkeypatch)
    found = estimated(Storage.at(str(tmp_path)), tiny_recipe, Resources(8, gpus_per_worker), gpus)
    assert found.evaluation_seconds == pytest.approx(42 * 144 * tiny_recipe.replicas / speed)


@pytest.mark.parametrize(
    ("resources", "gpus", "where"), [(Resources(), 1.0, "GPUs"), (Resources(8.0, 1.0), 0.0, "CPUs")]
)
def test_a_limit_keeps_nothing_back_for_predictors_that_a_trial_cannot_time(
    tiny_recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    resources: Resources,
    gpus: float,
    where: str,
) -> None:
    """By default predictors reserve GPUs and workers do not: the job would have stopped before its first step."""
    measure(monkeypatch)
    run = Storage.at(str(tmp_path))
    found = estimated(run, tiny_recipe, resources, gpus, Counts(24, 10**6, 3), soup=True)
    meter = Meter(Limits(max_hours=10.0), [], nodes=lambda: 1)
    meter.expect(found.seconds, found.evaluation_seconds, found.nodes)
    assert meter.why_stop() == ""
    assert found.seconds == found.training_seconds > 0
    assert plan._evaluation_line(tiny_recipe, found) == (
        f"evaluation: 432,000,000 forward passes with 1 predictor on {where}, which were not tried: "
        "no time is estimated for what predictors do"
    )
    assert plan._soup_line(found) == []


def test_once_all_replicas_are_trained_the_trial_has_a_predictors_resources_and_later_there_is_none(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes that held the workers may be gone: the trial would wait for them for half an hour."""
    run, asked = trained_run(tmp_path, tiny_recipe, monkeypatch), []

    def run_trial(*of_trial: Any) -> Trial:
        asked.append((of_trial[1], *of_trial[-2:]))
        return Trial((FP32,), (0.5,), (0.0,), passes_per_second=100.0, parameters=1)

    monkeypatch.setattr(plan, "run_trial", run_trial)
    on_gpus = Resources(8.0, 2.0, {"large": 1.0}, memory_bytes=10**10)

    def planned(_memory_bytes: object) -> Predictors:
        return Predictors(3, 0.0)

    found = estimate(run, tiny_recipe, on_gpus, Counts(24, 42, 3), planned, (), soup=False)
    assert asked == [(Resources(), 3, 0)]
    assert found.evaluation_seconds == pytest.approx(42 * 144 * 3 / 100 / 3)
    told = plan.plan_lines(run, tiny_recipe, on_gpus, found)
    assert [line.partition(":")[0] for line in told] == ["plan", "data", "training", "evaluation", "storage"]

    names = tuple(f"replica_{number}" for number in range(3))
    ensemble = EvaluatedEnsemble(names, ("digest",) * 3, (1,), 35, ("a", "b"), "data", FP32)
    for shard in range(3):
        with run.writing(f"predictions/{file_name(shard)}") as stream:
            pq.write_table(ensemble.schema().empty_table(), stream)
    found = estimate(run, tiny_recipe, on_gpus, Counts(24, 42, 3), planned, (), soup=False)
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


@pytest.mark.parametrize(
    ("resources", "seconds_per_scaled_image", "expected"),
    [
        (Resources(), 2.0, 3 * 42 * 144 / 100 + 42 * 2),  # a predictor and what feeds it share a core
        (Resources(8, 1), 2.0, 3 * 42 * 144 / 100),  # while the GPU computes
        (Resources(8, 1), 60.0, 42 * 60 / 6),  # the GPU waits for six tasks
        (Resources(2, 1), 60.0, 42 * 60 / 2),  # which have two CPUs
    ],
)
def test_beside_a_gpu_images_are_scaled_while_it_computes(
    tiny_recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    resources: Resources,
    seconds_per_scaled_image: float,
    expected: float,
) -> None:
    measure(monkeypatch, seconds_per_scaled_image=seconds_per_scaled_image)
    found = estimated(Storage.at(str(tmp_path)), tiny_recipe, resources)
    assert found.evaluation_seconds == pytest.approx(expected)


def test_the_images_of_soups_are_chosen_on_and_scaled_once_for_all_of_them(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {"seconds_per_scaled_image": 1.0, "seconds_per_crop": 0.5, "start_seconds": 3.0}
    run = trained_run(tmp_path, tiny_recipe, monkeypatch, **times)
    found = estimate(run, tiny_recipe, Resources(), Counts(24, 42, 3), one_predictor, (), soup=True)
    one_network, once = 42 * 144 / 100, 42 + 5 * 42 * (1 / 100 + 0.5) + 4 * 3
    assert found.soup_seconds == pytest.approx(one_network + once)
    assert found.most_soup_seconds == pytest.approx(MOST_SOUPS * one_network + once)


def test_a_wider_replica_counts_by_its_operations(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    even = estimated_evaluation(tmp_path, tiny_recipe, monkeypatch, Resources())
    wide = replace(tiny_recipe, wide_replica_width=4 * tiny_recipe.width)
    one, *others, last = relative_operations(wide, 3)
    assert (one, others) == (1.0, [1.0])
    assert 8 < last < 16  # 16 times as many in most layers, 4 times in the first one
    assert estimated_evaluation(tmp_path, wide, monkeypatch, Resources()) == pytest.approx(even * (2 + last) / 3)


def test_predictions_of_fewer_replicas_are_still_to_be_made(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Storage.at(str(tmp_path))
    left = {}
    for replicas in (2, 3):
        names = tuple(f"replica_{number}" for number in range(replicas))
        ensemble = EvaluatedEnsemble(names, ("digest",) * replicas, (1,), 35, ("a", "b"), "data", FP32)
        for shard in range(3):
            with run.writing(f"predictions/{file_name(shard)}") as stream:
                pq.write_table(ensemble.schema().empty_table(), stream)
        left[replicas] = estimated_evaluation(tmp_path, tiny_recipe, monkeypatch, Resources())
    assert left == {2: pytest.approx(42 * 144 * 3 / 100), 3: 0.0}


def measure(monkeypatch: pytest.MonkeyPatch, **times: Any) -> None:
    """A trial of 100 passes a second on one node that holds one replica."""
    measured = replace(Trial((FP32,), (0.5,), (0.0,), passes_per_second=100.0, parameters=1), **times)
    monkeypatch.setattr(plan, "run_trial", lambda *_: measured)
    monkeypatch.setattr(plan, "nodes_used", lambda *_: 1)
    monkeypatch.setattr(plan, "replicas_at_once", lambda *_: 1)
    monkeypatch.setattr(plan, "check_that_one_fits", lambda *_: None)


def trained_run(folder: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, **times: Any) -> Storage:
    """A run whose replicas are finished, and the trial of :func:`measure`."""
    run = Storage.at(str(folder))
    measure(monkeypatch, **times)
    for replica in range(recipe.replicas):
        run.write(ReplicaFiles(replica).weights, b"")
    return run


def estimated(
    run: Storage,
    recipe: Recipe,
    resources: Resources,
    gpus: float | None = None,
    counts: Counts = Counts(24, 42, 3),  # noqa: B008
    *,
    soup: bool = False,
) -> Estimate:
    """The estimate of a job with one predictor, by default with as many GPUs as a worker has."""
    planned = Predictors(1, resources.gpus_per_worker if gpus is None else gpus)
    return estimate(run, recipe, resources, counts, lambda _: planned, (), soup=soup)


def estimated_evaluation(folder: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, resources: Resources) -> float:
    """Seconds of the evaluation of a trained run."""
    return estimated(trained_run(folder, recipe, monkeypatch), recipe, resources).evaluation_seconds


@pytest.mark.parametrize(("memory", "told"), [(3e9, True), (64e9, False)])
def test_the_plan_tells_that_memory_limits_the_predictors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: float, told: bool
) -> None:
    """Seven replicas of full width need more than a gigabyte in each of the eight predictors."""
    measure(monkeypatch)
    monkeypatch.setattr(ray, "nodes", lambda: [{"NodeID": "", "Alive": True, "Resources": nodes[0]}])
    monkeypatch.setattr("ray._private.state.state.get_draining_nodes", dict)
    run, counts, nodes = Storage.at(str(tmp_path)), Counts(24, 420, 3), [{"CPU": 8.0, "memory": memory}]

    def that_fit(memory_bytes: Any) -> Predictors:
        return predictors_on(nodes, PredictorOptions(), memory_bytes, may_grow=False)

    found = estimate(run, finetune(), Resources(), counts, that_fit, (), soup=False)
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
    measured = Trial((FP32,), (0.5,), (0.0,), 100.0, parameters=1, memory_bytes=2 * 10**9)
    run = Storage.at(str(tmp_path))
    [line] = [
        x for x in plan._training_lines(run, tiny_recipe, resources, Counts(24, 42, 3), measured) if "memory" in x
    ]
    assert ("with its images it needs about 2.54 GB: train fewer at once with --parallel-replicas" in line) == told


def test_the_targets_of_a_student_count_as_memory_that_its_trial_has_not_taken(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(monkeypatch)
    measured = Trial((FP32,), (0.5,), (0.0,), 100.0, parameters=1, memory_bytes=2 * 10**9)
    run, resources, counts = Storage.at(str(tmp_path)), Resources(memory_bytes=26 * 10**8), Counts(10**7, 42, 3)
    for recipe, told in ((tiny_recipe, False), (replace(tiny_recipe, teacher="teacher"), True)):
        lines = plan._training_lines(run, recipe, resources, counts, measured)
        assert ("it needs about 2.78 GB: train fewer at once" in "\n".join(lines)) == told


def test_workers_of_one_trial_count_by_their_means() -> None:
    one = Trial((FP32,), (0.4,), (1.0,), 90.0, 7, seconds_per_sample=0.1, seconds_per_crop=0.2, memory_bytes=5)
    other = replace(one, seconds_per_step=(0.6,), passes_per_second=110.0, seconds_per_sample=0.3, memory_bytes=6)
    both = trial._means([one, other])
    assert both.seconds_per_step == (0.5,)
    assert (both.passes_per_second, both.seconds_per_sample, both.memory_bytes) == (100.0, pytest.approx(0.2), 6)
    slower = trial._means([one, other], 1.25)
    assert (slower.seconds_per_step, slower.passes_per_second) == ((0.625,), 80.0)
    assert (slower.seconds_per_sample, slower.seconds_per_crop) == (pytest.approx(0.25), pytest.approx(0.25))


@pytest.mark.parametrize(("calls", "timed"), [(0, 6), (100, 6), (300, 7), (1_000_000, 21)])
def test_the_longer_a_training_the_longer_its_steps_are_timed(
    monkeypatch: pytest.MonkeyPatch, calls: int, timed: int
) -> None:
    done: list[None] = []
    monkeypatch.setattr(timing, "_seconds", lambda work: work() or 1.0)
    timing.times(lambda: done.append(None), timing.ESTIMATE_SECONDS, calls)
    assert len(done) == timed  # with the first one, which is left out: at least 5 s, a fiftieth, at most 20 s
