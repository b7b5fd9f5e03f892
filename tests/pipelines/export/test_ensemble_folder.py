"""Ensembles exported to a folder: its content, answers like those of the run, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from googlenet import Ensemble
from googlenet.network.weights import WeightsError
from pipelines.errors import UserError
from pipelines.export.ensemble_folder import export_ensemble
from pipelines.run.claims import claim
from pipelines.run.directory import read_recipe
from pipelines.run.named_recipes import load_recipe
from pipelines.run.storage import Storage
from tests.pages import example
from tests.pipelines.export.exports import NAMES, RUN, export_beside, of_the_run
from tests.pipelines.test_old_run import OLD


def test_two_lines_answer_like_the_run_for_every_kind_of_image(exported: Path, photo: Path) -> None:
    ensemble = Ensemble.from_pretrained(exported)
    expected = of_the_run().probabilities(photo.read_bytes(), 10)
    upright = np.rot90(np.asarray(Image.open(photo)), 3)
    for image in (photo, str(photo), photo.read_bytes(), Image.open(photo), np.ascontiguousarray(upright)):
        np.testing.assert_array_equal(ensemble.probabilities(image, 10), expected)
    assert ensemble.classes == ("class_0", "class_1")


@pytest.mark.parametrize(
    ("key", "value"),
    [("classes", ["cat", "dog"]), ("crop_px", 224), ("weights_digests", {"replica_0.safetensors": "0" * 64})],
)
def test_a_description_that_was_changed_is_noticed(exported: Path, key: str, value: object) -> None:
    file = exported / "config.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, key: value}))
    with pytest.raises(WeightsError, match=r"config.json was changed|is not the file that was exported"):
        Ensemble.from_pretrained(exported)
    del content["weights_digests"]  # as earlier versions exported it
    file.write_text(json.dumps(content))
    assert Ensemble.from_pretrained(exported).classes == ("class_0", "class_1")


def test_a_byte_that_changed_on_its_way_is_noticed(exported: Path) -> None:
    file = exported / "replica_1.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(
        WeightsError, match=r"replica_1.safetensors is not the file that was exported.*download it again"
    ):
        Ensemble.from_pretrained(exported)


def test_a_budget_that_there_is_not_is_named() -> None:
    with pytest.raises(ValueError, match=r"^there is no budget 'quick': the budgets are fast, balanced, best$"):
        of_the_run().answers(np.zeros((9, 9, 3), np.uint8), budget="quick")


def test_the_folder_holds_weights_recipe_report_and_card(tmp_path: Path) -> None:
    said = export_ensemble(RUN, str(tmp_path / "exported"))
    assert said == f"{tmp_path}/exported: 2 replicas, 2 classes, 266.0 KB"
    assert sorted(path.name for path in (tmp_path / "exported").iterdir()) == NAMES
    assert list(tmp_path.iterdir()) == [tmp_path / "exported"]  # nothing unfinished is left
    assert load_recipe(str(tmp_path / "exported/recipe.json")) == read_recipe(RUN)
    assert (tmp_path / "exported/report.json").read_bytes() == (OLD / "report/report.json").read_bytes()


def test_the_report_leaves_out_how_the_evaluation_was_started(run: Path) -> None:
    report = json.loads((run / "report/report.json").read_text())
    (run / "report/report.json").write_text(json.dumps(report | {"evaluated_by": {"command": "--data /mnt/secret"}}))
    exported = export_beside(run)
    assert json.loads((exported / "report.json").read_text()) == report


def test_an_evaluation_of_other_weights_is_refused_without_an_option_that_there_is_not(tmp_path: Path) -> None:
    claim(Storage.at(str(tmp_path)), "weights", {})
    with pytest.raises(UserError, match=r"holds no run of train_ensemble.py; give one with --run-dir$"):
        export_ensemble(Storage.at(str(tmp_path)), str(tmp_path / "exported"))


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ("{}/full", "full exists; choose another --output, or remove it"),
        ("{}/full/file", "file exists; choose another"),
        ("{}/full/file/below", r"below cannot be written \(Not a directory\): choose another --output"),
        ("{}/" + "n" * 300, r"cannot be written \(File name too long\)"),
        ("/dev/null", "null exists; choose another"),
        ("/proc/exported", "/proc/exported cannot be written"),
        (".", "must be a new folder, not the current one"),
        ("", "must be a new folder, not the current one"),
        ("~no-such-user/x", "there is no home folder of no-such-user"),
        ("s3://bucket/x", "must be a folder on this machine, or hf://OWNER/REPO"),
        ("hf:/me/net", "must be a folder on this machine, or hf://OWNER/REPO"),
        ("https://huggingface.co/me/net", "must be a folder on this machine, or hf://me/net"),
        ("hf://datasets/me/net", "must be a repository of a model"),
        ("hf://me/net/part", "must be a repository of a model"),
        ("hf://net", "Expected hf://OWNER/REPO"),
    ],
)
def test_an_output_that_cannot_be_used_is_named(tmp_path: Path, output: str, problem: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")
    with pytest.raises(UserError, match=problem):
        export_ensemble(RUN, output.format(tmp_path))
    assert (tmp_path / "full/file").read_text() == "mine"


@pytest.mark.parametrize("target", ["empty", "nothing"])
def test_a_link_leads_to_the_folder(tmp_path: Path, target: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / target)
    export_ensemble(RUN, str(tmp_path / "link"))
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in (tmp_path / target).iterdir()) == NAMES


def test_an_incomplete_report_is_not_exported(run: Path, tmp_path: Path) -> None:
    (run / "report/report.json").write_text("{}")
    with pytest.raises(UserError, match=r"is incomplete; repeat the evaluation: python"):
        export_beside(run)
    assert list(tmp_path.iterdir()) == [run]


@pytest.mark.parametrize("name", ["report/cost.json", "dataset/manifest.json"])
def test_a_run_that_lost_a_file_is_not_blamed_on_the_output(run: Path, name: str) -> None:
    (run / name).unlink()
    with pytest.raises(UserError, match=f"run lacks {name}: restore it, or run train_ensemble.py"):
        export_beside(run)


@pytest.mark.parametrize("missing", ["report/report.json", "replicas/1/weights.safetensors"])
def test_an_unfinished_run_leaves_no_folder(run: Path, tmp_path: Path, missing: str) -> None:
    (run / missing).unlink()
    with pytest.raises(UserError, match=r"run train_ensemble.py on it again|no weights at .*/replicas/1/weights"):
        export_beside(run)
    assert list(tmp_path.iterdir()) == [run]


def test_weights_that_the_report_is_not_about_are_refused(run: Path) -> None:
    shutil.copy(run / "replicas/0/weights.safetensors", run / "replicas/1/weights.safetensors")
    with pytest.raises(UserError, match=r"the report of .* is not of the weights of replica_1"):
        export_beside(run)


def test_the_pages_lines_answer(
    exported: Path, tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = example("docs/export.md", "from googlenet import Ensemble")
    exec(code.replace("runs/", f"{tmp_path}/").replace("PHOTO", str(photo)), {})  # noqa: S102  # as a reader would
    assert "answer_1" in capsys.readouterr().out
