"""Weights in files: safetensors, with all that is needed to use them in the metadata. No pickle."""

import json
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from googlenet.model import GoogLeNet
from googlenet.predictor import Replica
from googlenet.preprocessing import Preprocessing

METADATA_KEY = "googlenet"
FORMAT = "googlenet-1"


def to_safetensors(model: GoogLeNet, weights: dict[str, Tensor], preprocessing: Preprocessing, **extra: Any) -> bytes:
    """``weights`` of a network like ``model`` as the bytes of a safetensors file.

    Auxiliary heads are left out: inference discards them (section 5). ``extra`` (JSON) goes into the metadata.
    """
    kept = {name: tensor.contiguous() for name, tensor in weights.items() if not name.startswith("aux.")}
    description = {
        "format": FORMAT,
        "num_classes": model.num_classes,
        "variant": model.variant,
        "width": model.width,
        "lrn": model.lrn_name,
        "preprocessing": preprocessing.to_dict(),
        **extra,
    }
    # One key: safetensors writes several in random order, and equal weights shall be equal files.
    return safetensors.torch.save(kept, {METADATA_KEY: json.dumps(description)})


def from_safetensors(data: bytes) -> Replica:
    """The network and preprocessing in the bytes of a file that :func:`to_safetensors` made.

    Raises:
        ValueError: another format, or a layer that does not fit; the message names it.
    """
    description = read_metadata(data)
    model = GoogLeNet(
        description["num_classes"], description["variant"], False, description["width"], lrn=description["lrn"]
    )
    load_exactly(model, safetensors.torch.load(data))
    return Replica(model.eval(), Preprocessing.from_dict(description["preprocessing"]))


def read_metadata(data: bytes) -> dict[str, Any]:
    """What :func:`to_safetensors` wrote beside the tensors."""
    header_bytes = int.from_bytes(data[:8], "little")
    if header_bytes > len(data) - 8:
        raise ValueError("not a safetensors file, or a truncated one")
    metadata = json.loads(data[8 : 8 + header_bytes]).get("__metadata__", {})
    description: dict[str, Any] = json.loads(metadata.get(METADATA_KEY, "{}"))
    if description.get("format") != FORMAT:
        raise ValueError(f"a safetensors file of another kind (format {description.get('format')!r}, not {FORMAT!r})")
    return description


@torch.no_grad()
def load_exactly(model: GoogLeNet, tensors: dict[str, Tensor]) -> None:
    """Copy ``tensors`` into ``model``; every layer must be there with its shape, and none besides.

    Raises:
        ValueError: the first layer that does not fit.
    """
    own = model.state_dict()
    for name, value in own.items():
        if name not in tensors:
            raise ValueError(f"layer {name} is missing")
        if tensors[name].shape != value.shape:
            raise ValueError(f"layer {name} has shape {tuple(tensors[name].shape)}, expected {tuple(value.shape)}")
    if extra := sorted(tensors.keys() - own.keys()):
        raise ValueError(f"layer {extra[0]} is not one of this network's")
    model.load_state_dict(tensors)
