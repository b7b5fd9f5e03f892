"""Comparison of two runs, from their directories or from MLflow alone."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from pipelines.report.comparison import comparison, read_finished
from pipelines.run.claims import claim
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from tests.commands import Ended, run_script
from tests.pipelines.report.made_runs import LABELS


@pytest.fixture
def runs(two_reported_runs: Path, tmp_path: Path) -> tuple[Storage, Storage]:
    """Copies of both runs."""
    shutil.copytree(two_reported_runs, tmp_path, dirs_exist_ok=True)
    return Storage.at(str(tmp_path / "first")), Storage.at(str(tmp_path / "second"))


def cells(text: str) -> dict[tuple[str, str], list[float]]:
    """The numbers in each line of the table, by cell and kind of error."""
    rows = re.findall(r"^ *(\d+x\d+) +(top\d) +(.*)$", text, re.MULTILINE)
    return {(cell, kind): [float(number) for number in re.findall(r"[-+]?\d+\.\d+", rest)] for cell, kind, rest in rows}


def test_every_cell_has_its_paired_difference_with_an_interval(runs: tuple[Storage, Storage]) -> None:
    first, second = (read_finished(run, run.root) for run in runs)
    found = cells(comparison(first, second))
    assert found.keys() == {(f"{models}x{crops}", "top1") for models in (1, 2) for crops in (1, 10, 144)}
    # One model: the mean error of two replicas; the first run made 1 + 3 mistakes of 12, the second 0 + 3.
    wrong_before = (np.array([[0, 1, 2, 3, 4, 0], [0, 1, 2, 0, 0, 0]]) != LABELS).mean(axis=0)
    wrong_after = (np.array([[0, 1, 2, 3, 4, 5], [1, 1, 2, 3, 0, 0]]) != LABELS).mean(axis=0)
    paired = 100 * (wrong_after - wrong_before)
    before, after, difference, low, high = found["1x144", "top1"]
    assert [before, after] == pytest.approx([100 * 4 / 12, 100 * 3 / 12], abs=0.01)
    assert difference == pytest.approx(paired.mean(), abs=0.01)
    # A bootstrap of the six differences by hand, with other random numbers.
    drawn = np.random.default_rng(7).choice(paired, (20_000, 6)).mean(axis=1)
    assert [low, high] == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=1.0)


def test_top_5_errors_are_compared_where_the_report_shows_them(runs: tuple[Storage, Storage]) -> None:
    first, second = (read_finished(run, run.root) for run in runs)
    first.report["classes"] = 11
    assert ("2x144", "top5") in cells(comparison(first, second))


def test_what_both_reports_say_of_their_answers_stands_side_by_side(runs: tuple[Storage, Storage]) -> None:
    first, second = (read_finished(run, run.root) for run in runs)
    assert "answers, each run on its own images" not in comparison(first, second)
    apart = {"data": "wild flowers", "measure": "entropy", "area_under_roc": 0.91234, "false_positives": 20.0}
    for run, area in ((first, 0.91234), (second, 0.5)):
        run.report["out_of_distribution"] = [{**apart, "area_under_roc": area}]  # type: ignore[typeddict-item]
    first.report["selective"] = [{"measure": "entropy", "area": 3.0, "area_ci95": [2.0, 4.0], "remaining_errors": []}]
    lines = [line.split() for line in comparison(first, second).splitlines()]
    assert ["ood_area_under_roc/wild_flowers/entropy", "0.912", "0.5"] in lines
    assert ["ood_false_positives/wild_flowers/entropy", "20", "20"] in lines
    assert not any("area_under_risk" in word for line in lines for word in line)  # the second report has none


def test_passes_that_only_one_report_counts_with_equal_views_are_not_compared(runs: tuple[Storage, Storage]) -> None:
    first, second = (read_finished(run, run.root) for run in runs)
    for run, passes in ((first, 245.0), (second, 82.0)):
        run.report["budgets"] = [{"budget": "balanced", "top1_error": 8.0, "passes": passes}]  # type: ignore[typeddict-item]
    assert "passes/cascade_balanced" in comparison(first, second)
    for row in first.report["table"]:
        del row["computed_passes"]
    text = comparison(first, second)
    assert "passes/cascade_balanced" not in text
    assert "without passes, of which one report counts equal views each time:" in text
    assert "top1_error/cascade_balanced" in text


def test_what_differs_is_named_and_what_does_not_is_not(runs: tuple[Storage, Storage]) -> None:
    for run, commit, torch in zip(runs, ("abc", "def"), ("1.0", "1.0"), strict=True):
        job = {"commit": commit, "code_digest": "same", "versions": {"torch": torch}, "host": run.root}
        run.write_json("jobs/1.json", job)
    text = comparison(*(read_finished(run, run.root) for run in runs))
    differing = text.partition("what differs:\n")[2].partition("\n\n")[0].splitlines()
    assert differing == ["  learning_rate: first 0.01, second 0.5", "  commit: first 'abc', second 'def'"]
    same = read_finished(runs[0], "same")
    assert "what differs:\n  nothing" in comparison(same, same)
    # Images that all agree say nothing of others: no interval without width.
    assert re.search(r"^ *1x144 +top1 .* \+0\.00 +-$", comparison(same, same), re.MULTILINE)


def test_evaluations_without_a_recipe_differ_in_what_was_evaluated(runs: tuple[Storage, Storage]) -> None:
    first = read_finished(runs[0], "first")
    report: Any = {name: value for name, value in first.report.items() if name != "run"}
    other = {"policies": [1, 10], "crop_px": 224, "arithmetic": {"precision": "bf16", "compiled": True}}
    other |= {"replicas": ["replica_0"], "weights_digests": ["z"]}
    one, two = (replace(first, report={**report, "ensemble": {**report["ensemble"], **new}}) for new in ({}, other))
    differing = comparison(one, two).partition("what differs:\n")[2].partition("\n\n")[0]
    names = ("evaluated_replicas", "evaluated_weights", "policies", "crop_px", "arithmetic")
    assert tuple(line.split(":")[0].strip() for line in differing.splitlines()) == names
    assert "arithmetic: first 'fp32, not compiled', second 'bf16, compiled'" in differing


def test_images_that_only_one_run_has_are_left_out_and_told(tmp_path: Path, runs: tuple[Storage, Storage]) -> None:
    first, second = (read_finished(run, run.root) for run in runs)
    fewer = {name: column[1:] for name, column in second.outcomes.items()}
    text = comparison(first, type(second)("fewer", second.report, fewer, {}))
    assert "errors on 5 images" in text
    assert f"warning: left out, missing from the other run: 1 of {first.name}" in text
    none = comparison(first, type(second)("none", second.report, {**fewer, "image_id": ["x"] * 5}, {}))
    assert none.endswith("no pairs: the runs have no image in common (6 images in the first, 5 in the second)")


def command(name: str, *words: str, **variables: str) -> Ended:
    return run_script(f"pipelines/{name}.py", *words, **variables)


@pytest.mark.timeout(300)
def test_mlflow_alone_is_enough_to_compare_and_to_start_again(
    runs: tuple[Storage, Storage], empty_store: Path, tmp_path: Path
) -> None:
    uri = f"sqlite:///{shutil.copy(empty_store, tmp_path)}"
    by_directory = command("compare_runs", *(run.root for run in runs))
    assert by_directory.code == 0, by_directory.stderr
    for run in runs:
        run.write_json(
            "jobs/1.json", {"commit": "abc", "code_digest": "", "versions": {}, "stage_seconds": {}, "outcome": "ended"}
        )
        job = run.read_json("jobs/1.json")
        run.write_json("jobs/1.json", {**job, "command": "c", "nodes": [], "platform": "p", "memory_gib": 1})
        sent = command("replay_to_mlflow", "--run-dir", run.root, "--tracking-uri", uri, "--models", "none")
        assert sent.code == 0, sent.stderr
        (Path(run.root) / "report").rename(tmp_path / f"gone_{Path(run.root).name}")
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("googlenet-ensemble").experiment_id
    parents = client.search_runs([experiment], "tags.googlenet_role = 'ensemble'")
    ids = {run.info.run_name: run.info.run_id for run in parents}
    by_id = command("compare_runs", ids["first"], ids["second"], "--tracking-uri", uri)
    assert by_id.code == 0, by_id.stderr
    assert cells(by_id.stdout) == cells(by_directory.stdout)
    assert "learning_rate: first 0.01, second 0.5" in by_id.stdout
    again = command(
        "train_ensemble",
        "--recipe",
        f"runs:/{ids['second']}",
        "--run-dir",
        "x",
        "--print-recipe",
        MLFLOW_TRACKING_URI=uri,
    )
    assert again.code == 0, again.stderr
    assert json.loads(again.stdout) == json.loads(json.dumps(Recipe(replicas=2, learning_rate=0.5).to_dict()))


def test_a_run_that_is_not_there_is_told_in_a_line(tmp_path: Path, runs: tuple[Storage, Storage]) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for name, expected in (
        ("nowhere", "error: nowhere is neither a run directory nor the id of a run in MLflow\n"),
        ("0" * 32, f"error: no run {'0' * 32}: there is no MLflow store {tmp_path}/mlflow.db; name another store"),
    ):
        ended = command("compare_runs", runs[0].root, name, "--tracking-uri", uri)
        *before, error = ended.stderr.splitlines(keepends=True)
        assert ended.code == 2
        assert error.startswith(expected)
        assert before in ([], [f"reading the run {name} from MLflow ...\n"])
    assert not (tmp_path / "mlflow.db").exists()
    assert (
        f"comparing {runs[0].root} with itself ..." in command("compare_runs", runs[0].root, f"{runs[0].root}/").stderr
    )
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    claim(Storage.at(str(unfinished)), "recipe", Recipe().to_dict())
    ended = command("compare_runs", str(unfinished), runs[0].root)
    assert (ended.code, "has no report to compare" in ended.stderr) == (2, True)
