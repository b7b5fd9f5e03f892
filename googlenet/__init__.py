"""GoogLeNet ("Going deeper with convolutions", arXiv 1409.4842): the network, its recipe and its test views."""

from googlenet.model import GoogLeNet, Outputs
from googlenet.weight_files import load_weights

__all__ = ["GoogLeNet", "Outputs", "load_weights"]
