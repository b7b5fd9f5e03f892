"""MLflow's PyTorch flavor without the example inputs, which PyTorch pickles into an exported graph."""

from pathlib import Path
from typing import Any

GRAPH = "data/model.pt2"


def save_model(path: str, **settings: Any) -> None:
    """Save like ``mlflow.pytorch.save_model``; its ``input_example`` stays beside the graph as JSON."""
    import mlflow.pytorch
    import torch

    mlflow.pytorch.save_model(path=path, serialization_format="pt2", **settings)
    graph = Path(path) / GRAPH
    exported = torch.export.load(graph)  # written by the call above
    exported.example_inputs = None
    torch.export.save(exported, graph)
