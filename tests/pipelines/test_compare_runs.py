"""The command that compares two runs, where their errors cannot be paired."""

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from pipelines import compare_runs
from pipelines.report.outcomes import write_scores
from pipelines.run.directory import OUTCOMES, REPORT_JSON
from pipelines.run.storage import Storage
from tests.others_files import unchanged
from tests.pipelines.report.made_runs import IDS


@pytest.fixture
def runs(two_reported_runs: Path, tmp_path: Path) -> list[Storage]:
    """Two finished runs on the same images."""
    shutil.copytree(two_reported_runs, tmp_path, dirs_exist_ok=True)
    made = [Storage.at(str(tmp_path / name)) for name in ("first", "second")]
    for name, run in zip(("first", "second"), made, strict=True):
        run.write_json("jobs/1.json", {"commit": name, "versions": {"torch": name}})
    return made


def compared(runs: list[Storage], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setattr("sys.argv", ["compare_runs.py", *(run.root for run in runs)])
    compare_runs._main()
    return capsys.readouterr().out


def renamed(run: Storage, column: str, values: object) -> None:
    """Replace a column of the run's outcomes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(run.root) / OUTCOMES
    table = pq.read_table(path)
    table = table.set_column(table.column_names.index(column), column, pa.array(values))
    pq.write_table(table, path)


def test_runs_on_other_images_are_compared_without_pairs(
    runs: list[Storage], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with unchanged(Path(runs[0].root).parent):
        paired = compared(runs, monkeypatch, capsys)
    assert "errors on 6 images evaluated by both runs" in paired
    renamed(runs[1], "image_id", [f"other/{number}.jpg" for number in range(6)])
    unpaired = compared(runs, monkeypatch, capsys)
    # The same words about what differs, with or without pairs.
    assert unpaired.partition("\n\nno pairs")[0] == paired.partition("\n\nerrors on")[0]
    assert "learning_rate: first 0.01, second 0.5" in unpaired
    assert "commit: first 'first', second 'second'" in unpaired
    assert "torch: first 'first', second 'second'" in unpaired
    assert unpaired.endswith("no pairs: the runs have no image in common (6 images in the first, 6 in the second)\n")


def test_the_code_of_an_evaluation_is_compared_as_far_as_both_are_known(
    runs: list[Storage], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = runs[1].read_json(REPORT_JSON)
    by = {"commit": "later", "code_digest": "other", "versions": {"torch": "later", "ray": "2"}}
    runs[1].write_json(REPORT_JSON, {**report, "evaluated_by": by})
    of_jobs = ["  commit: first 'first', second 'second'", "  torch: first 'first', second 'second'"]
    evaluated = [
        "  evaluation: commit: first 'first', second 'later'",
        "  evaluation: torch: first 'first', second 'later'",
    ]
    assert code_lines(compared(runs, monkeypatch, capsys)) == of_jobs + evaluated
    runs[0].delete("jobs/1.json")  # an evaluation of other images, by a version that kept no start
    assert code_lines(compared(runs, monkeypatch, capsys)) == []


def code_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if re.search(r"\b(commit|code_digest|torch|ray): first", line)]


def test_runs_with_other_crops_are_compared_without_pairs(
    runs: list[Storage], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow.parquet as pq

    path = Path(runs[1].root) / OUTCOMES
    table = pq.read_table(path)
    pq.write_table(table.rename_columns([n if n == "image_id" else f"{n}_64px" for n in table.column_names]), path)
    assert compared(runs, monkeypatch, capsys).endswith(
        "no pairs: the runs have no crops in common, so no cell of their tables can be compared\n"
    )


def test_calibrated_scores_are_compared_image_by_image(
    runs: list[Storage], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "negative_log_likelihood/2x144/calibrated"
    write_scores(runs[0], ["a", "b", "c"], {name: np.array([1.0, 2.0, 9.0])})
    assert "both runs kept" not in compared(runs, monkeypatch, capsys)  # the other run is of an earlier version
    write_scores(runs[1], ["b", "a"], {name: np.array([1.5, 0.5])})
    text = compared(runs, monkeypatch, capsys)
    assert "on 2 images that both runs kept" in text
    [line] = [line for line in text.splitlines() if "2x144/calibrated" in line]
    assert line.split() == ["2x144/calibrated", "NLL", "1.5000", "1.0000", "-0.5000", "-"]


def test_all_lines_fit_a_terminal_of_80_columns_and_break_between_words(
    runs: list[Storage], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = ("negative_log_likelihood", "brier_score")
    scores = {f"{kind}/2x144{end}": np.array([0.25, 10.0, 0.5]) for kind in kinds for end in ("", "/calibrated")}
    for run in runs:
        write_scores(run, ["a", "b", "c"], scores)
    renamed(runs[1], "image_id", [*IDS[:5], "other.jpg"])
    in_a_file = compared(runs, monkeypatch, capsys)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    shown = compared(runs, monkeypatch, capsys)
    # A path stays whole, however long; columns of tables keep their places.
    assert not [line for line in shown.splitlines() if len(line) > 80 and len(line.split()) > 1]
    assert shown.split() == in_a_file.split()
    assert max(map(len, in_a_file.splitlines())) > 80
    tables = [line for line in in_a_file.splitlines() if re.match(r" *\d+x\d+", line)]
    assert len(tables) > 4
    assert {*tables} <= {*shown.splitlines()}
