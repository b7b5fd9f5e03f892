"""Names that choose a network and its weights: variant, normalisation, initialisation, files. Free of PyTorch."""

from typing import Literal

Variant = Literal["paper", "bn"]
LRN = Literal["caffe", "google", "none"]
Initialisation = Literal["xavier", "he", "gaussian", "lsuv"]
# A network sixteen times as wide has 1.5 billion parameters; a larger number is a mistake, such as pixels for a factor.
MAX_WIDTH = 16
# Kinds of weight files. PyTorch's have five names for one kind: Lightning writes .ckpt, PyTorch's examples .pth.tar.
PYTORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
WEIGHT_SUFFIXES = (".safetensors", ".npz", ".caffemodel", ".onnx", *PYTORCH_SUFFIXES)
