"""MLflow's PyTorch flavor, without the pickle that PyTorch keeps in an exported graph: its example inputs."""

from pathlib import Path
from typing import Any

GRAPH = "data/model.pt2"


def save_model(path: str, **settings: Any) -> None:
    """As ``mlflow.pytorch.save_model``; its ``input_example`` stays beside the graph as JSON."""
    import mlflow.pytorch
    import torch

    mlflow.pytorch.save_model(path=path, serialization_format="pt2", **settings)
    graph = Path(path) / GRAPH
    exported = torch.export.load(graph)  # made a moment ago
    exported.example_inputs = None
    torch.export.save(exported, graph)
