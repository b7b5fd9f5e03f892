"""Weights from files of every kind, chosen by suffix, and from published files by name; and into a file.

Layers of other frameworks get this project's names, and the preprocessing that they were trained with.
"""

import argparse
import codecs
import io
import pickle
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from googlenet.network.caffe_files import DAMAGED_ARCHIVE, read_caffemodel, read_npz, read_onnx
from googlenet.network.choices import PYTORCH_SUFFIXES
from googlenet.network.model import GoogLeNet
from googlenet.network.preprocessing import TORCHVISION_PREPROCESSING, Preprocessing
from googlenet.network.published import HINT, OWN_SUFFIX, fetch_weights, is_weights_name
from googlenet.network.renaming import renamed
from googlenet.network.table1 import AUX_POSITIONS, INCEPTION_CHANNELS
from googlenet.network.weights import Replica, StoredNetwork, WeightsError, read_safetensors, to_safetensors

# Where programs keep the state dict in a checkpoint.
CHECKPOINT_KEYS = ("model", "state_dict", "model_state_dict")
FIRST_PARAMETER = "conv1.conv.weight"
# A layer by this project's name, which torchvision's network lacks.
OWN_PARAMETER = "conv2_reduce.conv.weight"
# A state dict does not record the preprocessing of its network.
ASSUMED_PIXELS = (
    "pixels are taken as torchvision's published weights need them, (x - 127.5) / 127.5; if the network was trained "
    "with another normalisation, see docs/training.md#given-weights"
)
LOOKED_AT_BYTES = 1024
# The views' scales are 8/7 to 11/7 of a network's input.
CROP_STEP_PX = 7
TAR_MAGIC, TAR_MAGIC_AT = b"ustar", 257
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
    if _is_torchscript(data):
        raise WeightsError("a TorchScript program, not plain weights: save torch.jit.load(FILE).state_dict() instead")
    try:
        # torchvision's own training keeps its options beside the weights, which are data.
        with torch.serialization.safe_globals([argparse.Namespace]):
            state: Any = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch passes on any exception of its unpickler and its reader of archives
        is_unsafe = isinstance(error, pickle.UnpicklingError) and "unsupported" in str(error).lower()
        if is_unsafe and data.startswith(PICKLED):  # else nobody pickled it: a picture, the words of a server
            raise WeightsError(
                "it holds Python objects beside plain weights; they could run code, so they are not loaded: save "
                "model.state_dict() instead"
            ) from error
        raise WeightsError("not a complete file of PyTorch weights: copy or download it again") from error
    for wrapper in CHECKPOINT_KEYS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise WeightsError(f"no state dict: expected tensors by name, alone or under {', '.join(CHECKPOINT_KEYS)}")
    prefix = _prefix(state)
    tensors = {name.removeprefix(prefix): value for name, value in state.items()}
    if OWN_PARAMETER in tensors:
        raise WeightsError(
            "a state dict of this project's own GoogLeNet, which does not record the preprocessing: load it into a "
            "GoogLeNet, then save that with its preprocessing (googlenet.save_weights), see "
            "docs/training.md#given-weights"
        )
    tensors = renamed(tensors, dict(_torchvision_names()), separator=".")
    return StoredNetwork(tensors, "bn", 1.0, "caffe", TORCHVISION_PREPROCESSING, assumption=ASSUMED_PIXELS)


def _is_torchscript(data: bytes) -> bool:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except DAMAGED_ARCHIVE:
        return False


def _prefix(names: Iterable[str]) -> str:
    """Return what stands before each name where the network was part of another one: ``module.``, ``_orig_mod.``."""
    first = (name for name in names if f".{name}".endswith(f".{FIRST_PARAMETER}"))
    return next(first, "").removesuffix(FIRST_PARAMETER)


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
ZIPPED = (".npz", *PYTORCH_SUFFIXES)
# Beginnings of PyTorch's files: its ZIP archive, and a pickle of any protocol that it has used.
PICKLED = (b"PK", b"\x80")
# Beginnings of what is often saved in place of a file.
NOT_THE_FILE = {
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself: run `git lfs pull` in its repository",
    b"/annex/objects/": "a pointer of git-annex, not the file itself: run `git annex get` in its repository",
    b"<!doctype html": "a web page, not the file itself: download it again",
    b"<html": "a web page, not the file itself: download it again",
    b"<!--": "a web page, not the file itself: download it again",
    b"<?xml": "the answer of a server (XML), not the file itself: download it again",
    b'{"': "the answer of a server (JSON), not the file itself: download it again",
    b'name: "': "a text, such as the description of a network (.prototxt), not its weights",
    b"\x1f\x8b": "compressed by gzip: unpack it",
    b"\x28\xb5\x2f\xfd": "compressed by Zstandard: unpack it",
}


def load_weights(path: str | Path) -> Replica:
    """Load a network ready for inference, with the preprocessing that belongs to it.

    A state dict of PyTorch does not say its preprocessing; it gets that of torchvision's published weights.

    Args:
        path: a file, or the name of published weights: ``bvlc``, ``torchvision:googlenet`` or ``hf://OWNER/REPO/FILE``.

    Raises:
        WeightsError: the kind of file is unknown, it is damaged, or a layer does not fit; the first one is named. Or
            it is a folder.
        DownloadError: published weights cannot be fetched.
        FileNotFoundError: the file does not exist.
    """
    file = fetch_weights(str(path)) if is_weights_name(str(path)) else local_path(path)
    try:
        return read_weights(file.read_bytes(), file.name).build()
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    except IsADirectoryError as error:
        raise WeightsError(
            f"{file} is a folder: name one file of weights in it, such as replicas/0/weights.safetensors of a run, or "
            "load an exported ensemble with Ensemble.from_pretrained"
        ) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(f"no weights at {path}; {HINT}") from error


def save_weights(path: str | Path, model: GoogLeNet, preprocessing: Preprocessing, **extra: Any) -> None:
    """Save a network for :func:`load_weights`, without its auxiliary heads, which inference discards.

    Args:
        path: a file to write, ``.safetensors``.
        model: the network.
        preprocessing: preprocessing that its weights were trained with.
        extra: what else the file is to tell, as JSON. Ensemble.load needs ``classes``, the names of the outputs in
            their order, and ``crop_px``, the side of the input, a multiple of 7.

    Raises:
        ValueError: ``path`` has another suffix, ``classes`` are not as many different names as there are outputs,
            ``crop_px`` is no such number, or ``extra`` has a key that describes the network itself.
        WeightsError: the network could not be loaded again, since a layer was replaced or holds values that are not
            finite.
    """
    file = local_path(path)
    if file.suffix != OWN_SUFFIX:
        raise ValueError(f"{path}: weights are saved as {OWN_SUFFIX}")
    extra = {key: value for key, value in extra.items() if value is not None}
    classes, crop_px = extra.get("classes"), extra.get("crop_px")
    if crop_px is not None and (type(crop_px) is not int or crop_px < 1 or crop_px % CROP_STEP_PX):
        raise ValueError(f"{path}: crop_px must be a whole number, a multiple of {CROP_STEP_PX}, got {crop_px!r}")
    if classes is not None:
        _check_classes(classes, path)
    data = to_safetensors(model, model.state_dict(), preprocessing, **extra)
    outputs = read_safetensors(data).build().model.num_classes
    if classes is not None and len(classes) != outputs:
        raise ValueError(
            f"{path}: {outputs:,} outputs, but {len(classes):,} names of classes: each needs one, in their order"
        )
    file.write_bytes(data)


def _check_classes(classes: object, path: str | Path) -> None:
    """Refuse classes that name no output: torchvision's ``class_to_idx``, numbers, an array, a name twice."""
    if not (isinstance(classes, list | tuple) and all(isinstance(name, str) for name in classes)):
        raise ValueError(f"{path}: classes must be a list of names in the order of the outputs, got {classes!r:.80}")
    if doubled := [name for name, number in Counter(classes).items() if number > 1]:
        raise ValueError(f"{path}: the class {doubled[0]!r} is there more than once: outputs need different names")


def local_path(path: str | Path) -> Path:
    """Return a path with the home folder in place of ``~``; of a user that does not exist, it is the name of a file."""
    with suppress(RuntimeError):
        return Path(path).expanduser()
    return Path(path)


def read_weights(data: bytes, name: str) -> StoredNetwork:
    """Read the bytes of a file called ``name``.

    Raises:
        WeightsError: the kind of file is unknown, or it is damaged.
    """
    reader = READERS.get(Path(name).suffix)
    if reader is None:
        raise WeightsError(f"unknown kind of weights file: expected one of {', '.join(READERS)}")
    if reason := _not_the_file(data, Path(name).suffix):
        raise WeightsError(reason)
    return reader(data)


def _not_the_file(data: bytes, suffix: str) -> str | None:
    """Return what was saved in place of the file; None if it may be the file."""
    if not data:
        return "the file is empty"
    if not data.strip(b"\0"):
        return f"{len(data):,} zeros in place of the file: copy or download it again"
    if data.startswith(b"PK\3\4") and suffix not in ZIPPED:
        return "a ZIP archive: unpack it"
    if data.startswith(TAR_MAGIC, TAR_MAGIC_AT):
        return "a TAR archive: unpack it"
    start = data[:LOOKED_AT_BYTES].removeprefix(codecs.BOM_UTF8).lstrip().lower()
    return next((reason for beginning, reason in NOT_THE_FILE.items() if start.startswith(beginning)), None)
