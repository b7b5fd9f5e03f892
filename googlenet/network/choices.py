"""Names that choose a network: variant, normalisation constants and initial weights. Free of PyTorch, for options."""

from typing import Literal

Variant = Literal["paper", "bn"]
LRN = Literal["caffe", "google", "none"]
Initialisation = Literal["xavier", "he", "gaussian"]
MAX_WIDTH = 16
