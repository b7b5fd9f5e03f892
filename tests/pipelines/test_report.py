"""The report: right on hand-made predictions, silent on incomplete ones."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from googlenet.arithmetic import FP32
from googlenet.records import SCHEMA
from pipelines.dataset import MANIFEST, Manifest, Shard, Split
from pipelines.errors import UserError
from pipelines.predictions import Cost, Ensemble, Predicted, file_name, write_predictions
from pipelines.report import write_report
from pipelines.storage import Storage

CLASSES = tuple("abcdefg")
ENSEMBLE = Ensemble(("replica_0", "replica_1"), ("x", "y"), (1, 10, 144), 84, CLASSES, "digest", FP32)
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


def rows_of(ids: list[str], labels: np.ndarray, probabilities: np.ndarray, views: int = 144) -> Predicted:
    """Every view and group of views answers like the average; with the maximum, replica 1 is as sure as replica 0."""
    everyone = np.concatenate([probabilities, probabilities.mean(axis=1, keepdims=True)], axis=1)[:, :, -1].argmax(-1)
    counts = np.tile(np.array([1, 10, views], np.int32), (len(ids), 2, 1))
    by_view = np.repeat(everyone[:, :, None], len(ENSEMBLE.views), axis=2).astype(np.int32)
    by_group = np.repeat(everyone[:, :, None], len(ENSEMBLE.groups), axis=2).astype(np.int32)
    pooled = np.where(probabilities[:, :, -1] > 0.5, np.float32(0.9), probabilities[:, :, -1])
    return Predicted(ids, labels, counts, probabilities, pooled, by_view, by_group)


def predict(run: Storage, rows: list[int], shard: int = 0, ensemble: Ensemble = ENSEMBLE, views: int = 144) -> None:
    probabilities = answers([0, 1, 2, 3, 4, 0], [0, 1, 2, 0, 0, 0])[rows]
    predicted = rows_of([IDS[row] for row in rows], LABELS[rows], probabilities, views)
    cost = Cost(seconds=0.5 * len(rows), forward_passes=288 * len(rows))
    write_predictions(run.below("predictions"), file_name(shard), ensemble, predicted, cost)


def report_of(run: Storage) -> dict[str, Any]:
    write_report(run, ENSEMBLE)
    report: dict[str, Any] = run.read_json("report/report.json")
    return report


def test_the_table_is_what_the_predictions_say(run: Storage) -> None:
    predict(run, [0, 1, 2, 3])
    predict(run, [4, 5], shard=1)
    report = report_of(run)
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
        report_of(run)


def test_a_missing_view_is_refused_by_image_and_replica(run: Storage) -> None:
    predict(run, list(range(6)), views=143)
    with pytest.raises(UserError, match=r"val/0\.jpg has 143 of 144 views from replica_0"):
        report_of(run)


def test_predictions_of_other_weights_are_refused(run: Storage) -> None:
    predict(run, list(range(6)), ensemble=replace(ENSEMBLE, weights_digests=("x", "z")))
    with pytest.raises(UserError, match="another ensemble"):
        report_of(run)


def test_an_image_that_the_data_set_does_not_have_is_refused(run: Storage) -> None:
    predict(run, list(range(6)))
    stranger = rows_of(["val/9.jpg"], LABELS[:1], answers([0] * 6, [0] * 6)[:1])
    write_predictions(run.below("predictions"), file_name(1), ENSEMBLE, stranger, Cost(1.0, 1))
    with pytest.raises(UserError, match=r"not in the data set: val/9\.jpg"):
        report_of(run)


def test_differences_to_the_base_cell_are_paired(run: Storage) -> None:
    predict(run, list(range(6)))
    cells = {(row["models"], row["crops"]): row for row in report_of(run)["table"]}
    assert cells[1, 1]["top1_difference_ci95"] == [0, 0]
    assert cells[1, 144]["top1_difference_ci95"] == [0, 0]  # all policies answer alike here
    # The two together err on 1 image of 6, one of them on 2 of 6 on average; never on an image that both know.
    assert cells[2, 1]["top1_difference"] == pytest.approx(-100 / 6)
    low, high = cells[2, 1]["top1_difference_ci95"]
    assert low < -100 / 6 < high <= 0


def test_max_pooling_stands_beside_averaging(run: Storage) -> None:
    predict(run, list(range(6)))
    one, two = report_of(run)["pooling"]
    assert one["top1_difference"] == 0
    assert (two["top1_error_average"], two["models"]) == (pytest.approx(100 / 6), 2)
    # Equally sure now, the two tie where they differ, and the lower class is taken: wrong on images 3, 4 and 5.
    assert two["top1_error_max"] == pytest.approx(300 / 6)
    assert two["top1_difference"] == pytest.approx(200 / 6)


def test_views_and_groups_of_views_have_the_errors_of_their_answers(run: Storage) -> None:
    predict(run, list(range(6)))
    report = report_of(run)
    assert len(report["views"]) == 144
    assert all(view["top1_error"] == pytest.approx(200 / 6) for view in report["views"])
    assert all(view["top1_error_all_models"] == pytest.approx(100 / 6) for view in report["views"])
    assert [group["group"] for group in report["view_groups"]][:4] == [f"scale {s} px" for s in (96, 108, 120, 132)]
    assert all(group["top1_error"] == pytest.approx(200 / 6) for group in report["view_groups"])


def test_classes_confusions_and_mistakes_are_named(run: Storage) -> None:
    predict(run, list(range(6)))
    report = report_of(run)
    by_class = {row["class"]: row for row in report["class_errors"]}
    assert by_class["f"] == {"class": "f", "images": 1, "top1_error": 100, "most_often_taken_for": "a"}
    assert by_class["g"] == {"class": "g", "images": 0, "top1_error": None, "most_often_taken_for": None}
    (mistake,) = report["mistakes"]
    assert (mistake["image_id"], mistake["label"], mistake["answer"]) == ("val/5.jpg", "f", "a")
    assert mistake["probability"] == pytest.approx((0.6 + 0.55) / 2)
    assert run.read("report/confusion.csv").decode().splitlines() == [
        "label,answer,images", "a,a,1", "b,b,1", "c,c,1", "d,d,1", "e,e,1", "f,a,1"
    ]  # fmt: skip


def test_diversity_is_that_of_the_answers(run: Storage) -> None:
    predict(run, list(range(6)))
    diversity = report_of(run)["diversity"]
    assert diversity["disagreement"][0][1] == pytest.approx(200 / 6)
    assert diversity["pairs"] == [
        {"replicas": [0, 1], "disagreement": pytest.approx(200 / 6), "gain": pytest.approx(100 / 6)}
    ]


def test_measured_seconds_stand_apart_from_what_is_the_same_on_every_machine(run: Storage) -> None:
    predict(run, list(range(6)))
    report_of(run)
    first = run.read("report/report.json")
    cost = run.read_json("report/cost.json")
    assert (cost["predictor_seconds"], cost["forward_passes"]) == (3.0, 6 * 288)
    assert "| 2 | 144 | 288 | 0.500 |" in run.read("report/report.md").decode()
    report_of(run)
    assert run.read("report/report.json") == first


def test_pictures_are_drawn_and_the_same_every_time(run: Storage) -> None:
    predict(run, list(range(6)))
    names = ["error_by_models.png", "reliability.png", "views.png", "diversity.png"]
    report_of(run)
    pictures = [run.read(f"report/{name}") for name in names]
    assert all(f"]({name})" in run.read("report/report.md").decode() for name in names)
    for picture in pictures:
        assert np.asarray(Image.open(io.BytesIO(picture))).std() > 10
    report_of(run)
    assert [run.read(f"report/{name}") for name in names] == pictures
