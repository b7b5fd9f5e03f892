"""Exported ensembles: content of the folder, and answers like those of the run, from a disk and from a Hub."""

import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image

from googlenet import Ensemble
from googlenet.network.weights import WeightsError
from pipelines.errors import UserError
from pipelines.export.ensemble_folder import export_ensemble
from pipelines.run.claims import claim
from pipelines.run.directory import read_recipe
from pipelines.run.named_recipes import load_recipe
from pipelines.run.storage import Storage
from tests.hub_server import TOKEN, hub_of
from tests.pages import example
from tests.pipelines.test_old_run import OLD
from tests.project import ROOT

NAMES = ["README.md", "config.json", "recipe.json", "replica_0.safetensors", "replica_1.safetensors", "report.json"]
RUN = Storage.at(str(OLD))
COMMIT = "06bc3048b029c14b95723b72dff6bc2a0e65e5aa"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serve an empty Hub; its folder of models."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with hub_of(tmp_path / "hub") as (address, _):
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield tmp_path / "hub/models"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A photograph that its camera turned: it is stored lying, and answered upright."""
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    return tmp_path / "photo.png"


def of_the_run() -> Ensemble:
    return Ensemble.load([OLD / f"replicas/{replica}/weights.safetensors" for replica in (0, 1)])


def test_two_lines_answer_like_the_run_for_every_kind_of_image(tmp_path: Path, photo: Path) -> None:
    export_ensemble(RUN, str(tmp_path / "exported"))
    ensemble = Ensemble.from_pretrained(tmp_path / "exported")
    expected = of_the_run().probabilities(photo.read_bytes(), 10)
    upright = np.rot90(np.asarray(Image.open(photo)), 3)
    for image in (photo, str(photo), photo.read_bytes(), Image.open(photo), np.ascontiguousarray(upright)):
        np.testing.assert_array_equal(ensemble.probabilities(image, 10), expected)
    assert ensemble.classes == ("class_0", "class_1")


@pytest.mark.parametrize(
    ("key", "value"),
    [("classes", ["cat", "dog"]), ("crop_px", 224), ("weights_digests", {"replica_0.safetensors": "0" * 64})],
)
def test_a_description_that_was_changed_is_noticed(tmp_path: Path, key: str, value: object) -> None:
    export_ensemble(RUN, str(tmp_path / "exported"))
    file = tmp_path / "exported/config.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, key: value}))
    with pytest.raises(WeightsError, match=r"config.json was changed|is not the file that was exported"):
        Ensemble.from_pretrained(tmp_path / "exported")
    del content["weights_digests"]  # as earlier versions exported it
    file.write_text(json.dumps(content))
    assert Ensemble.from_pretrained(tmp_path / "exported").classes == ("class_0", "class_1")


def test_a_byte_that_changed_on_its_way_is_noticed(tmp_path: Path) -> None:
    export_ensemble(RUN, str(tmp_path / "exported"))
    file = tmp_path / "exported/replica_1.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(
        WeightsError, match=r"replica_1.safetensors is not the file that was exported.*download it again"
    ):
        Ensemble.from_pretrained(tmp_path / "exported")


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


def test_the_report_leaves_out_how_the_evaluation_was_started(tmp_path: Path) -> None:
    run = Path(shutil.copytree(OLD, tmp_path / "run"))
    report = json.loads((run / "report/report.json").read_text())
    (run / "report/report.json").write_text(json.dumps(report | {"evaluated_by": {"command": "--data /mnt/secret"}}))
    export_ensemble(Storage.at(str(run)), str(tmp_path / "exported"))
    assert json.loads((tmp_path / "exported/report.json").read_text()) == report


def test_the_cards_metrics_are_those_of_the_report(tmp_path: Path) -> None:
    run = Path(shutil.copytree(OLD, tmp_path / "run"))
    report = json.loads((run / "report/report.json").read_text())
    for number, row in enumerate(report["table"]):
        row["top1_error"] = 12.5 + number
    (run / "report/report.json").write_text(json.dumps(report))
    export_ensemble(Storage.at(str(run)), str(tmp_path / "exported"))
    card = ModelCard.load(tmp_path / "exported/README.md")
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
    assert "# license:" in (tmp_path / "exported/README.md").read_text()
    assert "2 models with 10 crops err on 15.5 % (16.7 to 83.3) of 6 images" in card.text
    [code] = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    assert f'Ensemble.from_pretrained("{tmp_path}/exported")' in code


@pytest.mark.parametrize(
    ("recorded", "told"),
    [
        (COMMIT, f" at commit `{COMMIT}`"),
        (f"{COMMIT}-dirty", f" at commit `{COMMIT}` (the run's code had changes that were not committed)"),
        ("", ""),
    ],
)
def test_the_card_says_how_the_package_that_its_lines_import_is_installed(
    tmp_path: Path, recorded: str, told: str
) -> None:
    run = Path(shutil.copytree(OLD, tmp_path / "run"))
    [job] = (run / "jobs").iterdir()
    (run / "jobs/20261126T000000Z-0.json").write_text("{}")  # as of code without a repository
    job.write_text(json.dumps(json.loads(job.read_text()) | {"commit": recorded}))
    export_ensemble(Storage.at(str(run)), str(tmp_path / "exported"))
    text = " ".join((tmp_path / "exported/README.md").read_text().split())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"`googlenet` is part of the package `{project['name']}`" in text
    assert f"Python {project['requires-python'].removeprefix('>=')} or newer" in text
    assert f"`make setup` in a clone of its repository{told}." in text


def test_the_card_names_what_is_on_the_hub_by_its_name_there(tmp_path: Path) -> None:
    run = Path(shutil.copytree(OLD, tmp_path / "run"))
    about = json.loads((run / "run.json").read_text())
    about["recipe"] |= {"data": "hf://datasets/you/pets@v2/part", "init_weights": "hf://you/net/x.safetensors"}
    (run / "run.json").write_text(json.dumps(about))
    export_ensemble(Storage.at(str(run)), str(tmp_path / "exported"))
    card = ModelCard.load(tmp_path / "exported/README.md")
    assert (card.data.datasets, card.data.base_model) == (["you/pets"], "you/net")
    result = card.data.eval_results[0]
    assert (result.dataset_type, result.dataset_name, result.dataset_revision) == ("you/pets", "pets", "v2")
    assert "starting from `hf://you/net/x.safetensors`, on 8 images of the data set you/pets;" in card.text


def test_a_repository_on_the_hub_answers_like_the_run(hub: Path, photo: Path) -> None:
    said = export_ensemble(RUN, "hf://me/net")
    assert re.fullmatch(r"http://127.0.0.1:\d+/me/net: 2 replicas, .* new and private, .*", said)
    assert json.loads((hub.parent / "created.json").read_text())["visibility"] == "private"
    assert sorted(path.name for path in (hub / "me/net").iterdir()) == NAMES
    assert 'from_pretrained("hf://me/net")' in (hub / "me/net/README.md").read_text()
    ensemble = Ensemble.from_pretrained("hf://me/net")
    np.testing.assert_array_equal(ensemble.probabilities(photo, 1), of_the_run().probabilities(photo, 1))


def test_an_existing_repository_keeps_its_license_and_no_earlier_weights(hub: Path) -> None:
    (hub / "me/net").mkdir(parents=True)
    (hub / "me/net/README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    for name in ("replica_6.safetensors", "notes.txt"):
        (hub / "me/net" / name).write_text("of an earlier export")
    (hub / "me/net/config.json").write_text('{"format": "googlenet-ensemble-1"}')
    assert "private" not in export_ensemble(RUN, "hf://me/net")
    assert sorted(path.name for path in (hub / "me/net").iterdir()) == sorted([*NAMES, "notes.txt"])
    card = ModelCard.load(hub / "me/net/README.md")
    assert card.data.license == "mit"
    assert "# license:" not in (hub / "me/net/README.md").read_text()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("adapter.safetensors", "x"),
        ("onnx/replica_0.safetensors", "x"),
        ("config.json", '{"model_type": "llama"}'),
        ("model.pth", "x"),
    ],
)
def test_a_repository_of_another_model_is_left_as_it_is(hub: Path, name: str, content: str) -> None:
    file = hub / "me/llm" / name
    file.parent.mkdir(parents=True)
    file.write_text(content)
    card = hub / "me/llm/README.md"
    card.write_text("# Mine")
    with pytest.raises(UserError, match=rf"^hf://me/llm holds something else \({name}\): choose another repository$"):
        export_ensemble(RUN, "hf://me/llm")
    assert {path for path in (hub / "me/llm").rglob("*") if path.is_file()} == {file, card}
    assert (file.read_text(), card.read_text()) == (content, "# Mine")


def test_a_new_repository_with_a_license_is_exported_to(hub: Path) -> None:
    (hub / "me/net").mkdir(parents=True)
    (hub / "me/net/README.md").write_text("---\nlicense: mit\n---\n")
    for name in (".gitattributes", "LICENSE"):
        (hub / "me/net" / name).write_text("mine")
    export_ensemble(RUN, "hf://me/net")
    assert {path.name for path in (hub / "me/net").iterdir()} == {*NAMES, ".gitattributes", "LICENSE"}


def test_an_evaluation_of_other_weights_is_refused_without_an_option_that_there_is_not(tmp_path: Path) -> None:
    claim(Storage.at(str(tmp_path)), "weights", {})
    with pytest.raises(UserError, match=r"holds no run of train_ensemble.py; give one with --run-dir$"):
        export_ensemble(Storage.at(str(tmp_path)), str(tmp_path / "exported"))


def test_without_a_token_nothing_is_uploaded(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match=r"^hf://me/net: .*log in with `hf auth login`, or set HF_TOKEN$"):
        export_ensemble(RUN, "hf://me/net")
    assert not (hub / "me/net").exists()


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


def test_an_incomplete_report_is_not_exported(tmp_path: Path) -> None:
    run = Path(shutil.copytree(OLD, tmp_path / "run"))
    (run / "report/report.json").write_text("{}")
    with pytest.raises(UserError, match=r"is incomplete; repeat the evaluation: python"):
        export_ensemble(Storage.at(str(run)), str(tmp_path / "exported"))
    assert list(tmp_path.iterdir()) == [run]


@pytest.mark.parametrize("name", ["report/cost.json", "dataset/manifest.json"])
def test_a_run_that_lost_a_file_is_not_blamed_on_the_output(tmp_path: Path, name: str) -> None:
    run = Path(shutil.copytree(OLD, tmp_path / "run"))
    (run / name).unlink()
    with pytest.raises(UserError, match=f"run lacks {name}: restore it, or run train_ensemble.py"):
        export_ensemble(Storage.at(str(run)), str(tmp_path / "exported"))


def test_a_token_that_may_not_write_is_not_told_to_try_later(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(
        UserError, match=r"does not permit it \(status 401\); use a token that has the permission: log in with"
    ) as error:
        export_ensemble(RUN, "hf://me/net")
    assert "try later" not in str(error.value)


@pytest.mark.parametrize("missing", ["report/report.json", "replicas/1/weights.safetensors"])
def test_an_unfinished_run_leaves_no_folder(tmp_path: Path, missing: str) -> None:
    run = Path(shutil.copytree(OLD, tmp_path / "run"))
    (run / missing).unlink()
    with pytest.raises(UserError, match=r"run train_ensemble.py on it again|no weights at .*/replicas/1/weights"):
        export_ensemble(Storage.at(str(run)), str(tmp_path / "exported"))
    assert list(tmp_path.iterdir()) == [run]


def test_weights_that_the_report_is_not_about_are_refused(tmp_path: Path) -> None:
    run = Path(shutil.copytree(OLD, tmp_path / "run"))
    shutil.copy(run / "replicas/0/weights.safetensors", run / "replicas/1/weights.safetensors")
    with pytest.raises(UserError, match=r"the report of .* is not of the weights of replica_1"):
        export_ensemble(Storage.at(str(run)), str(tmp_path / "exported"))


def test_the_pages_lines_answer(tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export_ensemble(RUN, str(tmp_path / "exported"))
    code = example("docs/export.md", "from googlenet import Ensemble")
    exec(code.replace("runs/", f"{tmp_path}/").replace("PHOTO", str(photo)), {})  # noqa: S102  # as a reader would
    assert "answer_1" in capsys.readouterr().out
