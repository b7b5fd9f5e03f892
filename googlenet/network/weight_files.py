"""Weights from files of every kind, chosen by suffix, and from published files by name.

Layers of other frameworks get this project's names, and the preprocessing that they were trained with.
"""

import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from googlenet.network.caffe_files import read_caffemodel, read_npz, read_onnx
from googlenet.network.choices import PYTORCH_SUFFIXES
from googlenet.network.preprocessing import TORCHVISION_PREPROCESSING
from googlenet.network.published import HINT, fetch_weights, is_weights_name
from googlenet.network.renaming import renamed
from googlenet.network.table1 import AUX_POSITIONS, INCEPTION_CHANNELS
from googlenet.network.weights import Replica, StoredNetwork, WeightsError, read_safetensors

# Where programs keep the state dict in a checkpoint.
CHECKPOINT_KEYS = ("model", "state_dict", "model_state_dict")
TORCHVISION_BRANCHES = {
    "branch1": "conv_1x1",
    "branch2.0": "conv_3x3_reduce",
    "branch2.1": "conv_3x3",
    "branch3.0": "conv_5x5_reduce",
    "branch3.1": "conv_5x5",
    "branch4.1": "pool_proj",
}


def read_torchvision_pth(data: bytes) -> StoredNetwork:
    """Read torchvision's GoogLeNet: a state dict, alone or in a checkpoint; never unpickled as code.

    Raises:
        WeightsError: not such a file, or its layers are not those of this network.
    """
    try:
        state: Any = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch passes on any exception of its unpickler and its reader of archives
        if isinstance(error, pickle.UnpicklingError) and "Unsupported" in str(error):
            raise WeightsError(
                "it holds Python objects beside plain weights; they could run code, so they are not loaded: save "
                "model.state_dict() instead"
            ) from error
        raise WeightsError("not a complete file of PyTorch weights: copy or download it again") from error
    for wrapper in CHECKPOINT_KEYS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"no state dict: expected tensors by name, alone or under {', '.join(CHECKPOINT_KEYS)}")
    tensors = {name.removeprefix("_orig_mod.").removeprefix("module."): value for name, value in state.items()}
    tensors = renamed(tensors, dict(_torchvision_names()), separator=".")
    return StoredNetwork(tensors, "bn", 1.0, "caffe", TORCHVISION_PREPROCESSING)


def _torchvision_names() -> Iterator[tuple[str, str]]:
    for theirs, ours in (("conv1", "conv1"), ("conv2", "conv2_reduce"), ("conv3", "conv2")):
        yield from _conv_and_bn(theirs, ours)
    for row in INCEPTION_CHANNELS:
        for theirs, ours in TORCHVISION_BRANCHES.items():
            yield from _conv_and_bn(f"inception{row}.{theirs}", f"inception.{row}.{ours}")
    for number, position in enumerate(AUX_POSITIONS, start=1):
        yield from _conv_and_bn(f"aux{number}.conv", f"aux.{position}.conv")
        yield f"aux{number}.fc1", f"aux.{position}.hidden"
        yield f"aux{number}.fc2", f"aux.{position}.classifier"
    yield "fc", "classifier"


def _conv_and_bn(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    yield f"{theirs}.conv", f"{ours}.conv"
    yield f"{theirs}.bn", f"{ours}.bn"


READERS = {
    ".safetensors": read_safetensors,
    ".npz": read_npz,
    ".caffemodel": read_caffemodel,
    ".onnx": read_onnx,
    **dict.fromkeys(PYTORCH_SUFFIXES, read_torchvision_pth),
}
# Beginnings of what is often saved in place of a file.
NOT_THE_FILE = {
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself: run `git lfs pull` in its repository",
    b"<!doctype html": "a web page, not the file itself: download it again",
    b"<html": "a web page, not the file itself: download it again",
}


def load_weights(path: str | Path) -> Replica:
    """Load a network ready for inference, with the preprocessing that belongs to it.

    Args:
        path: a file, or the name of published weights: ``bvlc``, ``torchvision:googlenet`` or ``hf://OWNER/REPO/FILE``.

    Raises:
        WeightsError: the kind of file is unknown, it is damaged, or a layer does not fit; the first one is named.
        DownloadError: published weights cannot be fetched.
        FileNotFoundError: the file does not exist.
    """
    file = fetch_weights(str(path)) if is_weights_name(str(path)) else Path(path)
    try:
        return read_weights(file.read_bytes(), file.name).build()
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no weights at {path}; {HINT}") from error


def read_weights(data: bytes, name: str) -> StoredNetwork:
    """Read the bytes of a file called ``name``.

    Raises:
        WeightsError: the kind of file is unknown, or it is damaged.
    """
    reader = READERS.get(Path(name).suffix)
    if reader is None:
        raise WeightsError(f"unknown kind of weights file: expected one of {', '.join(READERS)}")
    if not data:
        raise WeightsError("the file is empty")
    for beginning, reason in NOT_THE_FILE.items():
        if data.lstrip()[: len(beginning)].lower() == beginning:
            raise WeightsError(reason)
    return reader(data)
