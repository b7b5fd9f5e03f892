"""Names that choose a network and its weights: variant, normalisation, initialisation, files. Free of PyTorch."""

from typing import Literal

Variant = Literal["paper", "bn"]
LRN = Literal["caffe", "google", "none"]
Initialisation = Literal["xavier", "he", "gaussian", "lsuv"]
MAX_WIDTH = 16
# Kinds of weight files.
WEIGHT_SUFFIXES = (".safetensors", ".npz", ".pth", ".caffemodel", ".onnx")
