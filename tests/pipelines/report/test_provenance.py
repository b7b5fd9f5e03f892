"""Provenance of a report: of a training run, and of evaluations before and after this project recorded them."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipelines.report.comparison import read_finished
from pipelines.report.provenance import evaluated_by, node_text
from pipelines.report.write import write_report
from pipelines.run.claims import claim
from pipelines.run.first_start import keep_start
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from tests.pipelines.report.made_runs import ENSEMBLE, made_run, predict
from tests.pipelines.report.test_words import flat, pages_of

NODE = {"host": "secret", "cpus": 16.0, "gpus": 1, "accelerator": "H100"}
TRAINING = {
    "started": "2026-11-25T22:35:34+00:00",
    "command": "pipelines/train_ensemble.py --recipe demo",
    "commit": "0123456789abcdef0123456789abcdef01234567-dirty",
    "host": "secret",
    "nodes": [NODE, NODE],
}
EVALUATION: dict[str, Any] = {
    "started": "2026-11-27T08:00:00+00:00",
    "command": "pipelines/evaluate_ensemble.py --run-dir x",
    "commit": "fedcba9876543210",
    "code_digest": "d",
    "versions": {"python": "3.12"},
    "processor": "Sixty-four",
    "nodes": [{**NODE, "cpus": 1, "gpus": 0, "accelerator": ""}],
    "host": "secret",
    "platform": "Linux",
}
EVALUATION_SHOWN = (
    "- date: 2026-11-27 08:00:00 UTC",
    "- command: `python pipelines/evaluate_ensemble.py --run-dir x`",
    "- processor: Sixty-four, 1 CPU",
    "- commit: `fedcba987654`",
)
TRAINING_SHOWN = (
    "- training date: 2026-11-25 22:35:34 UTC",
    "- training command: `python pipelines/train_ensemble.py --recipe demo`",
    "- training processor: 2 nodes of 16 CPUs and 1 GPU H100",
    "- training commit: `0123456789ab-dirty`",
)
OF_EVALUATION = re.compile(r"^- (date|command|processor|commit):", re.MULTILINE)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    run = made_run(tmp_path_factory.mktemp("trained"))
    claim(run, "recipe", Recipe(name="demo", replicas=2).to_dict())
    run.write_json("jobs/1.json", TRAINING)
    run.write_json("dataset/manifest.json", {**run.read_json("dataset/manifest.json"), "quarantined": 3})
    predict(run, list(range(6)))
    return run


def keep(run: Storage, start: Any) -> None:
    """Keep a start beside the choice of the arithmetic."""
    run.write_json("preflight.json", {"key": ""})
    keep_start(run, start)


def text_of(page: str) -> str:
    return flat(re.sub("<[^>]+>", "", page))


def test_the_page_and_the_tables_say_where_they_come_from(trained: Storage) -> None:
    write_report(trained, ENSEMBLE, with_pictures=False)
    page, markdown = pages_of(trained)
    for expected in (
        ", 3 quarantined (digest ",
        "; dataset/quarantine.jsonl lists those that were left out",
        "2026-11-25 22:35:34 UTC",
        "demo",
        "python pipelines/train_ensemble.py --recipe demo",
        "2 nodes of 16 CPUs and 1 GPU H100",
        "0123456789ab-dirty",
    ):
        assert expected in text_of(page)
        assert expected in markdown
    assert "training date" not in markdown
    assert "evaluated_by" not in trained.read_json("report/report.json")
    assert "secret" not in page + markdown


def test_an_evaluation_says_when_and_how_it_was_made_and_the_training_too(trained: Storage, tmp_path: Path) -> None:
    elsewhere = made_run(tmp_path / "elsewhere")
    predict(elsewhere, list(range(6)))
    own = Storage.at(str(shutil.copytree(trained.root, tmp_path / "own")))
    for run, of in ((elsewhere, trained), (own, None)):  # on other images, and on its own after the training
        keep(run, evaluated_by(EVALUATION))
        write_report(run, ENSEMBLE, of, with_pictures=False)
        page, markdown = pages_of(run)
        for line in (*EVALUATION_SHOWN, *TRAINING_SHOWN):
            assert line in markdown
            assert line.partition(": ")[2].strip("`") in text_of(page)
        kept = run.read_json("report/report.json")["evaluated_by"]
        expected = {name: value for name, value in EVALUATION.items() if name not in ("host", "platform", "nodes")}
        assert kept == {**expected, "nodes": [{"cpus": 1, "gpus": 0, "accelerator": ""}]}
        assert "secret" not in page + markdown + str(kept)
        assert read_finished(run, "x").evaluation["commit"] == EVALUATION["commit"]
    keep_start(own, None)  # a training job that began the predictions has a log of its own
    write_report(own, ENSEMBLE, with_pictures=False)
    assert "evaluated_by" not in own.read_json("report/report.json")


def test_an_evaluation_of_an_earlier_version_shows_the_training_alone(trained: Storage, tmp_path: Path) -> None:
    elsewhere = made_run(tmp_path)
    predict(elsewhere, list(range(6)))
    write_report(elsewhere, ENSEMBLE, trained, with_pictures=False)
    markdown = pages_of(elsewhere)[1]
    assert all(line in markdown for line in TRAINING_SHOWN)
    assert not OF_EVALUATION.search(markdown)


def test_the_weights_that_were_given_are_named(tmp_path: Path) -> None:
    run = made_run(tmp_path)
    predict(run, list(range(6)))
    given = ["bvlc", "/home/me/other.pth"]
    keep(run, evaluated_by(EVALUATION, given))
    write_report(run, ENSEMBLE, with_pictures=False)
    page, markdown = pages_of(run)
    assert "<dt>weights</dt><dd>bvlc, /home/me/other.pth</dd>" in page
    assert "- weights: bvlc, /home/me/other.pth\n" in markdown
    assert "- training" not in markdown
    assert run.read_json("report/report.json")["evaluated_by"]["weights"] == given


def test_a_node_without_gpus_has_none_in_its_name() -> None:
    assert node_text({"cpus": 1.0, "gpus": 0.0, "accelerator": ""}) == "1 CPU"
    assert node_text(NODE) == "16 CPUs and 1 GPU H100"
