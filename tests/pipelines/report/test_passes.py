"""Forward passes in the report are those computed, and errors by passes are compared on the same images."""

from pathlib import Path
from typing import Any

import pytest

from googlenet.evaluation.cascade import THRESHOLDS, Stop, stages_of
from googlenet.evaluation.kept_budget import KeptBudget
from pipelines.report.spending import Spent, Ways, read_taught, spend, spending_rows
from pipelines.report.tables_of_spending import _what, about_spending
from pipelines.report.write import write_report
from pipelines.run.storage import Storage
from tests.pipelines.report.made_runs import ENSEMBLE, made_run, predict
from tests.pipelines.report.test_spending import TWO, cell, some_views

STAGES = stages_of(2, 144)
STOPS = {"fast": Stop(0.5, len(STAGES) - 1), "balanced": Stop(0.99, len(STAGES) - 1)}
KEPT = KeptBudget(
    ("x", "y"), "d", 50, tuple(range(144)), STAGES, (1.0,) * len(STAGES), (1.0,) * 144, STOPS, {"fast": 1.0}
)


def test_seconds_are_those_of_the_views_that_are_computed(tmp_path: Path) -> None:
    """Of the 144 views of a square image, 48 differ: all passes take the half second that was measured."""
    run = made_run(tmp_path, width=100)
    predict(run, list(range(6)), passes=2 * 48)
    write_report(run, ENSEMBLE, with_pictures=False)
    markdown = run.read("report/report.md").decode()
    assert "| 2 | 144 | 288 | 0.500 |" in markdown
    assert "| 1 | 10 | 10 | 0.052 |" in markdown
    assert "| 2 x 1 | 2.0 | 0.0104 |" in markdown  # among the efficient ways
    report = run.read_json("report/report.json")
    assert report["table"][-1]["computed_passes"] == 96
    assert [row["passes"] for row in report["spending"][:3]] == [1, 10, 48]


def test_the_passes_of_a_larger_teacher_count_for_more_than_those_of_its_student(tmp_path: Path) -> None:
    run = Storage.at(str(tmp_path))
    assert read_taught(run) is None
    run.write_json("teacher/teacher.json", {"spending": []})  # it had no report when it taught
    assert read_taught(run) is None
    teachers: list[Any] = [{"way": "replicas", "models": 1, "crops": 1, "passes": 1.0, "top1_error": 8.0, "images": 50}]
    for kept, passes, efficient in (({}, 1.0, [False, True]), ({"pass_cost": 4.0}, 4.0, [True, True])):
        run.write_json("teacher/teacher.json", {"spending": teachers, **kept})
        rows = spending_rows([cell(1, 1, 8.1)], 50, Ways(taught=read_taught(run)))
        assert [row["efficient"] for row in rows] == efficient
        assert rows[1]["passes"] == passes
        without_views: Any = {"spending": rows, "images": 50}
        assert "need probabilities of single views" not in about_spending(without_views)  # the student keeps its own
        report: Any = {"spending": [{**row, "way": "cascade"} for row in rows] + rows, "images": 50}
        assert ("A pass of the teacher counts as 4 of the student" in about_spending(report)) == bool(kept)


def test_errors_on_other_images_are_compared_by_their_difference_from_all_passes() -> None:
    """On the share of the images that keeps views, all passes err on 7 %, and on all images on 8 %."""
    table = [cell(7, 10, 8.1), cell(7, 144, 8.0)]
    points: list[Any] = [
        {"way": "chosen_views", "models": 7, "crops": crops, "passes": 7.0 * crops, "top1_error": error, "images": 4000}
        for crops, error in ((24, 7.2), (48, 7.05), (144, 7.0))
    ]
    rows = spending_rows(table, 10_000, Ways(Spent(KEPT, points, [])))
    assert [row["efficient"] for row in rows] == [True, True, False, True, False]


def test_four_other_scales_are_not_what_chosen_views_are_compared_with() -> None:
    """They have as many crops as all passes and a lower error, and stand before or behind them in the table."""
    all_passes = [cell(7, 10, 8.1), cell(7, 144, 8.0)]
    points: list[Any] = [
        {"way": "chosen_views", "models": 7, "crops": crops, "passes": 7.0 * crops, "top1_error": error, "images": 4000}
        for crops, error in ((24, 7.2), (144, 7.0))
    ]
    marks = [row["efficient"] for row in spending_rows(all_passes, 10_000, Ways(Spent(KEPT, points, [])))]
    for place, policy in ((1, "128+144+160+176"), (2, "240+256+288+320")):
        table = [*all_passes]
        table.insert(place, cell(7, 144, 7.8, policy))
        rows = spending_rows(table, 10_000, Ways(Spent(KEPT, points, [])))
        assert rows.pop(place)["efficient"]
        assert [row["efficient"] for row in rows if row["crops"] != 144] == [marks[0], marks[2]]


def test_a_student_of_more_replicas_than_its_teacher_changes_no_comparison_on_the_same_images() -> None:
    taught: list[Any] = [
        {"way": "replicas_and_views", "models": 2, "crops": 144, "passes": 288.0, "top1_error": 8.0, "images": 10_000},
        {"way": "chosen_views", "models": 2, "crops": 24, "passes": 48.0, "top1_error": 7.5, "images": 4000},
        {"way": "chosen_views", "models": 2, "crops": 144, "passes": 289.0, "top1_error": 7.0, "images": 4000},
    ]
    rows = spending_rows([cell(8, 1, 8.3)], 10_000, Ways(taught=taught))
    # The views err on 0.5 points more than all passes on the same images, and the student on 0.3.
    assert [(row["way"], row["efficient"]) for row in rows] == [
        ("student", True),
        ("replicas_and_views", True),
        ("chosen_views", False),
        ("chosen_views", False),
    ]


@pytest.mark.parametrize("of_teacher", [144.0, 48.0])
def test_passes_of_a_teacher_that_an_earlier_version_counted_are_named(tmp_path: Path, of_teacher: float) -> None:
    way = {"way": "replicas_and_views", "models": 7, "crops": 144, "passes": 7 * of_teacher}
    Storage.at(str(tmp_path)).write_json(
        "teacher/teacher.json", {"pass_cost": 4.0, "spending": [{**way, "top1_error": 7.0, "images": 50}]}
    )
    taught = read_taught(Storage.at(str(tmp_path)))
    table = [cell(1, 1, 9.0), {**cell(1, 144, 8.0), "computed_passes": 48.0}]
    report: Any = {"spending": spending_rows(table, 50, Ways(taught=taught)), "images": 50}
    report["spending"].append({**way, "way": "chosen_views", "passes": 1.0, "images": 50, "efficient": False})
    assert ("an earlier version counted equal views" in about_spending(report)) == (of_teacher == 144)


def test_the_passes_of_square_images_are_those_computed() -> None:
    square = spend(some_views(), TWO, KEPT, [(84, 84)])
    assert square is not None
    chosen = {row["crops"]: row["passes"] for row in square.points if row["way"] == "chosen_views"}
    assert (chosen[1], chosen[144]) == (2, 2 * 48)
    assert {row["all_passes"] for row in square.budgets} == {2 * 48}
    stopped = {row["passes"] for row in square.points if row["way"] == "cascade"}
    assert max(stopped) <= 2 * 48
    for row in square.budgets:
        assert row["saving"] == pytest.approx(100 * (1 - row["passes"] / (2 * 48)))


def test_every_threshold_of_a_cascade_has_a_name_of_its_own() -> None:
    names = [_what({"way": "cascade", "threshold": threshold}) for threshold in THRESHOLDS]  # type: ignore[typeddict-item]
    assert len(set(names)) == len(THRESHOLDS)
    assert (names[0], names[2], names[-1]) == ("cascade, first pass", "cascade, until 50 % sure", "cascade, all passes")
    assert not [name for name in names if "100" in name]
