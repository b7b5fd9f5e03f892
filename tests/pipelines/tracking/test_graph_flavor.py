"""Graphs of replicas: those of one architecture are traced once, and each answers with its own weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from googlenet.evaluation.ensemble import PixelClassifier
from googlenet.network.model import GoogLeNet
from googlenet.network.preprocessing import SCRATCH_PREPROCESSING
from googlenet.network.weights import Replica
from pipelines.tracking.graph_flavor import GRAPH, GraphFlavor
from tests.gpu.small_training import shallow

# It starts none, but two networks are traced, which takes too long for the quick tests.
pytestmark = pytest.mark.processes
CROP_PX, NUM_CLASSES = 35, 3
SIGNATURE = ModelSignature(
    inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, 3, CROP_PX, CROP_PX))]),
    outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, NUM_CLASSES))]),
)


def classifier(seed: int, width: float) -> PixelClassifier:
    torch.manual_seed(seed)
    network = shallow(GoogLeNet(NUM_CLASSES, "bn", aux_heads=False, width=width))
    return PixelClassifier([Replica(network.eval(), SCRATCH_PREPROCESSING)])


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_each_replica_answers_with_its_own_weights_and_width_and_two_of_one_width_are_traced_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced, export = [], torch.export.export

    def counted(*arguments: Any, **options: Any) -> torch.export.ExportedProgram:
        traced.append(arguments)
        return export(*arguments, **options)

    monkeypatch.setattr(torch.export, "export", counted)
    flavor, widths = GraphFlavor(), {"first": 0.03, "wider": 0.05, "second": 0.03}
    replicas = {name: classifier(seed, width) for seed, (name, width) in enumerate(widths.items())}
    for name, replica in replicas.items():
        flavor.save_model(
            str(tmp_path / name),
            Model(model_id=name),
            replica,
            architecture=widths[name],
            signature=SIGNATURE,
            input_example=np.zeros((2, 3, CROP_PX, CROP_PX), np.uint8),
            pip_requirements=["torch"],
        )
    assert len(traced) == 2
    crops = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 3, CROP_PX, CROP_PX), dtype=np.uint8))
    for name, replica in replicas.items():
        with torch.inference_mode():
            answers = torch.export.load(tmp_path / name / GRAPH).module()(crops)
            torch.testing.assert_close(answers, replica(crops), rtol=0, atol=1e-6)
    first, second = (Model.load(str(tmp_path / name)).to_dict() for name in ("first", "second"))
    assert (first["model_id"], second["model_id"]) == ("first", "second")
    own = {"model_id", "model_uuid", "utc_time_created"}
    assert {name for name, value in first.items() if value != second[name]} == own
    assert files(tmp_path / "first") == files(tmp_path / "second")
