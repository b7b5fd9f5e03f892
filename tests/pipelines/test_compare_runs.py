"""The command that compares two runs, where their errors cannot be paired."""

import shutil
from pathlib import Path

import pytest

from pipelines import compare_runs
from pipelines.run.directory import OUTCOMES
from pipelines.run.storage import Storage
from tests.others_files import unchanged


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
    assert unpaired.endswith("no pairs: other images (6 images in the first, 6 in the second, none in both)\n")


def test_runs_with_other_crops_are_compared_without_pairs(
    runs: list[Storage], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow.parquet as pq

    path = Path(runs[1].root) / OUTCOMES
    table = pq.read_table(path)
    pq.write_table(table.rename_columns([n if n == "image_id" else f"{n}_64px" for n in table.column_names]), path)
    assert compared(runs, monkeypatch, capsys).endswith("no pairs: other crops: the tables have no cell in common\n")
