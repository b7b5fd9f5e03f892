"""An ensemble exported as a graph gives the same probabilities elsewhere as the networks in PyTorch."""

import hashlib
import io
import json
import re
import shutil
import zipfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from googlenet import Ensemble, load_weights
from googlenet.evaluation.ensemble import CalibratedClassifier, PixelClassifier
from googlenet.evaluation.kept_calibration import KeptCalibration
from pipelines.errors import UserError
from pipelines.export.graphs import GraphFormat, _onnx, export_graph, graph_file
from pipelines.run.storage import Storage
from tests.commands import run_script
from tests.pages import example
from tests.pipelines.test_old_run import OLD
from tests.project import ROOT

pytestmark = [pytest.mark.apart, pytest.mark.timeout(300)]
PAGE = (ROOT / "docs/export.md").read_text()
CLASSES = ["class_0", "class_1", "class_2"]


def keys_of_the_page() -> set[str]:
    """The keys of the metadata that the page explains."""
    table = PAGE.partition("| key | meaning |\n")[2].partition("\n\n")[0]
    return {key for row in table.splitlines() for key in re.findall(r"`(\w+)`", row.split("|")[1])}


def by_torch(run: Path, replicas: list[int], crops: np.ndarray) -> np.ndarray:
    """Return the mean of the replicas' softmax outputs, computed here from each replica's parts."""
    import torch

    outputs = []
    with torch.inference_mode():
        for replica in replicas:
            network = load_weights(run / f"replicas/{replica}/weights.safetensors")
            logits = network.model(network.preprocessing(torch.from_numpy(crops))).logits.double().numpy()
            exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
            outputs.append(exponentials / exponentials.sum(axis=1, keepdims=True))
    return np.mean(outputs, axis=0)


@pytest.fixture(scope="module")
def of_all(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the ensemble; to export it takes ten seconds."""
    file = tmp_path_factory.mktemp("graph") / "ensemble.onnx"
    export_graph(Storage.at(str(finished_run)), file, "onnx")
    return file


def test_onnx_runtime_gives_the_same_probabilities_for_any_number_of_crops(finished_run: Path, of_all: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(of_all, providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == CLASSES
    temperature = json.loads((finished_run / "calibration.json").read_text())["all_models"]["1"]
    assert session.get_modelmeta().custom_metadata_map["temperature"] == str(temperature)
    for number in (1, 2, 10):
        crops = np.random.default_rng(number).integers(0, 256, (number, 3, 35, 35), dtype=np.uint8)
        found, calibrated = session.run(None, {"crops": crops})
        powers = found.astype(float) ** (1 / temperature)
        np.testing.assert_allclose(calibrated, powers / powers.sum(axis=1, keepdims=True), atol=1e-5)
        np.testing.assert_allclose(found, by_torch(finished_run, [0, 1, 2], crops), atol=1e-4, rtol=0)
    assert list(of_all.parent.iterdir()) == [of_all]


@pytest.mark.parametrize("temperature", [0.4, 3.0])
def test_no_temperature_changes_the_answer_of_a_graph_where_two_classes_nearly_tie(temperature: float) -> None:
    import onnxruntime
    import torch

    highest = np.concatenate([[0.5], np.random.default_rng(1).uniform(0.34, 0.5, 255)]).astype(np.float32)
    probabilities = np.stack([np.nextafter(highest, np.float32(0)), highest, 1 - 2 * highest], axis=1)

    class Known(PixelClassifier):
        """The probabilities of the row that the first pixel names."""

        def __init__(self) -> None:
            super().__init__([])
            self.register_buffer("rows", torch.from_numpy(probabilities))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.rows[images[:, 0, 0, 0].long()]

    graph = _onnx(CalibratedClassifier(Known(), temperature), torch.zeros(2, 3, 1, 1, dtype=torch.uint8), {})
    crops = np.tile(np.arange(256, dtype=np.uint8)[:, None, None, None], (1, 3, 1, 1))
    found, calibrated = onnxruntime.InferenceSession(graph).run(None, {"crops": crops})
    assert (found.dtype, calibrated.dtype) == (np.float32, np.float64)
    np.testing.assert_array_equal(found, probabilities)
    np.testing.assert_array_equal(calibrated.argmax(axis=1), found.argmax(axis=1))


@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_of_one_replica_its_network_and_the_temperature_of_one_model_become_the_graph(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: GraphFormat
) -> None:
    """How a network becomes a graph, which takes ten seconds, is the test above."""
    import torch

    given: list[tuple[torch.nn.Module, dict[str, str]]] = []

    def keep(network: torch.nn.Module, _crops: torch.Tensor, metadata: dict[str, str]) -> bytes:
        given.append((network, metadata))
        return b"graph"

    monkeypatch.setattr(f"pipelines.export.graphs._{form}", keep)
    file = tmp_path / f"replica.{form}"
    said = export_graph(Storage.at(str(finished_run)), file, form, 1)
    assert (said, file.read_bytes()) == (f"{file}: 1 replica, 3 classes, crops of 35 px", b"graph")
    [(network, metadata)] = given
    temperature = json.loads((finished_run / "calibration.json").read_text())["one_model"]["1"]
    assert metadata["temperature"] == str(temperature)
    crops = np.random.default_rng(0).integers(0, 256, (2, 3, 35, 35), dtype=np.uint8)
    with torch.inference_mode():
        outputs = network(torch.from_numpy(crops))
    found, *calibrated = outputs if form == "onnx" else [outputs]  # the latter has the average alone
    np.testing.assert_allclose(found, by_torch(finished_run, [1], crops), atol=1e-5, rtol=0)
    powers = found.double().numpy() ** (1 / temperature)
    for output in calibrated:
        np.testing.assert_allclose(output, powers / powers.sum(axis=1, keepdims=True), atol=1e-5)


def test_the_documented_lines_answer_like_the_ensemble_with_one_crop(
    finished_run: Path, of_all: Path, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = example("docs/export.md", "import json, numpy, onnxruntime")
    assert len(list(filter(None, program.splitlines()))) == 8
    shutil.copy(of_all, tmp_path)
    monkeypatch.chdir(tmp_path)
    ensemble = Ensemble.load(finished_run / f"replicas/{k}/weights.safetensors" for k in range(3))
    for photo in sorted((photo_folder / "val").glob("*/[012].jpg")):  # wide, tall and square
        (tmp_path / "photo.jpg").write_bytes(photo.read_bytes())
        output = io.StringIO()
        with redirect_stdout(output):
            exec(program, {})  # noqa: S102  # what a reader of the page runs
        answer, probability = output.getvalue().split()
        found = ensemble.answers(photo.read_bytes(), 1)
        expected = {found[f"answer_{place}"]: found[f"probability_{place}"] for place in range(1, len(CLASSES) + 1)}
        # Pillow resizes in another arithmetic, by which two classes that are nearly as likely may change places.
        assert float(probability) == pytest.approx(expected[answer], abs=0.05)
        assert expected[answer] > max(expected.values()) - 0.05


def test_the_file_says_how_its_input_is_made(of_all: Path) -> None:
    import onnxruntime

    about = onnxruntime.InferenceSession(of_all).get_modelmeta().custom_metadata_map
    assert (about["input_layout"], about["input_channels"], about["input_values"]) == ("NCHW", "RGB", "uint8, 0 to 255")
    assert (about["crop_px"], about["shorter_side_px"]) == ("35", "40")
    assert "shorter side to 40 px (bilinear with antialiasing), take the 35 x 35 px in the middle" in about["resize"]
    assert "in the model" in about["preprocessing"]
    assert set(about) == keys_of_the_page()


def test_a_replica_that_is_not_there_is_named(finished_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="replica 7 is not finished; finished replicas: 0, 1, 2"):
        export_graph(Storage.at(str(finished_run)), tmp_path / "x.onnx", "onnx", 7)


@pytest.fixture(scope="module")
def of_pytorch(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The file of two replicas with a temperature, and the lines of its export, which takes seconds."""
    folder = tmp_path_factory.mktemp("pytorch")
    run = Path(shutil.copytree(OLD, folder / "run"))
    files = [run / f"replicas/{k}/weights.safetensors" for k in range(2)]
    digests = tuple(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    fitted, scores, ranks = {"1": 2.5}, {"1": [0.0] * 50}, {"1": [0] * 50}
    kept = KeptCalibration(digests, "", 50, fitted, fitted, scores, ranks)
    (run / "calibration.json").write_text(json.dumps(kept.to_dict()))
    output = io.StringIO()
    with redirect_stdout(output):
        print(export_graph(Storage.at(str(run)), folder / "ensemble.pt2", "pt2"))
    return folder / "ensemble.pt2", output.getvalue()


@pytest.fixture(scope="module")
def read_as_documented(of_pytorch: tuple[Path, str], photo_folder: Path) -> tuple[dict[str, Any], str]:
    """The variables and the output of the documented lines beside a photograph; to load the file takes seconds."""
    file, _ = of_pytorch
    shutil.copy(next(photo_folder.glob("val/*/2.jpg")), file.parent / "photo.jpg")
    variables, output = dict[str, Any](), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output):
        patch.chdir(file.parent)
        exec(example("docs/export.md", "import json, numpy, torch"), variables)  # noqa: S102  # what a reader runs
    return variables, output.getvalue()


def test_a_graph_of_pytorch_gives_the_same_probabilities_without_this_project(
    of_pytorch: tuple[Path, str], read_as_documented: tuple[dict[str, Any], str]
) -> None:
    import torch

    (file, said), (variables, _) = of_pytorch, read_as_documented
    exporting, exported = said.splitlines()
    assert exporting == f"exporting {file.parent}/run ..."  # before minutes of silence
    assert exported == f"{file}: 2 replicas, 2 classes, crops of 35 px"
    about = variables["about"]
    assert json.loads(about["classes"]) == ["class_0", "class_1"]
    assert about["crop_px"] == "35"
    assert set(about) == keys_of_the_page()
    for number in (1, 2, 10):
        crops = np.random.default_rng(number).integers(0, 256, (number, 3, 35, 35), dtype=np.uint8)
        found = variables["network"](torch.from_numpy(crops)).detach().numpy()
        np.testing.assert_allclose(found, by_torch(OLD, [0, 1], crops), atol=1e-5, rtol=0)
    with zipfile.ZipFile(file) as parts:
        assert not [name for name in parts.namelist() if parts.read(name).startswith((b"PK", b"\x80"))]  # no pickle


def test_the_documented_lines_answer_with_a_graph_of_pytorch_by_calibrated_probabilities(
    of_pytorch: tuple[Path, str], read_as_documented: tuple[dict[str, Any], str]
) -> None:
    answer, probability = read_as_documented[1].split()
    photo = Image.open(of_pytorch[0].parent / "photo.jpg")
    crop = ImageOps.fit(photo, (35, 35), Image.Resampling.BILINEAR, bleed=1 / 16)
    [averaged] = by_torch(OLD, [0, 1], np.asarray(crop).transpose(2, 0, 1)[None].copy())
    powers = averaged ** (1 / 2.5)
    assert answer == CLASSES[averaged.argmax()]
    assert float(probability) == pytest.approx(powers.max() / powers.sum(), abs=1e-5)
    assert averaged.max() - float(probability) > 0.01


def test_a_file_of_another_kind_than_the_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--output must end with .pt2, got .*/x.onnx"):
        export_graph(Storage.at(str(OLD)), tmp_path / "x.onnx", "pt2")


def test_a_graph_replaces_no_file(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"/x\.onnx exists; choose another --output, or remove it$"):
        export_graph(Storage.at(str(OLD)), tmp_path / "x.onnx", "onnx")
    assert (tmp_path / "x.onnx").read_bytes() == b"mine"


@pytest.mark.parametrize("output", ["s3://bucket/e.onnx", "hf://owner/repo/e.onnx", "gs://bucket/e.onnx"])
@pytest.mark.parametrize("command", [("export_ensemble.py", "--format", "onnx"), ("export_onnx.py",)])
def test_a_graph_is_not_written_to_a_folder_that_is_called_like_a_store(command: tuple[str, ...], output: str) -> None:
    script, *options = command
    ended = run_script(f"pipelines/{script}", "--run-dir", str(OLD), "--output", output, *options)
    assert (ended.code, ended.stderr.count("\n")) == (2, 1)
    assert f"--output of a graph must be a file on this machine, got {output}" in ended.stderr
    assert not (ROOT / output.partition("//")[0]).exists()  # the command's current folder


def test_a_file_uri_is_a_file_on_this_machine() -> None:
    assert graph_file("file:///tmp/e.onnx") == graph_file("/tmp/e.onnx") == Path("/tmp/e.onnx")  # noqa: S108


def test_weights_that_no_onnx_file_can_hold_are_refused_before_the_export(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.export.graphs.MOST_ONNX_BYTES", 1)
    with pytest.raises(UserError, match=r"of 3 replicas have .* 2 GiB: export single replicas with --replica"):
        export_graph(Storage.at(str(finished_run)), tmp_path / "ensemble.onnx", "onnx")
