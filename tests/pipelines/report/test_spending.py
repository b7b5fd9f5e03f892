"""Error against cost in the report: views are kept for a share of the images, judged by folds, used on other images."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from googlenet.evaluation.cascade import Stop
from googlenet.evaluation.conformal import UNPENALISED
from googlenet.evaluation.crops import chosen_policy
from googlenet.evaluation.kept_budget import KeptBudget
from googlenet.evaluation.kept_calibration import KeptCalibration
from googlenet.evaluation.temperature import folds_of
from googlenet.network.arithmetic import FP32
from pipelines.errors import UserError
from pipelines.report import spending
from pipelines.report.answers import _rows, _rule, write_answers
from pipelines.report.numbers import numbers_about_answers
from pipelines.report.spending import Spent, Ways, spend, spending_rows
from pipelines.report.tables_of_spending import about_spending
from pipelines.report.write import write_report
from pipelines.run import view_probabilities
from pipelines.run.budget import budget_in_use, read_budget, write_budget
from pipelines.run.predictions import Cost, EvaluatedEnsemble, Predicted, file_name, write_predictions
from pipelines.run.storage import Storage
from pipelines.run.view_probabilities import (
    ViewProbabilities,
    keeps_views,
    kept_images,
    most_classes,
    read_views,
    write_views,
)
from tests.pipelines.report.made_runs import ENSEMBLE, IDS, LABELS, made_run, predict
from tests.prepared import some_weights

TWO = EvaluatedEnsemble(("r0", "r1"), ("x", "y"), (1, 144), 84, tuple("abcd"), "digest", FP32)


def some_views(images: int = 100, classes: int = 4) -> ViewProbabilities:
    """The first view is right on nine of ten images, and sure of it; the others are right, and less sure."""
    generator = np.random.default_rng(2)
    labels = generator.integers(0, classes, images).astype(np.int32)
    probabilities = np.full((images, 2, 144, classes), 0.5 / (classes - 1), np.float16)
    answers = np.where(generator.random(images) < 0.9, labels, (labels + 1) % classes)
    probabilities[np.arange(images), :, :, labels] = 0.5
    probabilities[:, :, 0] = np.float16(0.06 / (classes - 1))
    probabilities[np.arange(images), :, 0, answers] = 0.94
    return ViewProbabilities([f"val/{n:03}.jpg" for n in range(images)], labels, probabilities)


@pytest.fixture(scope="module")
def spent() -> Spent:
    """What some views are worth; to find it takes two seconds."""
    spent = spend(some_views(), TWO, None)
    assert spent is not None
    return spent


def test_a_run_keeps_views_of_all_its_images_or_of_a_share_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, views = Storage.at(str(tmp_path)), some_views(6)
    assert read_views(run, TWO) is None
    for shard, rows in enumerate(([3, 0, 4], [5, 1, 2])):
        part = ViewProbabilities([views.image_ids[n] for n in rows], views.labels[rows], views.probabilities[rows])
        write_views(run, file_name(shard), TWO, part)
    found = read_views(run, TWO)
    assert found is not None
    assert found.image_ids == views.image_ids
    assert found.labels.tolist() == views.labels.tolist()
    np.testing.assert_array_equal(found.probabilities, views.probabilities)
    assert read_views(run, replace(TWO, weights_digests=("x", "other"))) is None
    assert kept_images(TWO, 100) == 100
    assert kept_images(replace(TWO, policies=(1, 10)), 100) == 0
    monkeypatch.setattr(view_probabilities, "MOST_BYTES", 50 * 2 * 2 * 144 * 4)
    ids = [f"{n}.jpg" for n in range(400)]
    assert 30 < keeps_views(TWO, 400, ids).sum() < 70
    assert keeps_views(TWO, 50, ids).all()


def test_good_views_are_chosen_and_the_cascade_saves_passes_on_images_it_was_not_fitted_on(spent: Spent) -> None:
    views = some_views()
    assert spent.kept.view_order[0] != 0
    assert spent.kept.images == 100
    chosen = {row["crops"]: row["top1_error"] for row in spent.points if row["way"] == "chosen_views"}
    assert chosen[1] == 0
    [fast, balanced] = spent.budgets
    assert balanced["judged_on"] == "other_folds"
    assert (balanced["passes"], balanced["all_passes"], balanced["top1_error"]) == (1.0, 288, 0.0)
    assert balanced["saving"] == pytest.approx(100 * 287 / 288)
    assert fast["passes"] <= balanced["passes"]
    # Each threshold was chosen on the images of the other folds; the kept one on all.
    others = 100 - np.bincount(folds_of(views.image_ids)).max()
    assert (balanced["promised_points"], fast["promised_points"]) == (pytest.approx(100 / (others + 1)),) * 2
    assert balanced["lost"] == fast["lost"] == 0.0
    assert spent.kept.promised_points == {"fast": 1.0, "balanced": pytest.approx(100 / 101)}
    again = spend(views, TWO, spent.kept)
    assert again is not None
    assert again.kept is spent.kept
    assert {row["judged_on"] for row in again.budgets} == {"other_images"}


def test_nothing_is_chosen_on_too_few_images_but_what_is_known_is_judged_on_them(spent: Spent) -> None:
    few = some_views(39)
    assert spend(few, TWO, None) is None
    assert spend(None, TWO, None) is None
    assert spend(few, TWO, spent.kept) is not None


def cell(models: int, crops: int, error: float, policy: str = "") -> Any:
    return {
        "models": models,
        "crops": crops,
        "policy": policy or str(crops),
        "forward_passes": models * crops,
        "top1_error": error,
        "top1_ci95": [],
    }


def test_a_way_is_efficient_if_every_way_as_cheap_has_a_higher_error() -> None:
    table = [cell(1, 1, 9.0), cell(1, 10, 8.0), cell(2, 1, 7.0), cell(2, 10, 7.0)]
    rows = spending_rows(table, 50, Ways())
    assert [row["way"] for row in rows] == ["replicas", "views", "replicas", "replicas_and_views"]
    assert [row["efficient"] for row in rows] == [True, False, True, False]


def test_cells_of_other_scales_with_as_many_crops_are_no_more_replicas_of_the_first() -> None:
    table = [cell(models, 36, 9.0, policy) for models in (1, 2) for policy in ("64", "72")]
    assert [row["way"] for row in spending_rows(table, 50, Ways())] == [
        "replicas", "views", "replicas", "replicas_and_views",
    ]  # fmt: skip


def test_a_students_errors_stand_beside_the_ways_of_its_teacher() -> None:
    teachers: list[Any] = [
        {"way": "replicas", "passes": 1.0, "top1_error": 9.0, "images": 50, "efficient": True},
        {"way": "cascade", "passes": 2.0, "top1_error": 7.0, "images": 50, "efficient": False},
    ]
    rows = spending_rows([cell(1, 1, 8.0), cell(1, 10, 7.5)], 50, Ways(taught=teachers))
    assert [(row["way"], row["efficient"]) for row in rows] == [
        ("student", True), ("student", False), ("replicas", False), ("cascade", True),
    ]  # fmt: skip
    assert teachers[0]["efficient"], "the teacher's own rows stay"


def test_chosen_views_have_a_number_in_mlflow_but_those_of_a_students_teacher_have_none(spent: Spent) -> None:
    table = [cell(2, 1, 8.0), cell(2, 144, 7.5)]
    for taught, expected in ((None, {1, 3, 24, 48}), (spent.points, set())):
        report: Any = {"spending": spending_rows(table, 100, Ways(spent, taught=taught))}
        numbers = numbers_about_answers(report)
        assert set(numbers) == {f"top1_error/chosen_{views}" for views in expected}
    wrong = {row.get("crops"): row["top1_error"] for row in spent.points if row["way"] == "chosen_views"}
    report = {"spending": spending_rows(table, 100, Ways(spent))}
    assert numbers_about_answers(report)["top1_error/chosen_24"] == pytest.approx(wrong[24], abs=1e-3)


def test_the_report_shows_the_cost_and_other_images_use_what_the_run_keeps(
    tmp_path: Path, reported_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spending, "FEWEST_IMAGES", 6)
    run, other, without_views = *(made_run(tmp_path / name) for name in ("run", "other")), Storage.at(str(reported_run))
    made = some_views(6, 7)
    for one in (run, other):
        predict(one, list(range(6)))
        write_views(one, file_name(0), ENSEMBLE, ViewProbabilities(IDS, LABELS, made.probabilities))
    for others in ("figures", "class_figures"):
        monkeypatch.setattr(f"pipelines.report.write.{others}", lambda *_: {})  # only the picture of spending is read
    write_report(run, ENSEMBLE)
    kept = read_budget(run, ENSEMBLE.weights_digests)
    assert kept is not None
    assert sorted(kept.view_order) == list(range(144))
    assert read_budget(run, ("x", "other")) is None
    page = run.read("report/index.html").decode()
    assert "The best answer for the cost" in page
    assert "balanced" in page
    assert "## The best answer for the cost" in run.read("report/report.md").decode()
    write_report(other, ENSEMBLE, run, with_pictures=False)
    assert not other.exists("budget.json")
    assert {row["judged_on"] for row in other.read_json("report/report.json")["budgets"]} == {"other_images"}
    assert "budgets" not in without_views.read_json("report/report.json")
    text = "views of 40 images or more, which this run does not keep: it has 6 images."
    assert text in without_views.read("report/report.md").decode()
    assert "Star and cross" in page
    assert "Star and cross" not in without_views.read("report/index.html").decode()


@pytest.mark.parametrize(
    ("images", "classes", "policies", "reason"),
    [
        (39, 4, (1, 144), ": it has 39 images."),
        (500, 4, (1, 10), ": an evaluation with 144 crops keeps them."),
        (500, 50_000, (1, 144), ": with so many classes, there is room for 37 images only."),
        (500, 4, (1, 144), "."),  # evaluated by an earlier version
    ],
)
def test_a_report_without_chosen_views_says_why(
    letters_run: Path, images: int, classes: int, policies: tuple[int, ...], reason: str
) -> None:
    report = json.loads((letters_run / "report/report.json").read_text())
    ensemble = replace(TWO, policies=policies, classes=("x",) * classes).to_dict()
    report |= {"images": images, "ensemble": ensemble}
    assert about_spending(report).endswith(f"which this run does not keep{reason}")


def test_the_classes_of_which_enough_views_fit_are_those_that_are_named(tmp_path: Path) -> None:
    seven, most = replace(TWO, weights_digests=("x",) * 7, replicas=("r",) * 7), most_classes(7)
    enough = [kept_images(replace(seven, classes=("x",) * (most + more)), 500) >= 40 for more in (0, 1)]
    assert enough == [True, False]
    run = Storage.at(str(tmp_path))
    for replica in range(7):
        run.write(f"replicas/{replica}/weights.safetensors", some_weights(replica))
    with pytest.raises(UserError, match="40 validation images or more, of at most 13,315 classes: repeat"):
        budget_in_use(run, range(7), "--budget fast")


def test_answers_that_stop_early_count_their_passes_and_say_what_they_saved(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    early = replace(ENSEMBLE, policies=(144,), budget="fast:abc")
    probabilities = np.full((6, 2, 1, 7), 0.1, np.float32)
    probabilities[:, :, 0, 2] = 0.4
    probabilities[0, 1], views = 0.0, np.full((6, 2, 1), 3, np.int32)
    views[0] = [[1], [0]]
    nothing = np.zeros((6, 3, 144), np.int32)
    groups = np.zeros((6, 3, len(early.groups)), np.int32)
    rows = Predicted(IDS, LABELS, views, probabilities, probabilities[:, :, 0], nothing, groups)
    cost = Cost(seconds=3.0, forward_passes=31, all_passes=6 * 288)
    write_predictions(run.below("predictions"), file_name(0), early, rows, cost)
    run.write_json("preflight.json", {"key": "", "preflight": {"passes_per_second": 10.0}})
    order = tuple(range(144))
    kept = KeptBudget(
        ("x", "y"), "d", 50, order, ((1, 1), (2, 3)), (0.5, 1.0), (1.0,) * 144, {"fast": Stop(0.5, 1)}, {"fast": 1.96}
    )
    write_budget(run, kept)
    text = write_answers(run, early, budget=kept)
    assert (
        "budget fast: 5.2 of 288 passes an image (1.8 %), 0.500 seconds of a predictor instead of about 28.800 "
        "at the speed of the preflight, not compiled\n" in text
    )
    assert (
        "turns at most 2 % of the answers from right to wrong, on average over images like the 50 validation images"
        in text
    )
    of_an_earlier_version = write_answers(run, early, budget=replace(kept, promised_points={}))
    assert "no guarantee: the threshold is from an earlier version" in of_an_earlier_version
    chosen, all_images = replace(ENSEMBLE, policies=(chosen_policy([0]),)), KeptCalibration(("x", "y"), "d", 90, {}, {})
    rule = _rule(chosen, all_images, None, replace(kept, chosen_temperatures=(0.9,) * 144), UNPENALISED)
    assert (rule.temperature, rule.images, rule.least) == (
        0.9,
        50,
        2**-24,
    )  # those with kept views, on which it was fitted
    lines = run.read("answers/top5.csv").decode().splitlines()
    assert [line.split(",")[-1] for line in lines] == ["passes", "1", "6", "6", "6", "6", "6"]
    sharper = 0.4**2 / (0.4**2 + 6 * 0.1**2)
    assert float(lines[1].split(",")[2]) == pytest.approx(sharper, abs=1e-4)
    assert float(lines[2].split(",")[2]) == pytest.approx(0.4, abs=1e-4)
    certain, cautious = np.zeros_like(probabilities), replace(kept, temperatures=(3.0, 3.0))
    certain[:, :, 0, 2] = 1.0
    found = _rows(replace(rows, probabilities=certain), early, _rule(early, None, None, cautious, UNPENALISED))
    # The cube root of the least number of float16, in which the views were kept, for each of the six other classes.
    assert [row["probability_1"] for row in found] == pytest.approx([1 / (1 + 6 * 2**-8)] * 6)
    write_answers(run, early, budget=kept, calibrated=False)
    as_averaged = run.read("answers/top5.csv").decode().splitlines()
    assert [line.split(",")[-1] for line in as_averaged] == [line.split(",")[-1] for line in lines]
    assert float(as_averaged[1].split(",")[2]) == pytest.approx(0.4)
