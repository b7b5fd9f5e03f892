"""Tests that an exported ensemble gives the same probabilities in ONNX Runtime as the networks in PyTorch."""

import json
from pathlib import Path

import numpy as np
import pytest

from googlenet import load_weights
from pipelines.errors import UserError
from pipelines.export_onnx import export
from pipelines.run.storage import Storage

pytestmark = [pytest.mark.apart, pytest.mark.timeout(300)]


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
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == ["class_0", "class_1", "class_2"]
    for number in (1, 2, 10):
        crops = np.random.default_rng(number).integers(0, 256, (number, 3, 35, 35), dtype=np.uint8)
        [found] = session.run(None, {"crops": crops})
        expected = by_torch(finished_run, [0, 1, 2] if replica is None else [replica], crops)
        np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
    assert list(tmp_path.iterdir()) == [file]


def test_a_replica_that_is_not_there_is_named(finished_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="replica 7 is not finished; finished replicas: 0, 1, 2"):
        export(Storage.at(str(finished_run)), tmp_path / "x.onnx", 7)
