"""Tests that an exported ensemble gives the same probabilities in ONNX Runtime as the networks in PyTorch."""

import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest

from googlenet import Ensemble, load_weights
from pipelines.errors import UserError
from pipelines.export_onnx import export
from pipelines.run.storage import Storage
from tests.project import ROOT

pytestmark = [pytest.mark.apart, pytest.mark.timeout(300)]
PAGE = (ROOT / "docs/mlflow.md").read_text()
CLASSES = ["class_0", "class_1", "class_2"]


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


@pytest.mark.parametrize("replica", [None, 1], ids=["the ensemble", "one replica"])
def test_onnx_runtime_gives_the_same_probabilities_for_any_number_of_crops(
    finished_run: Path, tmp_path: Path, replica: int | None
) -> None:
    import onnxruntime

    file = tmp_path / "exported.onnx"
    export(Storage.at(str(finished_run)), file, replica)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == CLASSES
    for number in (1, 2, 10):
        crops = np.random.default_rng(number).integers(0, 256, (number, 3, 35, 35), dtype=np.uint8)
        [found] = session.run(None, {"crops": crops})
        expected = by_torch(finished_run, [0, 1, 2] if replica is None else [replica], crops)
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
    assert list(tmp_path.iterdir()) == [file]


def test_the_documented_lines_answer_like_the_ensemble_with_one_crop(
    finished_run: Path, photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [program] = re.findall(r"```python\n(import json, numpy, onnxruntime.*?)```", PAGE, re.DOTALL)
    assert len(list(filter(None, program.splitlines()))) == 8
    export(Storage.at(str(finished_run)), tmp_path / "ensemble.onnx")
    monkeypatch.chdir(tmp_path)
    ensemble = Ensemble(
        [load_weights(finished_run / f"replicas/{k}/weights.safetensors") for k in range(3)], CLASSES, 35
    )
    for photo in sorted((photo_folder / "val").glob("*/[012].jpg")):  # wide, tall and square
        (tmp_path / "photo.jpg").write_bytes(photo.read_bytes())
        output = io.StringIO()
        with redirect_stdout(output):
            exec(program, {})  # noqa: S102  # what a reader of the page runs
        answer, probability = output.getvalue().split()
        expected = ensemble.answers(photo.read_bytes(), 1)
        assert answer == expected["answer_1"]
        assert float(probability) == pytest.approx(expected["probability_1"], abs=0.05)


def test_the_file_says_how_its_input_is_made(finished_run: Path, tmp_path: Path) -> None:
    import onnxruntime

    export(Storage.at(str(finished_run)), tmp_path / "x.onnx", 1)
    about = onnxruntime.InferenceSession(tmp_path / "x.onnx").get_modelmeta().custom_metadata_map
    assert (about["input_layout"], about["input_channels"], about["input_values"]) == ("NCHW", "RGB", "uint8, 0 to 255")
    assert (about["crop_px"], about["shorter_side_px"]) == ("35", "40")
    assert "shorter side to 40 px (bilinear with antialiasing), take the 35 x 35 px in the middle" in about["resize"]
    assert "in the model" in about["preprocessing"]
    assert all(f"`{key}`" in PAGE for key in about)  # and the page says so too


def test_a_replica_that_is_not_there_is_named(finished_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="replica 7 is not finished; finished replicas: 0, 1, 2"):
        export(Storage.at(str(finished_run)), tmp_path / "x.onnx", 7)
