"""MLflow's PyTorch flavor for replicas: one exported graph of operations, with the weights of each, and no pickle."""

from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.models import Model
    from torch import nn
    from torch.export import ExportedProgram

GRAPH = "data/model.pt2"
# Of the attributes of an MLmodel file, those that do not depend on the weights.
SHARED = ("flavors", "signature", "saved_input_example_info", "model_size_bytes")


@dataclass(frozen=True)
class _Saved:
    """A saved model: its graph, which gets other weights, its page and the small files beside them, by path."""

    graph: "ExportedProgram"
    page: "Model"
    files: dict[str, bytes]


class GraphFlavor:
    """A flavor to give to ``Model.log``. It keeps the first graph of each architecture.

    Seven replicas have one architecture, and MLflow's own function takes six seconds for each of them: it traces the
    network, and reads the graph back.
    """

    def __init__(self) -> None:
        self._saved: dict[Hashable, _Saved] = {}

    def save_model(
        self, path: str, mlflow_model: "Model", pytorch_model: "nn.Module", architecture: Hashable, **settings: Any
    ) -> None:
        """Save like ``mlflow.pytorch.save_model``; its ``input_example`` stays beside the graph as JSON.

        Models of equal ``architecture`` differ in nothing but the tensors of their state, and have the same
        ``settings``.
        """
        import torch

        settings.pop("validate_serving_input", None)  # read by Model.log
        if saved := self._saved.get(architecture):
            _write_beside(saved, Path(path), mlflow_model)
        else:
            saved = self._saved[architecture] = _save_first(Path(path), mlflow_model, pytorch_model, settings)
        with torch.no_grad():
            for name, tensor in pytorch_model.state_dict().items():
                saved.graph.state_dict[name].copy_(tensor)
        torch.export.save(saved.graph, Path(path) / GRAPH)


def _save_first(folder: Path, page: "Model", network: "nn.Module", settings: dict[str, Any]) -> _Saved:
    import mlflow.pytorch
    import torch
    from mlflow.models.model import MLMODEL_FILE_NAME

    mlflow.pytorch.save_model(network, folder, mlflow_model=page, serialization_format="pt2", **settings)
    graph = torch.export.load(folder / GRAPH)  # written by the call above
    graph.example_inputs = None  # torch.export.save would pickle them
    others = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    files = {name: file.read_bytes() for name, file in others.items() if name not in (GRAPH, MLMODEL_FILE_NAME)}
    return _Saved(graph, page, files)


def _write_beside(saved: _Saved, folder: Path, page: "Model") -> None:
    """Write all files of a model but its graph."""
    from mlflow.models.model import MLMODEL_FILE_NAME

    for name, data in saved.files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    (folder / GRAPH).parent.mkdir(parents=True, exist_ok=True)
    for name in SHARED:
        setattr(page, name, getattr(saved.page, name))
    page.save(folder / MLMODEL_FILE_NAME)
