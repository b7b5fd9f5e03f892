"""Photographs of something else in the report of a run."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from googlenet.evaluation.selective import MEASURES
from pipelines.report.out_of_distribution import keep_apart, read_apart
from pipelines.report.write import write_report
from pipelines.tracking.result import result_metrics
from tests.pipelines.report.made_runs import ENSEMBLE, made_run, predict, predict_as


def test_a_run_reports_how_well_unsure_answers_tell_something_else_apart(tmp_path: Path) -> None:
    run, other = made_run(tmp_path / "run"), made_run(tmp_path / "flowers")
    predict(run, list(range(6)))
    predict_as(other, np.full((6, 2, 3, 7), 1 / 7, np.float32))  # replicas that agree to know nothing
    for _ in range(2):  # judged again, it is replaced
        keep_apart(run, ENSEMBLE, other, ENSEMBLE, "flowers")
    rows = {row["measure"]: row for row in read_apart(run, ENSEMBLE)}
    assert tuple(rows) == MEASURES
    assert rows["maximum_probability"]["area_under_roc"] == 1.0
    assert rows["maximum_probability"]["false_positives"] == 0.0
    # No disagreement: by this measure, they are surer than all others.
    assert rows["mutual_information"]["area_under_roc"] < 0.5
    assert rows["mutual_information"]["false_positives"] == 100.0
    write_report(run, ENSEMBLE, with_pictures=False)
    assert run.read_json("report/report.json")["out_of_distribution"] == list(rows.values())
    assert "| flowers | 6 | entropy | 1.000 |" in run.read("report/report.md").decode()
    page = run.read("report/index.html").decode()
    assert '<th scope="row">flowers</th><td>6</td><td>entropy</td><td>1.000</td>' in page
    report, cost = run.read_json("report/report.json"), run.read_json("report/cost.json")
    rows["maximum_probability"]["data"] = "wild flowers & more"
    sent = result_metrics({**report, "out_of_distribution": list(rows.values())}, cost)
    assert sent["ood_area_under_roc/wild_flowers_more/maximum_probability"] == 1.0
    assert sent["ood_false_positives/flowers/mutual_information"] == 100.0
    assert read_apart(run, replace(ENSEMBLE, weights_digests=("x", "other"))) == []
