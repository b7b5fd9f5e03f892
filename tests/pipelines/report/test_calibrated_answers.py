"""Answers without labels: as sure as the kept temperature says, with the sets of classes that may be right."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from googlenet.evaluation.conformal import SetRule
from googlenet.evaluation.kept_calibration import KeptCalibration
from pipelines.errors import UserError
from pipelines.report.answers import write_answers
from pipelines.run.storage import Storage
from tests.pipelines.report.made_runs import ENSEMBLE, made_run, predict


def test_answers_without_labels_are_as_sure_as_the_temperature_says(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    predict(run, list(range(6)))
    raw = rows_of_answers(run, None)
    known = KeptCalibration(("x", "y"), "other", 300, {}, {"144": 0.5}, {}, {})
    calibrated = rows_of_answers(run, known)
    for before, after in zip(raw, calibrated, strict=True):
        assert [before[f"answer_{place}"] for place in range(1, 6)] == [
            after[f"answer_{place}"] for place in range(1, 6)
        ]
    # The mean of 0.6 and 0.55, and six others of 0.4 / 6; squared and scaled.
    share = 0.575**2 / (0.575**2 + 6 * (0.4 / 6) ** 2)
    assert float(raw[0]["probability_1"]) == pytest.approx(0.575)
    assert float(calibrated[0]["probability_1"]) == pytest.approx(share)
    other_policy = replace(known, all_models={"1": 0.5})
    assert rows_of_answers(run, other_policy) == raw


def test_a_set_names_the_classes_that_may_be_right_and_says_when_they_are_several(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    predict(run, list(range(6)))
    # The labels of 99 images: 90 likeliest, 9 second.
    known = KeptCalibration(
        ("x", "y"), "other", 99, {}, {"144": 1.0}, {"144": [0.5] * 90 + [0.9] * 9}, {"144": [0] * 90 + [1] * 9}
    )
    write_answers(run, ENSEMBLE, known, 0.9)
    rows = list(csv.DictReader(io.StringIO(run.read("answers/top5.csv").decode())))
    assert {row["set"] for row in rows[:3]} == {"a", "b", "c"}
    assert {row["abstain"] for row in rows[:3]} == {"False"}
    write_answers(run, ENSEMBLE, known, 0.95)
    rows = list(csv.DictReader(io.StringIO(run.read("answers/top5.csv").decode())))
    assert rows[5]["set"].startswith(f"{rows[5]['answer_1']} | ")
    assert rows[5]["abstain"] == "True"
    table = pq.read_table(io.BytesIO(run.read("answers/top5.parquet"))).to_pylist()
    assert [" | ".join(row["set"]) for row in table] == [row["set"] for row in rows]
    # Each rank after the first costs so much that only the threshold of the second rank lets one more in.
    write_answers(run, ENSEMBLE, known, 0.95, set_rule=SetRule(1.0))
    shorter = list(csv.DictReader(io.StringIO(run.read("answers/top5.csv").decode())))
    assert max(row["set"].count(" | ") for row in shorter) == 1
    assert max(row["set"].count(" | ") for row in rows) > 1
    for nothing in (None, replace(known, label_mass={}, label_ranks={})):
        with pytest.raises(
            UserError, match=r"--coverage 0\.9 needs sets of classes: the run keeps none for the crop policy 144$"
        ):
            write_answers(run, ENSEMBLE, nothing, 0.9)


def test_answers_to_other_options_are_not_replaced_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made_run(tmp_path)
    predict(run, list(range(6)))
    known = KeptCalibration(("x", "y"), "other", 99, {}, {"144": 1.0}, {"144": [0.5] * 99}, {"144": [0] * 99})
    write_answers(run, ENSEMBLE, known, 0.9)
    write_answers(run, ENSEMBLE, known, 0.9)
    assert "replace" not in capsys.readouterr().out
    write_answers(run, ENSEMBLE, known, 0.95, set_rule=SetRule(0.5), calibrated=False)
    assert "these answers replace the earlier ones, which were given with --coverage 0.9\n" in capsys.readouterr().out
    write_answers(run, ENSEMBLE, known)
    options = "--coverage 0.95, --set-penalty 0.5, --no-calibrated"
    assert f"these answers replace the earlier ones, which were given with {options}\n" in capsys.readouterr().out
    pq.write_table(pa.table({"image_id": ["x"]}), str(tmp_path / "answers/top5.parquet"))  # of an earlier version
    write_answers(run, ENSEMBLE, known, 0.9)
    assert "replace" not in capsys.readouterr().out


def rows_of_answers(run: Storage, known: KeptCalibration | None) -> list[dict[str, str]]:
    text = write_answers(run, ENSEMBLE, known)
    assert ("temperature 0.500, fitted on 300 validation images" in text) == bool(known and "144" in known.all_models)
    return list(csv.DictReader(io.StringIO(run.read("answers/top5.csv").decode())))
