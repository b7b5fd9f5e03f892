"""The Python of the documentation: each example is run here, or by a test of what it is about."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import mlflow
import pytest
import torch

import googlenet.evaluation.ensemble  # before the tests, as MLflow: importing them starts a process
from pipelines.data.sources import images_to_train_on
from tests.googlenet.network.test_weight_files import pth, torchvision_model
from tests.pages import PAGES, example, python_of
from tests.project import ROOT

NOT_RUN = {
    ("SECURITY.md", "torch.load("): "how this project reads a file",
    ("docs/data.md", "load_from_disk("): "of the package datasets, which this project does not install",
    ("docs/training.md", "torchvision.models.googlenet("): "the network of the block below it",
}


def test_every_example_is_run_by_a_test() -> None:
    tests = "".join(path.read_text() for path in sorted((ROOT / "tests").rglob("*.py")))
    known = {*NOT_RUN, *re.findall(r'\bexample\("([^"]+)", "([^"]+)"\)', tests)}
    pages = [str(page.relative_to(ROOT)) for page in PAGES if page.name != "CHANGELOG.md"]  # that of earlier versions
    shown = [(page, code) for page in pages for code in python_of(page)]
    assert len(shown) > len(NOT_RUN) + 10
    unknown = [found for found in shown if not any((found[0], found[1][: len(b)]) == (page, b) for page, b in known)]
    assert not unknown, f"the documentation shows Python that no test runs: {unknown}"
    for page, beginning in NOT_RUN:
        assert example(page, beginning)


@pytest.fixture(scope="module")
def project(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the store of some runs, in which the models with more errors are neither older nor newer."""
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("project")
    (folder / "runs").mkdir()
    shutil.copy(empty_store, folder / "runs/mlflow.db")
    client = MlflowClient(f"sqlite:///{folder}/runs/mlflow.db")
    experiment = client.create_experiment("googlenet-ensemble")
    run = client.create_run(experiment).info.run_id
    for name, error in (("good", 10.0), ("poor", 30.0), ("fair", 20.0)):
        model = client.create_logged_model(experiment, name, run).model_id
        for data, value in (("photos (val)", error), ("others (val)", 50.0 - error)):
            client.log_metric(run, "top1_error/144", value, dataset_name=data, dataset_digest=data, model_id=model)
    return folder


def test_the_python_of_mlflow_ranks_models_by_their_errors_on_a_data_set(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # which the code below sets, too
    code = example("docs/mlflow.md", "import mlflow")
    found = []
    for changed in (code, code.replace('"field_name"', '"ascending": False, "field_name"')):
        exec(changed, {})  # noqa: S102  # as a reader would
        # Ids are hexadecimal: none of these words can occur in one.
        found.append(re.findall("good|fair|poor", capsys.readouterr().out))
    mlflow.set_tracking_uri(None)
    assert found == [["good", "fair", "poor"], ["poor", "fair", "good"]]


def test_the_python_of_own_images_deletes_a_model(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    client = mlflow.MlflowClient(f"sqlite:///{project}/runs/mlflow.db")
    model = client.create_logged_model(client.create_experiment("mine"), "ensemble")
    monkeypatch.chdir(project)
    eval(example("docs/own_images.md", "mlflow.MlflowClient("), {"mlflow": mlflow, "ID": model.model_id})  # noqa: S307
    assert client.search_logged_models([model.experiment_id]) == []
    assert list(project.iterdir()) == [project / "runs"]


def sorted_by(
    code: str, files: Mapping[str, bytes], labels: Mapping[str, str], separator: str = ","
) -> dict[str, set[bytes]]:
    """The contents by class, after the Python of a page has sorted ``files`` in the current folder."""
    for name, content in files.items():
        Path("PHOTOS", name).parent.mkdir(parents=True, exist_ok=True)
        Path("PHOTOS", name).write_bytes(content)
    lines = [f"{name}{separator}{label}\n" for name, label in {"filename": "label", **labels}.items()]
    Path("LABELS.csv").write_text("".join(lines), encoding="utf-8-sig")  # as Excel does
    exec(code, {})  # noqa: S102  # as a reader would
    reader, listing = images_to_train_on("SORTED", 10, 0)
    found: dict[str, set[bytes]] = {name: set() for name in listing.classes}
    for image in (image for images in listing.splits.values() for image in images):
        found[listing.classes[image.label]].add(reader.read(image))
    return found


def test_the_python_of_data_sorts_pictures_into_class_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_name, by_table = example("docs/data.md", "import re"), example("docs/data.md", "import csv")
    names = ("cat.0.jpg", "cat.1.JPG", "great_pyrenees_1.png", "great_pyrenees_2.jpeg", "cat.JPEG")
    (tmp_path / "names").mkdir()
    monkeypatch.chdir(tmp_path / "names")
    Path("pool").write_bytes(b"linked")
    Path("PHOTOS").mkdir()
    Path("PHOTOS/cat_7.jpg").symlink_to(tmp_path / "names/pool")  # the link has the name with the class
    found = sorted_by(by_name, {name: name.encode() for name in (*names, "notes.txt")}, {})
    assert found == {
        "cat": {b"cat.0.jpg", b"cat.1.JPG", b"cat.JPEG", b"linked"},
        "great_pyrenees": {b"great_pyrenees_1.png", b"great_pyrenees_2.jpeg"},
    }
    labels = {"a.JPG": "big dog", "b.png": "Katze", "x/1.jpg": "big dog", "y/1.jpg": "big dog", "z/1.jpg": "Katze"}
    labels |= {"c.jpg": "Katze/rot", "d.jpg": "Katze/rot", "e.jpg": ""}
    for folder, separator in (("commas", ","), ("semicolons", ";")):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        found = sorted_by(by_table, {name: name.encode() for name in labels}, labels, separator)
        assert found == {
            "big dog": {b"a.JPG", b"x/1.jpg", b"y/1.jpg"},
            "Katze": {b"b.png", b"z/1.jpg"},
            "Katze_rot": {b"c.jpg", b"d.jpg"},
        }


def test_the_python_of_training_keeps_weights_with_their_own_preprocessing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = example("docs/training.md", "from googlenet import")
    monkeypatch.chdir(tmp_path)
    Path("MINE.pth").write_bytes(pth(torchvision_model()))
    exec(code, {})  # noqa: S102  # as a reader would
    kept, given = (googlenet.load_weights(f"MINE.{suffix}") for suffix in ("safetensors", "pth"))
    assert kept.preprocessing.mean == tuple(pytest.approx(255 * mean) for mean in (0.485, 0.456, 0.406))
    assert kept.preprocessing.std == tuple(pytest.approx(255 * std) for std in (0.229, 0.224, 0.225))
    assert all(map(torch.equal, kept.model.state_dict().values(), given.model.state_dict().values()))


def test_the_python_of_own_images_answers_a_photograph(
    photo_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = example("docs/own_images.md", "from glob import")
    photograph = next(photo_folder.rglob("*.jpg"))
    monkeypatch.chdir(ROOT / "tests/pipelines/old_run")
    exec(code.replace("runs/fine/", "").replace("PHOTO", str(photograph)), {})  # noqa: S102  # as a reader would
    assert "answer_1" in capsys.readouterr().out
