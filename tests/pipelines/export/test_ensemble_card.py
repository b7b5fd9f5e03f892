"""The card of an exported ensemble: its metrics, its data and weights, and how to install what it needs."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from tests.pipelines.export.exports import export_beside
from tests.project import ROOT

COMMIT = "06bc3048b029c14b95723b72dff6bc2a0e65e5aa"


def test_the_cards_metrics_are_those_of_the_report(run: Path) -> None:
    report = json.loads((run / "report/report.json").read_text())
    for number, row in enumerate(report["table"]):
        row["top1_error"] = 12.5 + number
    (run / "report/report.json").write_text(json.dumps(report))
    exported = export_beside(run)
    card = ModelCard.load(exported / "README.md")
    results = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert results == {
        "top-1 accuracy, 1 model x 1 crop": 0.875,
        "top-1 accuracy, 1 model x 10 crops": 0.865,
        "top-1 accuracy, 2 models x 1 crop": 0.855,
        "top-1 accuracy, 2 models x 10 crops": 0.845,
    }
    assert {(r.dataset_name, r.dataset_split, r.task_type) for r in card.data.eval_results} == {
        ("photos", "validation", "image-classification")
    }
    assert card.data.license is None  # the user's choice, and the front matter says where it is made
    assert "# license:" in (exported / "README.md").read_text()
    assert "2 models with 10 crops err on 15.5 % (16.7 to 83.3) of 6 images" in card.text
    [code] = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    assert f'Ensemble.from_pretrained("{exported}")' in code


@pytest.mark.parametrize(
    ("recorded", "told"),
    [
        (COMMIT, f" at commit `{COMMIT}`"),
        (f"{COMMIT}-dirty", f" at commit `{COMMIT}` (the run's code had changes that were not committed)"),
        ("", ""),
    ],
)
def test_the_card_says_how_the_package_that_its_lines_import_is_installed(run: Path, recorded: str, told: str) -> None:
    [job] = (run / "jobs").iterdir()
    (run / "jobs/20261126T000000Z-0.json").write_text("{}")  # as of code without a repository
    job.write_text(json.dumps(json.loads(job.read_text()) | {"commit": recorded}))
    exported = export_beside(run)
    text = " ".join((exported / "README.md").read_text().split())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"`googlenet` is part of the package `{project['name']}`" in text
    assert f"Python {project['requires-python'].removeprefix('>=')} or newer" in text
    assert f"`make setup` in a clone of its repository{told}." in text


def test_the_card_names_what_is_on_the_hub_by_its_name_there(run: Path) -> None:
    about = json.loads((run / "run.json").read_text())
    about["recipe"] |= {"data": "hf://datasets/you/pets@v2/part", "init_weights": "hf://you/net/x.safetensors"}
    (run / "run.json").write_text(json.dumps(about))
    exported = export_beside(run)
    card = ModelCard.load(exported / "README.md")
    assert (card.data.datasets, card.data.base_model) == (["you/pets"], "you/net")
    result = card.data.eval_results[0]
    assert (result.dataset_type, result.dataset_name, result.dataset_revision) == ("you/pets", "pets", "v2")
    assert "starting from `hf://you/net/x.safetensors`, on 8 images of the data set you/pets;" in card.text
