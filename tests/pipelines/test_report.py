"""The report: right on hand-made predictions, silent on incomplete ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from googlenet.records import SCHEMA
from pipelines.dataset import MANIFEST, Manifest, Shard, Split
from pipelines.errors import UserError
from pipelines.predictions import Ensemble, Predicted, file_name, write_predictions
from pipelines.report import build_report, write_report
from pipelines.storage import Storage

CLASSES = tuple("abcdefg")
ENSEMBLE = Ensemble(("replica_0", "replica_1"), ("x", "y"), (1, 10, 144), 84, CLASSES, "digest")
IDS = [f"val/{number}.jpg" for number in range(6)]
LABELS = np.array([0, 1, 2, 3, 4, 5], np.int32)


@pytest.fixture
def run(tmp_path: Path) -> Storage:
    """A run whose data set has six images of one class each, without predictions."""
    storage = Storage.at(str(tmp_path))
    columns = {"image_id": IDS, "image": [b""] * 6, "label": LABELS, "width": [1] * 6, "height": [1] * 6}
    with storage.writing("dataset/val/00000.parquet") as stream:
        pq.write_table(pa.table(columns, SCHEMA), stream)
    split = Split((Shard("val/00000.parquet", 6, ""),), dict.fromkeys(CLASSES, 1))
    storage.write_json(MANIFEST, Manifest({}, CLASSES, {"train": split, "val": split}, "digest", 0).to_dict())
    return storage


def answers(*choices: list[int]) -> np.ndarray:
    """(6, 2, 3, 7) probabilities: replica k answers ``choices[k]``, with 0.6, at every crop policy."""
    probabilities = np.full((6, 2, 3, 7), 0.4 / 6, np.float32)
    for replica, chosen in enumerate(choices):
        for image, answer in enumerate(chosen):
            probabilities[image, replica, :, answer] = 0.6 - 0.05 * replica
    return probabilities


def predict(run: Storage, rows: list[int], shard: int = 0, ensemble: Ensemble = ENSEMBLE, views: int = 144) -> None:
    probabilities = answers([0, 1, 2, 3, 4, 0], [0, 1, 2, 0, 0, 0])[rows]
    counts = np.tile(np.array([1, 10, views], np.int32), (len(rows), 2, 1))
    predicted = Predicted([IDS[row] for row in rows], LABELS[rows], counts, probabilities)
    write_predictions(run.below("predictions"), file_name(shard), ensemble, predicted)


def test_the_table_is_what_the_predictions_say(run: Storage) -> None:
    predict(run, [0, 1, 2, 3])
    predict(run, [4, 5], shard=1)
    report = build_report(run, ENSEMBLE)
    cells = {(row["models"], row["crops"]): row for row in report["table"]}
    # Replica 0 errs on 1 image of 6, replica 1 on 3; together the surer replica 0 prevails.
    assert cells[1, 1]["top1_error"] == pytest.approx(100 * (1 / 6 + 3 / 6) / 2)
    assert cells[1, 144]["top1_range"] == pytest.approx([100 / 6, 300 / 6])
    assert cells[2, 144]["top1_error"] == pytest.approx(100 / 6)
    assert cells[2, 144]["forward_passes"] == 288
    low, high = cells[2, 144]["top1_ci95"]
    assert low < 100 / 6 < high
    assert report["single_model"]["replica"] == "replica_0"
    assert report["images"] == 6
    assert report["classes"] == 7


def test_the_papers_figures_stand_beside_ours(run: Storage) -> None:
    predict(run, list(range(6)))
    text = write_report(run, ENSEMBLE)
    assert [line.split()[-1] for line in text.splitlines() if line.startswith("     1")] == ["10.07", "9.15", "7.89"]
    assert "| 1 | 144 | 144 |" in run.read("report/report.md").decode()
    assert run.read_json("report/report.json")["images"] == 6


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ([[0, 1, 2, 3, 4]], r"1 images not predicted: val/5\.jpg"),
        ([[0, 1, 2], [2, 3, 4, 5]], r"1 images predicted more than once: val/2\.jpg"),
        ([], "6 images not predicted"),
    ],
)
def test_incomplete_or_doubled_predictions_are_refused_by_name(
    run: Storage, shards: list[list[int]], message: str
) -> None:
    for number, rows in enumerate(shards):
        predict(run, rows, shard=number)
    with pytest.raises(UserError, match=message):
        build_report(run, ENSEMBLE)


def test_a_missing_view_is_refused_by_image_and_replica(run: Storage) -> None:
    predict(run, list(range(6)), views=143)
    with pytest.raises(UserError, match=r"val/0\.jpg has 143 of 144 views from replica_0"):
        build_report(run, ENSEMBLE)


def test_predictions_of_other_weights_are_refused(run: Storage) -> None:
    predict(run, list(range(6)), ensemble=replace(ENSEMBLE, weights_digests=("x", "z")))
    with pytest.raises(UserError, match="another ensemble"):
        build_report(run, ENSEMBLE)


def test_an_image_that_the_data_set_does_not_have_is_refused(run: Storage) -> None:
    predict(run, list(range(6)))
    stranger = Predicted(
        ["val/9.jpg"], LABELS[:1], np.tile(np.array([1, 10, 144], np.int32), (1, 2, 1)), answers([0] * 6, [0] * 6)[:1]
    )
    write_predictions(run.below("predictions"), file_name(1), ENSEMBLE, stranger)
    with pytest.raises(UserError, match=r"not in the data set: val/9\.jpg"):
        build_report(run, ENSEMBLE)
