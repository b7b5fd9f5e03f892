"""Claims: pixels arrive in any nesting that MLflow makes of them, never as the path of a file; policies are checked."""

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel
from PIL import Image

from googlenet import GoogLeNet
from googlenet.evaluation.crops import chosen_policy
from googlenet.network.preprocessing import SCRATCH_PREPROCESSING
from googlenet.network.weights import to_safetensors
from pipelines.tracking.ensemble_model import EnsembleModel, _image

PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)


def object_array(rows: list[Any]) -> np.ndarray:  # type: ignore[type-arg]
    array = np.empty(len(rows), object)
    array[:] = rows
    return array


@pytest.mark.parametrize(
    "given",
    [PIXELS, PIXELS.tolist(), tuple(PIXELS.tolist()), object_array([object_array(list(row)) for row in PIXELS])],
    ids=["array", "lists", "tuple", "arrays of arrays"],
)
def test_pixels_are_the_same_in_every_nesting(given: Any) -> None:
    np.testing.assert_array_equal(np.asarray(_image("pixels", given)), PIXELS)


def test_a_text_in_place_of_pixels_is_not_read_as_a_path() -> None:
    with pytest.raises(ValueError, match="pixels must be an array, got str"):
        _image("pixels", "/etc/hostname")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EnsembleModel:
    """The model of one replica, of a run that keeps no order of views."""
    monkeypatch.setattr(PyFuncModel, "predict", PyFuncModel.predict)  # loading the model replaces it
    torch.manual_seed(0)
    network = GoogLeNet(2, "bn", False, 0.125)
    (tmp_path / "a.safetensors").write_bytes(to_safetensors(network, network.state_dict(), SCRATCH_PREPROCESSING))
    about = {"replicas": ["a"], "classes": ["cat", "dog"], "crop_px": 35, "policies": [1, 10]}
    (tmp_path / "about.json").write_text(json.dumps(about))
    made = EnsembleModel()
    files = {"a": str(tmp_path / "a.safetensors"), "ensemble": str(tmp_path / "about.json")}
    made.load_context(SimpleNamespace(artifacts=files))
    return made


def test_a_number_in_place_of_an_image_fails_its_row_and_no_other(model: EnsembleModel) -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((40, 40, 3), 99, np.uint8)).save(file, "PNG")
    given = [1234567890123, 3.5, True, np.int64(3), file.getvalue(), list(file.getvalue())]
    answers = model.predict(pd.DataFrame({"image": pd.Series(given, dtype=object)}), {"crop_policy": 1})
    assert answers["error"].str.contains("^image must be the bytes of a file, or base64, got ")[:4].all()
    assert answers["answer_1"].notna().tolist() == [False] * 4 + [True] * 2


@pytest.mark.parametrize("policy", ["best:24", chosen_policy(range(24)), "best:200:ff", "best:0:0", "best:x:ff", "12"])
def test_a_policy_that_the_model_lacks_is_a_bad_request_also_with_its_views(model: EnsembleModel, policy: str) -> None:
    with pytest.raises(MlflowException, match=r"crop.policy") as refused:
        model.checked({"crop_policy": policy})
    assert refused.value.get_http_status_code() == 400
    assert model.checked({"crop_policy": 10})["crop_policy"] == "10"
