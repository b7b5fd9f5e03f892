"""Evaluations of weights from outside of a run: on which classes, with what settings, and refused before any work."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from PIL import Image

from googlenet import Ensemble, GoogLeNet, load_weights
from googlenet.network.preprocessing import SCRATCH_PREPROCESSING
from googlenet.network.weights import to_safetensors
from pipelines import evaluate_ensemble
from pipelines.data.sources import images_to_evaluate
from pipelines.errors import UserError
from pipelines.evaluate_ensemble import Arguments, evaluate_weights
from pipelines.evaluation import external_weights
from tests.hub_server import hub_of

pytestmark = pytest.mark.timeout(200)

CLASSES = ["unseen_a", "class_2", "class_0", "unseen_b", "class_1", "unseen_c"]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = GoogLeNet(len(CLASSES), "bn", False, 0.125)
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(to_safetensors(model, model.state_dict(), SCRATCH_PREPROCESSING))
    return path


@pytest.fixture
def classes(tmp_path: Path) -> str:
    """A file with the names of these weights' outputs."""
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return str(tmp_path / "classes.txt")


@pytest.fixture
def arguments(photo_folder: Path, weights: Path, tmp_path: Path) -> Arguments:
    """These weights on photographs of three of their six classes, without the names of their outputs."""
    return Arguments(str(tmp_path / "run"), str(photo_folder / "val"), (str(weights),), crop_px=35)


def centre_crop(path: Path, crop: int) -> torch.Tensor:
    """Return (1, 3, crop, crop): shorter side to 8/7 of the crop, bilinear with antialiasing, then the middle."""
    image = Image.open(path).convert("RGB")
    scale = crop * 8 // 7
    width, height = (round(side * scale / min(image.size)) for side in image.size)
    scaled = image.resize((width, height), Image.Resampling.BILINEAR)
    square_left, square_top = (width - scale) // 2, (height - scale) // 2
    left, top = square_left + (scale - crop) // 2, square_top + (scale - crop) // 2
    pixels = np.array(scaled.crop((left, top, left + crop, top + crop)))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def test_weights_with_a_calibration_beside_them_answer_as_the_ensemble_of_these_files(
    ray_cluster: str, predictions_here: None, finished_run: Path, photo_folder: Path, tmp_path: Path
) -> None:
    files = sorted(finished_run.glob("replicas/*/weights.safetensors"))
    photos = photo_folder / "val/class_0"
    arguments = Arguments(
        str(tmp_path / "run"), str(photos), tuple(map(str, files)), policies=(1,), unlabelled=True, mlflow=False
    )
    assert "probabilities have the temperature" in evaluate_weights(arguments)
    rows = list(csv.DictReader((tmp_path / "run/answers/top5.csv").read_text().splitlines()))
    ensemble = Ensemble.load(files)
    found = [float(row["probability_1"]) for row in rows]
    for calibrated, differs in ((True, False), (False, True)):
        answers = [ensemble.answers(photos / row["image_id"], 1, calibrated=calibrated) for row in rows]
        expected = [answer["probability_1"] for answer in answers]
        assert (found != pytest.approx(expected, abs=1e-5)) == differs
    assert "probabilities have" not in evaluate_weights(replace(arguments, calibrated=False))


def test_a_model_of_more_classes_is_evaluated_on_a_folder_that_holds_some(
    ray_cluster: str, predictions_here: None, photo_folder: Path, weights: Path, arguments: Arguments, classes: str
) -> None:
    run = Path(arguments.run_dir)
    arguments = replace(arguments, classes=classes, policies=(1, 10), mlflow=False)
    assert evaluate_weights(arguments).endswith(f"report: {run}/report/index.html\nMLflow: not sent (--no-mlflow)")
    network = load_weights(weights)
    wrong = []
    for path in sorted((photo_folder / "val").rglob("*.jpg")):
        with torch.no_grad():
            logits = network.model(network.preprocessing(centre_crop(path, 35))).logits[0]
        wrong.append(CLASSES[logits.argmax()] != path.parent.name)
    report = json.loads((run / "report/report.json").read_text())
    table = {(row["models"], row["crops"]): row for row in report["table"]}
    assert set(table) == {(1, 1), (1, 10)}
    assert table[1, 1]["top1_error"] == pytest.approx(100 * np.mean(wrong))
    assert (report["images"], report["classes"]) == (42, 6)
    with pytest.raises(UserError, match="a different evaluation"):
        evaluate_weights(replace(arguments, policies=(1,)))


def test_gpus_that_no_node_has_are_refused_before_the_images_are_prepared(
    ray_cluster: str, arguments: Arguments, classes: str
) -> None:
    with pytest.raises(UserError, match="--gpus-per-predictor 1: no node has both a GPU and a CPU"):
        evaluate_weights(replace(arguments, classes=classes, gpus_per_predictor=1.0))
    assert not Path(arguments.run_dir, "dataset").exists()


def test_weights_without_class_names_ask_for_them(ray_cluster: str, arguments: Arguments) -> None:
    with pytest.raises(UserError, match=r"6 outputs.*3 classes.*--classes"):
        evaluate_weights(arguments)


@pytest.mark.parametrize("listed", [0, 5])
@pytest.mark.parametrize("name", ["bvlc", "torchvision:googlenet"])
def test_published_weights_for_other_classes_are_refused_before_their_download(
    photo_folder: Path, tmp_path: Path, name: str, listed: int
) -> None:
    (tmp_path / "five.txt").write_text("".join(f"class_{number}\n" for number in range(5)))
    classes = str(tmp_path / "five.txt") if listed else ""
    arguments = Arguments(str(tmp_path / "run"), str(photo_folder / "val"), (name,), classes)
    expected = f"--classes {classes} names 5" if listed else f"{photo_folder}/val has 3 classes"
    with pytest.raises(UserError, match=f"^{name} has 1,000 outputs, {expected}: "):
        evaluate_weights(arguments)
    assert not (tmp_path / "run").exists()


def test_images_are_listed_once_also_for_published_weights(
    arguments: Arguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = []
    monkeypatch.setattr(external_weights, "outputs_of_weights", lambda _: 3)  # folders of 1,000 classes take long
    monkeypatch.setattr(evaluate_ensemble, "each_file", lambda _: list(arguments.weights))
    monkeypatch.setattr(
        evaluate_ensemble, "images_to_evaluate", lambda *given: listed.append(given) or images_to_evaluate(*given)
    )
    with pytest.raises(UserError, match=r"foreign.safetensors has 6 outputs.*3 classes"):
        evaluate_weights(replace(arguments, weights=("bvlc",)))
    assert len(listed) == 1


def test_folders_with_names_of_their_own_are_not_taken_for_imagenets_order() -> None:
    for names in (("0", "1", "10", "2"), ("cat", "dog")):
        with pytest.raises(UserError, match=r"the outputs of bvlc are in the order of ImageNet's ids .*--classes FILE"):
            external_weights.check_order(("bvlc",), names, "photos")
    external_weights.check_order(("bvlc",), ("n01440764", "n01443537"), "photos")
    external_weights.check_order(("bvlc",), ("tench", "goldfish"), "a data set that lists its classes")
    external_weights.check_order(("mine.safetensors",), ("cat", "dog"), "photos")


def test_images_without_labels_need_names_for_the_models_outputs(arguments: Arguments) -> None:
    with pytest.raises(UserError, match="--classes FILE"):
        evaluate_weights(replace(arguments, unlabelled=True))


def test_weights_of_this_project_bring_their_crop_size_and_disagreement_is_refused(
    ray_cluster: str, predictions_here: None, photo_folder: Path, finished_run: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    files = tuple(str(finished_run / f"replicas/{k}/weights.safetensors") for k in range(2))
    arguments = Arguments(str(tmp_path / "run"), str(photo_folder), files, policies=(1,), mlflow=False)
    with pytest.raises(UserError, match=r"crop_px.*84.*35"):
        evaluate_weights(replace(arguments, crop_px=84))
    monkeypatch.setattr("sys.argv", ["first"])
    evaluate_weights(arguments)
    page = (tmp_path / "run/report/index.html").read_text()
    assert f"<dt>weights</dt><dd>{', '.join(files)}</dd>" in page
    assert all(f"<dt>{name}</dt>" in page for name in ("date", "command", "processor"))
    ours, theirs = (json.loads((run / "report/report.json").read_text()) for run in (tmp_path / "run", finished_run))
    assert ours["ensemble"]["crop_px"] == 35
    singles = [[r["rows"][0]["top1_error"] for r in report["replicas"][:2]] for report in (ours, theirs)]
    assert singles[0] == singles[1]
    # Who finds the predictions has measured nothing; who makes them again has.
    for predicting in ("first", "second"):
        monkeypatch.setattr("sys.argv", ["second"])
        evaluate_weights(replace(arguments, set_penalty=0.01))
        report = json.loads((tmp_path / "run/report/report.json").read_text())
        assert report["evaluated_by"]["command"] == predicting
        shutil.rmtree(tmp_path / "run/predictions")


def test_a_class_folder_that_the_model_lacks_is_named(photo_folder: Path) -> None:
    with pytest.raises(UserError, match="class_1"):
        images_to_evaluate(str(photo_folder), ("class_0", "class_2"))


def test_a_repository_on_the_hub_stands_for_each_of_its_replicas(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, classes in (("a", 3), ("b", 4)):
        model = GoogLeNet(classes, "bn", False, 0.125)
        (tmp_path / "hub/models/me/two").mkdir(parents=True, exist_ok=True)
        data = to_safetensors(model, model.state_dict(), SCRATCH_PREPROCESSING)
        (tmp_path / f"hub/models/me/two/{name}.safetensors").write_bytes(data)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    arguments = Arguments(str(tmp_path / "run"), str(photo_folder), ("hf://me/two",), policies=(1,), crop_px=35)
    with hub_of(tmp_path / "hub") as (address, _):
        monkeypatch.setenv("HF_ENDPOINT", address)
        with pytest.raises(UserError, match=r"^hf://me/two/b.safetensors has 4 outputs, .* has 3 classes"):
            evaluate_weights(arguments)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no weights at .*; the name bvlc downloads .*license: .*unrestricted use"),
        (b"junk", "not a complete safetensors file"),
    ],
)
def test_weights_that_cannot_be_read_are_named(
    tmp_path: Path, content: bytes | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        evaluate_weights(Arguments(str(tmp_path / "run"), str(tmp_path), (str(path),)))
    assert str(path) in str(error.value)
    # A download of 54 MB, and the import of PyTorch, are told before they begin.
    assert (f"reading the weights {path} ...\n" in capsys.readouterr().out) == (content is not None)
