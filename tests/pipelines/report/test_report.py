"""The report: right on hand-made predictions, refused on incomplete ones."""

import io
import json
import shutil
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.errors import UserError
from pipelines.report.columns import table_columns
from pipelines.report.contents import contents
from pipelines.report.drawing import svg
from pipelines.report.figures import learning_curves, read_curves
from pipelines.report.tally import tally_predictions
from pipelines.report.write import write_report
from pipelines.run.predictions import Cost, file_name, write_predictions
from pipelines.run.storage import Storage
from tests.pipelines.report.made_runs import CLASSES, ENSEMBLE, IDS, LABELS, answers, made_run, predict, rows_of


@pytest.fixture
def run(tmp_path: Path) -> Storage:
    return made_run(tmp_path)


@pytest.fixture
def reported(reported_run: Path) -> Storage:
    """A run with predictions of all images, and its report; read-only."""
    return Storage.at(str(reported_run))


def report_in(run: Storage) -> dict[str, Any]:
    report: dict[str, Any] = run.read_json("report/report.json")
    return report


def report_of(run: Storage) -> dict[str, Any]:
    """What report.json would hold, without drawing the pictures."""
    report: dict[str, Any] = json.loads(json.dumps(contents(tally_predictions(run, ENSEMBLE), ENSEMBLE)))
    return report


def test_the_table_is_what_the_predictions_say(run: Storage) -> None:
    predict(run, [0, 1, 2, 3])
    predict(run, [4, 5], shard=1)
    report = report_of(run)
    cells = {(row["models"], row["crops"]): row for row in report["table"]}
    # Replica 0 is wrong on 1 image of 6, replica 1 on 3; in the average the more confident replica 0 wins.
    assert cells[1, 1]["top1_error"] == pytest.approx(100 * (1 / 6 + 3 / 6) / 2)
    assert cells[1, 144]["top1_range"] == pytest.approx([100 / 6, 300 / 6])
    assert cells[2, 144]["top1_error"] == pytest.approx(100 / 6)
    assert cells[2, 144]["forward_passes"] == 288
    low, high = cells[2, 144]["top1_ci95"]
    assert low < 100 / 6 < high
    assert report["single_model"]["replica"] == "replica_0"
    assert report["images"] == 6
    assert report["classes"] == 7


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ([[0, 1, 2, 3, 4]], r"1 image not predicted: val/5\.jpg"),
        ([[0, 1, 2], [2, 3, 4, 5]], r"1 image predicted more than once: val/2\.jpg"),
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


def test_differences_to_the_base_cell_are_paired(reported: Storage) -> None:
    cells = {(row["models"], row["crops"]): row for row in report_in(reported)["table"]}
    assert cells[1, 1]["top1_difference_ci95"] == [0, 0]
    assert cells[1, 144]["top1_difference_ci95"] == [0, 0]  # all policies give the same answers here
    # The average of both is wrong on 1 image of 6, one of them on 2 of 6 on average.
    assert cells[2, 1]["top1_difference"] == pytest.approx(-100 / 6)
    low, high = cells[2, 1]["top1_difference_ci95"]
    assert low < -100 / 6 < high <= 0


def test_max_pooling_stands_beside_averaging(reported: Storage) -> None:
    one, two = report_in(reported)["pooling"]
    assert one["top1_difference"] == 0
    assert (two["top1_error_average"], two["models"]) == (pytest.approx(100 / 6), 2)
    # Equally confident now, the two tie where they differ, and the lower class wins: wrong on images 3, 4 and 5.
    assert two["top1_error_max"] == pytest.approx(300 / 6)
    assert two["top1_difference"] == pytest.approx(200 / 6)


def test_views_and_groups_of_views_have_the_errors_of_their_answers(reported: Storage) -> None:
    report = report_in(reported)
    assert len(report["views"]) == 144
    assert all(view["top1_error"] == pytest.approx(200 / 6) for view in report["views"])
    assert all(view["top1_error_all_models"] == pytest.approx(100 / 6) for view in report["views"])
    assert [group["group"] for group in report["view_groups"]][:4] == [f"scale {s} px" for s in (96, 108, 120, 132)]
    assert all(group["top1_error"] == pytest.approx(200 / 6) for group in report["view_groups"])


def test_classes_confusions_and_mistakes_are_named(reported: Storage) -> None:
    report = report_in(reported)
    by_class = {row["class"]: row for row in report["class_errors"]}
    assert by_class["f"] == {"class": "f", "images": 1, "top1_error": 100, "most_often_taken_for": "a"}
    assert by_class["g"] == {"class": "g", "images": 0, "top1_error": None, "most_often_taken_for": None}
    (mistake,) = report["mistakes"]
    assert (mistake["image_id"], mistake["label"], mistake["answer"]) == ("val/5.jpg", "f", "a")
    assert mistake["probability"] == pytest.approx((0.6 + 0.55) / 2)
    assert reported.read("report/confusion.csv").decode().splitlines() == [
        "label,answer,images", "a,a,1", "b,b,1", "c,c,1", "d,d,1", "e,e,1", "f,a,1"
    ]  # fmt: skip


def test_diversity_is_that_of_the_answers(reported: Storage) -> None:
    diversity = report_in(reported)["diversity"]
    assert diversity["disagreement"][0][1] == pytest.approx(200 / 6)
    assert diversity["pairs"] == [
        {"replicas": [0, 1], "disagreement": pytest.approx(200 / 6), "gain": pytest.approx(100 / 6)}
    ]


def test_measured_seconds_stand_apart_from_what_is_the_same_on_every_machine(reported: Storage) -> None:
    cost = reported.read_json("report/cost.json")
    assert (cost["predictor_seconds"], cost["forward_passes"]) == (3.0, 6 * 288)
    assert "| 2 | 144 | 288 | 0.500 |" in reported.read("report/report.md").decode()
    quick = table_columns(reported.read_json("report/report.json"), {**cost, "seconds_per_pass": 0.000085})
    [seconds] = [column.cells for column in quick if column.heading == "seconds"]
    assert (seconds[0], seconds[-1]) == ("0.000085", "0.024")


def test_pictures_are_drawn_and_the_whole_report_is_the_same_every_time(reported: Storage, tmp_path: Path) -> None:
    run = Storage.at(str(tmp_path / "run"))
    shutil.copytree(reported.root, run.root, ignore=lambda _folder, _names: ["report"])
    write_report(run, ENSEMBLE)
    names = [
        f"{name}.png" for name in ("class_errors", "confusion", "error_by_models", "reliability", "spending", "views")
    ]
    assert [name for name in run.files("report") if name.endswith(".png")] == names
    for name in names:
        assert np.asarray(Image.open(io.BytesIO(run.read(f"report/{name}")))).std() > 10
    for name in run.files("report"):
        assert run.read(f"report/{name}") == reported.read(f"report/{name}"), name


class Page(HTMLParser):
    """The cells of a page's tables, its images, what it loads, and its unclosed elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.loads: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")
        if tag == "img":
            self.images.append(values)
        self.ids += [values["id"]] if values.get("id") else []
        self.loads += [str(values[name]) for name in ("src", "href", "xlink:href") if values.get(name)]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self.open:
            self.cells[-1] += f"{data} "


def test_the_page_needs_nothing_else_and_holds_the_table_the_views_and_the_mistakes(reported: Storage) -> None:
    report = report_in(reported)
    page = Page(reported.read("report/index.html").decode())
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    text = reported.read("report/index.html").decode()
    assert '<svg role="img" aria-label="Error by the number of models" ' in text
    assert text.count('<div class="wide') == text.count('" tabindex="0" role="group" aria-label="') > 0
    assert all(link.startswith(("data:", "#")) for link in page.loads)
    # The table of top-1 errors has two numbers of models and three crop policies; the best replica is wrong on one.
    rows = {(row["models"], row["crops"]): row for row in report["table"]}
    expected = []
    for models in (1, 2):
        for crops in (1, 10, 144):
            row = rows[models, crops]
            low, high = row["top1_ci95"]
            expected.append(
                f"{row['top1_error']:.1f} {low:.1f}\N{EN DASH}{high:.1f}" + (" best 16.7" if models == 1 else "")
            )
    assert [" ".join(cell.split()) for cell in page.cells[: len(expected)]] == expected
    strips = [image for image in page.images if "views of" in str(image["alt"])]
    assert strips[0]["alt"] == f"12 views of {IDS[0]}, 96 px, first"
    assert len(strips) == 12  # of 12 views each
    mistakes = [image["alt"] for image in page.images if image not in strips]
    assert mistakes == [mistake["image_id"] for mistake in report["mistakes"]]
    assert len(mistakes) == 1


def test_names_on_the_page_are_text_whatever_they_hold(run: Storage) -> None:
    names = ("<script>alert(1)</script>", "cost $#$", 'style="#ffffff"', r"$\\foo$", 'id="#x')
    names = (*names, "\N{CJK UNIFIED IDEOGRAPH-732B}")
    ensemble = replace(ENSEMBLE, classes=(*names, *CLASSES[6:]))
    predict(run, list(range(6)), ensemble=ensemble)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of letters that the font of the pictures lacks
        write_report(run, ensemble)
    assert "&lt;script>" in run.read("report/report.md").decode()
    page = run.read("report/index.html").decode()
    assert "<script" not in page
    for name in names[1:]:
        assert f">{name}</text>" in page  # unchanged, as a label of a picture


def test_learning_curves_are_those_of_the_replicas_that_finished(run: Storage) -> None:
    for replica in (0, 1, 4):
        line = {"epoch": 1, "train_loss_logits": 1.0, "val_top1_error": 5.0, "val_top1_error_raw_weights": 6.0}
        run.write(f"replicas/{replica}/metrics.jsonl", f"{json.dumps(line)}\n".encode())
    page = svg(learning_curves(read_curves(run, ("replica_1", "replica_4"))), "learning_curves")
    assert [name in page for name in ("replica 0<", "replica 1<", "replica 4<")] == [False, True, True]


def test_the_outcomes_are_the_errors_of_each_image(reported: Storage) -> None:
    outcomes = pq.read_table(reported.path("report/outcomes.parquet")).to_pydict()
    assert outcomes["image_id"] == IDS
    # Replica 0 is wrong on the last image, replica 1 on the last three, their average on the last one.
    assert outcomes["top1_wrong/1x144"] == [0, 0, 0, 0.5, 0.5, 1]
    assert outcomes["top1_wrong/2x144"] == [0, 0, 0, 0, 0, 1]


def test_a_report_that_is_only_half_replaced_is_none(reported: Storage, tmp_path: Path) -> None:
    run = Storage.at(str(shutil.copytree(reported.root, tmp_path / "run")))
    run.delete("report/outcomes.parquet")
    Path(run.path("report/outcomes.parquet")).mkdir()  # so that it cannot be written
    with pytest.raises(IsADirectoryError):
        write_report(run, ENSEMBLE, with_pictures=False)
    assert not run.exists("report/report.json")
