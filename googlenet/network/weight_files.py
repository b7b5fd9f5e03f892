"""Readers of weight files by suffix: this project's .safetensors, Caffe's GoogLeNet as .npz, torchvision's .pth.

The latter two have their layers renamed to this project's names, and get the preprocessing they were trained with.
"""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from googlenet.network.choices import WEIGHT_SUFFIXES
from googlenet.network.preprocessing import CAFFE_PREPROCESSING, TORCHVISION_PREPROCESSING
from googlenet.network.table1 import AUX_POSITIONS, INCEPTION_CHANNELS
from googlenet.network.weights import Replica, StoredNetwork, WeightsError, read_safetensors

CAFFE_BRANCHES = {
    "1x1": "conv_1x1",
    "3x3_reduce": "conv_3x3_reduce",
    "3x3": "conv_3x3",
    "5x5_reduce": "conv_5x5_reduce",
    "5x5": "conv_5x5",
    "pool_proj": "pool_proj",
}
TORCHVISION_BRANCHES = {
    "branch1": "conv_1x1",
    "branch2.0": "conv_3x3_reduce",
    "branch2.1": "conv_3x3",
    "branch3.0": "conv_5x5_reduce",
    "branch3.1": "conv_5x5",
    "branch4.1": "pool_proj",
}


def read_caffe_npz(data: bytes) -> StoredNetwork:
    """Read Caffe's GoogLeNet: arrays named ``<Caffe layer>/weight`` and ``<Caffe layer>/bias``, convolutions OIHW.

    Raises:
        WeightsError: not such a file, or it has a layer that this network does not have.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise WeightsError(f"not a complete .npz file: {error}") from error
    renamed = _rename(tensors, dict(_caffe_names()), separator="/")
    return StoredNetwork(renamed, "paper", 1.0, "caffe", CAFFE_PREPROCESSING)


def read_torchvision_pth(data: bytes) -> StoredNetwork:
    """Read torchvision's GoogLeNet: a state dict, alone or under ``model`` or ``state_dict``; never unpickled as code.

    Raises:
        WeightsError: not such a file, or it has a layer that this network does not have.
    """
    try:
        state: Any = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch passes on any exception of its unpickler
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"not a complete .pth file of plain weights: {reason}") from error
    for wrapper in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError("no state dict: expected tensors by name")
    renamed = _rename(state, dict(_torchvision_names()), separator=".")
    return StoredNetwork(renamed, "bn", 1.0, "caffe", TORCHVISION_PREPROCESSING)


def _caffe_names() -> Iterator[tuple[str, str]]:
    yield "conv1/7x7_s2", "conv1.conv"
    yield "conv2/3x3_reduce", "conv2_reduce.conv"
    yield "conv2/3x3", "conv2.conv"
    for row in INCEPTION_CHANNELS:
        for theirs, ours in CAFFE_BRANCHES.items():
            yield f"inception_{row}/{theirs}", f"inception.{row}.{ours}.conv"
    for number, position in enumerate(AUX_POSITIONS, start=1):
        yield f"loss{number}/conv", f"aux.{position}.conv.conv"
        yield f"loss{number}/fc", f"aux.{position}.hidden"
        yield f"loss{number}/classifier", f"aux.{position}.classifier"
    yield "loss3/classifier", "classifier"


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


def _rename(tensors: dict[str, Tensor], names: dict[str, str], separator: str) -> dict[str, Tensor]:
    """Translate layer names, keeping the parameter's own name (weight, bias, running_mean, ...)."""
    renamed = {}
    for name, tensor in tensors.items():
        layer, _, parameter = name.rpartition(separator)
        if layer not in names:
            raise WeightsError(f"layer {name} is not part of GoogLeNet")
        renamed[f"{names[layer]}.{parameter}"] = tensor
    return renamed


READERS = dict(zip(WEIGHT_SUFFIXES, (read_safetensors, read_caffe_npz, read_torchvision_pth), strict=True))


def load_weights(path: str | Path) -> Replica:
    """Load a network ready for inference, with the preprocessing that belongs to it.

    Raises:
        WeightsError: the kind of file is unknown, it is damaged, or a layer does not fit; the first one is named.
        FileNotFoundError: the file does not exist.
    """
    path = Path(path)
    try:
        return read_weights(path.read_bytes(), path.name).build()
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error


def read_weights(data: bytes, name: str) -> StoredNetwork:
    """Read the bytes of a file called ``name``.

    Raises:
        WeightsError: the kind of file is unknown, or it is damaged.
    """
    reader = READERS.get(Path(name).suffix)
    if reader is None:
        raise WeightsError(f"unknown kind of weights file: expected one of {', '.join(READERS)}")
    return reader(data)
