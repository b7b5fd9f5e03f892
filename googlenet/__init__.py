"""GoogLeNet ("Going deeper with convolutions", arXiv 1409.4842): the network, its training and its evaluation.

The science in one process: it imports neither Ray nor MLflow, and can be used alone. The wings are network, images,
training and evaluation; each one's docstring is its floor plan. ``randomness`` makes every random number, keyed by
(seed, stream, epoch, index); ``shapes`` has the types of arrays in annotations. ``python -m googlenet`` prints Table 1.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from googlenet.evaluation.ensemble import Ensemble
    from googlenet.network.model import GoogLeNet
    from googlenet.network.weight_files import load_weights, save_weights

__all__ = ["Ensemble", "GoogLeNet", "load_weights", "save_weights"]


def __getattr__(name: str) -> Any:
    """Import PyTorch on first use of a public name: processes that only read and scale images do without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    places = {
        "Ensemble": "googlenet.evaluation.ensemble",
        "GoogLeNet": "googlenet.network.model",
        "load_weights": "googlenet.network.weight_files",
        "save_weights": "googlenet.network.weight_files",
    }
    return getattr(import_module(places[name]), name)
