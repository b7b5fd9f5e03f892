"""GoogLeNet ("Going deeper with convolutions", arXiv 1409.4842): the network, its recipe and its test views."""

from googlenet.model import GoogLeNet, Outputs

__all__ = ["GoogLeNet", "Outputs"]
