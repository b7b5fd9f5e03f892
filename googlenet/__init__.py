"""GoogLeNet ("Going deeper with convolutions", arXiv 1409.4842): the network, its recipe and its test views."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from googlenet.model import GoogLeNet
    from googlenet.weight_files import load_weights

__all__ = ["GoogLeNet", "load_weights"]


def __getattr__(name: str) -> Any:
    """Import PyTorch when the network is asked for: processes that only read and scale images do without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from googlenet import model, weight_files

    return getattr(weight_files if name == "load_weights" else model, name)
