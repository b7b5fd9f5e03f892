"""Photographs of something else in the report of a run."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from googlenet.evaluation.selective import MEASURES
from pipelines.report.numbers import digest_of_name, names_in_metrics, numbers_about_answers
from pipelines.report.out_of_distribution import keep_apart, read_apart
from pipelines.report.write import write_report
from pipelines.tracking.result import result_metrics
from tests.pipelines.report.made_runs import ENSEMBLE, LABELS, answers, ensemble_of, made_run, predict, predict_as


def test_a_run_reports_how_well_unsure_answers_tell_something_else_apart(tmp_path: Path) -> None:
    run, other = made_run(tmp_path / "run"), made_run(tmp_path / "flowers")
    predict(run, list(range(6)))
    predict_as(other, np.full((6, 2, 3, 7), 1 / 7, np.float32))  # replicas that agree to know nothing
    for _ in range(2):  # judged again, it is replaced
        keep_apart(run, ENSEMBLE, other, ENSEMBLE, "/my/flowers")
    rows = {row["measure"]: row for row in read_apart(run, ENSEMBLE)}
    assert tuple(rows) == MEASURES
    assert rows["maximum_probability"]["area_under_roc"] == 1.0
    assert rows["maximum_probability"]["false_positives"] == 0.0
    # No disagreement: by this measure, they are surer than all others.
    assert rows["mutual_information"]["area_under_roc"] < 0.5
    assert rows["mutual_information"]["false_positives"] == 100.0
    for measure, mistakes in (("maximum_probability", 0), ("mutual_information", 6)):
        exact = binomtest(mistakes, 6).proportion_ci()
        assert rows[measure]["false_positives_ci95"] == pytest.approx([100 * exact.low, 100 * exact.high])
    write_report(run, ENSEMBLE, with_pictures=False)
    assert run.read_json("report/report.json")["out_of_distribution"] == list(rows.values())
    assert "| flowers | 6 | entropy | 1.000 | - | 0.0 | 0.00 - 45.93 |" in run.read("report/report.md").decode()
    page = run.read("report/index.html").decode()
    assert '<th scope="row">flowers</th><td>6</td><td>entropy</td><td>1.000</td><td>-</td>' in page
    report, cost = run.read_json("report/report.json"), run.read_json("report/cost.json")
    rows["maximum_probability"]["data"] = "wild flowers & more"
    sent = result_metrics({**report, "out_of_distribution": list(rows.values())}, cost)
    assert sent["ood_area_under_roc/wild_flowers_more/maximum_probability"] == 1.0
    assert sent["ood_false_positives/flowers/mutual_information"] == 100.0
    assert read_apart(run, replace(ENSEMBLE, weights_digests=("x", "other"))) == []


def test_one_model_is_judged_by_the_two_measures_that_it_has(tmp_path: Path) -> None:
    run, other, one = made_run(tmp_path / "run"), made_run(tmp_path / "flowers"), ensemble_of(1)
    predict_as(run, answers(LABELS.tolist()), one)
    predict_as(other, np.full((6, 1, 3, 7), 1 / 7, np.float32), one)
    keep_apart(run, one, other, one, "/my/flowers")
    assert [row["measure"] for row in read_apart(run, one)] == ["maximum_probability", "entropy"]


def test_folders_of_one_name_and_names_without_latin_letters_are_kept_apart(tmp_path: Path) -> None:
    run, other = made_run(tmp_path / "run"), made_run(tmp_path / "flowers")
    predict(run, list(range(6)))
    predict(other, list(range(6)))
    places = ["/a/flowers", "/b/flowers", "s3://b/textures?endpoint_override=127.0.0.1:9", "/c/猫", "/c/犬"]
    for data in (*places, places[1]):  # the last one is replaced
        keep_apart(run, ENSEMBLE, other, ENSEMBLE, data)
    names = list(dict.fromkeys(row["data"] for row in read_apart(run, ENSEMBLE)))
    assert [re.sub("-[0-9a-f]{8}$", "-digest", name) for name in names] == [
        "flowers", "flowers-digest", "textures", "猫", "犬",
    ]  # fmt: skip
    report: Any = {"out_of_distribution": read_apart(run, ENSEMBLE)}
    metrics = [name for name in numbers_about_answers(report) if name.startswith("ood_area_under_roc/")]
    assert len(metrics) == len(places) * len(MEASURES)
    assert all(name.isascii() for name in metrics)
    assert set(names_in_metrics(["a b", "a_b"]).values()) == {"a_b", f"a_b-{digest_of_name('a_b')}"}


def test_a_folder_that_is_judged_again_keeps_its_place_and_so_the_names_of_its_metrics(tmp_path: Path) -> None:
    run, other = made_run(tmp_path / "run"), made_run(tmp_path / "other")
    predict(run, list(range(6)))
    predict(other, list(range(6)))
    for data in ("/wild flowers", "/wild_flowers", "/cats?"):
        keep_apart(run, ENSEMBLE, other, ENSEMBLE, data)
    before = read_apart(run, ENSEMBLE)
    predict_as(other, np.full((6, 2, 3, 7), 1 / 7, np.float32))
    keep_apart(run, ENSEMBLE, other, ENSEMBLE, "/wild flowers")
    after = read_apart(run, ENSEMBLE)
    assert [row["data"] for row in after] == [row["data"] for row in before]
    names = names_in_metrics(row["data"] for row in after)
    assert names["wild flowers"] == "wild_flowers"
    assert names["wild_flowers"].startswith("wild_flowers-")
    assert "cats?" in names
    assert after[3:] == before[3:]
    assert after[:3] != before[:3]
