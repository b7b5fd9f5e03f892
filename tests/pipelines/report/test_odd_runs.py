"""Reports of unusual runs: replicas are missing, networks are of other sources, images are of few of the classes."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.report.contents import contents
from pipelines.report.markdown import markdown
from pipelines.report.page import report_page
from pipelines.report.remarks import notes
from pipelines.report.tally import tally_predictions
from pipelines.report.text import table_text
from pipelines.run.claims import claim
from pipelines.run.directory import read_run
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from tests.pipelines.report.made_runs import NOISY, answers, ensemble_of, made_run, predict_as
from tests.pipelines.report.test_words import COST, composed, flat


def test_the_papers_figures_do_not_stand_beside_ten_of_a_thousand_classes(tmp_path: Path) -> None:
    """As of published weights that are evaluated on the ten classes of Imagenette."""
    report, *_ = composed(tmp_path, *NOISY, classes=1000)
    for number, row in enumerate(report["class_errors"]):
        row["images"], row["top1_error"] = (10, 20.0) if number < 10 else (0, None)
    report["images"] = 100
    assert notes(report)[0].startswith("100 images, 1,000 classes, of which 10 have images;")
    examples: dict[str, Any] = {"image_id": "", "strips": [], "mistakes": []}
    for text in (
        table_text(report, COST, "report.md"),
        report_page(report, COST, "", {}, {}, examples),
        markdown(report, COST, {}, {}),
    ):
        assert "10.07" not in text
        assert "ImageNet" not in text


@pytest.mark.parametrize(
    ("names", "are_imagenets"),
    [
        ([f"n{label:08}_tench" for label in range(1000)], True),
        ([f"n{label % 10:08}_{label}" for label in range(1000)], False),
        (["tench, Tinca tinca", "Goldfish", "stinkhorn", "bolete", *map(str, range(996))], True),
        ([f"product {label}" for label in range(1000)], False),
    ],
)
def test_the_papers_figures_stand_beside_the_classes_of_imagenet_by_their_names(
    tmp_path: Path, names: list[str], are_imagenets: bool
) -> None:
    report, *_ = composed(tmp_path, *NOISY, classes=1000)
    report["ensemble"]["classes"] = names
    assert ("10.07" in markdown(report, COST, {}, {})) == are_imagenets


def test_pairs_of_replicas_are_named_where_one_is_missing(tmp_path: Path) -> None:
    names = ("replica_0", "replica_1", "replica_3")
    run, ensemble = made_run(tmp_path), replace(ensemble_of(3), replicas=names)
    predict_as(run, answers(*NOISY), ensemble)
    text = markdown(contents(tally_predictions(run, ensemble), ensemble), COST, {}, {})
    pairs = re.findall(r"^\| (\w+ and \w+) \|", text, re.MULTILINE)
    assert pairs == ["replica_0 and replica_1", "replica_0 and replica_3", "replica_1 and replica_3"]


@pytest.mark.parametrize("settings", [{"weights": ["x", "y", "z"]}, {"run": "1", "data": "photos"}])
def test_networks_of_other_sources_are_no_sample_of_seeds(tmp_path: Path, settings: dict[str, Any]) -> None:
    run, ensemble = made_run(tmp_path / "run"), ensemble_of(3)
    predict_as(run, answers(*NOISY), ensemble)
    claim(Storage.at(str(tmp_path / "claimed")), "evaluation", settings)
    known: Any = read_run(Storage.at(str(tmp_path / "claimed")))
    report = contents(tally_predictions(run, ensemble), ensemble, run=known)
    text = flat(f"{markdown(report, COST, {}, {})} {table_text(report, COST, 'report.md')}")
    have_seeds = "run" in settings  # those of a training run, evaluated into a directory of its own
    assert ("seeds" in text) == have_seeds
    assert any("_and_replicas" in name for name in report["table"][-1]) == have_seeds
    assert ("are over images alone: these networks are not a random sample of trainings." in text) != have_seeds


@pytest.mark.parametrize("fields", [{"wide_replica_width": 0.75}, {"areas": ((0.1, 1.0), (0.5, 1.0), (0.8, 1.0))}, {}])
def test_replicas_that_differ_by_their_recipe_are_no_sample_of_seeds(tmp_path: Path, fields: dict[str, Any]) -> None:
    run, ensemble = made_run(tmp_path / "run"), ensemble_of(3)
    predict_as(run, answers(*NOISY), ensemble)
    known: Any = {"id": "1", "recipe": Recipe(replicas=3, **fields).to_dict()}
    report = contents(tally_predictions(run, ensemble), ensemble, run=known)
    text = flat(f"{markdown(report, COST, {}, {})} {table_text(report, COST, 'report.md')}")
    assert any("_and_replicas" in name for name in report["table"][-1]) == (not fields)
    assert ("over images alone: these replicas differ in more than their seeds." in text) == bool(fields)
