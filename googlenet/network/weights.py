"""Weights in files: safetensors, with all that is needed to use them in the metadata. No pickle."""

import json
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from googlenet.network.layers import LRN, Variant
from googlenet.network.model import GoogLeNet
from googlenet.network.preprocessing import Preprocessing

METADATA_KEY = "googlenet"
FORMAT = "googlenet-1"


class WeightsError(ValueError):
    """A file of weights that cannot be used; the message says why, or names the first layer that does not fit."""


@dataclass(frozen=True)
class Replica:
    """A network with the preprocessing that its weights were trained with."""

    model: GoogLeNet
    preprocessing: Preprocessing


@dataclass(frozen=True)
class StoredNetwork:
    """What a file of weights holds: tensors by this project's layer names, and what they are weights of.

    Attributes:
        tensors: parameters and statistics; auxiliary heads may be missing.
        variant: of the network.
        width: of the network.
        lrn: constants of the local response normalisation.
        preprocessing: that the weights were trained with.
        extra: what else the file says of itself, such as its classes.
    """

    tensors: dict[str, Tensor]
    variant: Variant
    width: float
    lrn: LRN
    preprocessing: Preprocessing
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """Outputs of the classifier."""
        if "classifier.bias" not in self.tensors:
            raise WeightsError("layer classifier.bias is missing")
        return len(self.tensors["classifier.bias"])

    def build(self) -> Replica:
        """The network itself, for inference: without auxiliary heads.

        Raises:
            WeightsError: the first layer that does not fit.
        """
        model = GoogLeNet(self.num_classes, self.variant, False, self.width, lrn=self.lrn)
        load_exactly(model, without_aux_heads(self.tensors))
        return Replica(model.eval(), self.preprocessing)


def to_safetensors(model: GoogLeNet, weights: dict[str, Tensor], preprocessing: Preprocessing, **extra: Any) -> bytes:
    """``weights`` of a network like ``model`` as the bytes of a safetensors file.

    Auxiliary heads are left out: inference discards them (section 5). ``extra`` (JSON) goes into the metadata.
    """
    kept = {name: tensor.cpu().contiguous() for name, tensor in without_aux_heads(weights).items()}
    description = {
        "format": FORMAT,
        "num_classes": model.num_classes,
        "variant": model.variant,
        "width": model.width,
        "lrn": model.lrn_constants,
        "preprocessing": preprocessing.to_dict(),
        **extra,
    }
    # One key: safetensors writes several in random order, and equal weights shall be equal files.
    data: bytes = safetensors.torch.save(kept, {METADATA_KEY: json.dumps(description)})
    return data


def read_safetensors(data: bytes) -> StoredNetwork:
    """What :func:`to_safetensors` wrote.

    Raises:
        WeightsError: another kind of file, or a damaged one.
    """
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as error:
        raise WeightsError(f"not a whole safetensors file: {error}") from error
    header_bytes = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + header_bytes]).get("__metadata__", {})
    extra: dict[str, Any] = json.loads(metadata.get(METADATA_KEY, "{}"))
    if extra.pop("format", None) != FORMAT:
        raise WeightsError(f"a safetensors file of another origin: its metadata lacks {METADATA_KEY!r}")
    try:
        variant, width, lrn, described = (extra.pop(name) for name in ("variant", "width", "lrn", "preprocessing"))
        preprocessing = Preprocessing.from_dict(described)
    except (KeyError, TypeError) as error:
        raise WeightsError(f"its metadata is incomplete: {error}") from error
    return StoredNetwork(tensors, variant, width, lrn, preprocessing, extra)


def start_from(model: GoogLeNet, stored: StoredNetwork) -> list[str]:
    """Copy the layers of ``stored`` into ``model``, which keeps its own where the file has none; what was kept and why.

    A classifier of another number of classes stays as it is, and so do auxiliary heads that the file lacks.

    Raises:
        WeightsError: another variant or width, or the first layer that does not fit.
    """
    for name, theirs, ours in (
        ("variant", stored.variant, model.variant),
        ("width", stored.width, model.width),
        ("lrn", stored.lrn if model.variant == "paper" else model.lrn_constants, model.lrn_constants),
    ):
        if theirs != ours:
            raise WeightsError(f"the weights are of {name} {theirs}, the network here has {ours}")
    tensors, remarks = dict(stored.tensors), []
    own, kept = model.state_dict(), {}
    if stored.num_classes != model.num_classes:
        classifiers = [name for name in own if "classifier." in name]
        kept.update({name: own[name] for name in classifiers})
        remarks.append(f"classifier replaced: {stored.num_classes} classes in the file, {model.num_classes} here")
    fresh = [head for head in model.aux if not any(name.startswith(f"aux.{head}.") for name in tensors)]
    if fresh:
        kept.update({name: value for name, value in own.items() if name.startswith(tuple(f"aux.{h}." for h in fresh))})
        remarks.append(f"auxiliary heads initialised afresh, the file has none: {', '.join(fresh)}")
    if not model.aux:
        tensors = without_aux_heads(tensors)
    load_exactly(model, {**tensors, **kept})
    return remarks


def without_aux_heads(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The layers that inference needs."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("aux.")}


@torch.no_grad()
def load_exactly(model: GoogLeNet, tensors: dict[str, Tensor]) -> None:
    """Copy ``tensors`` into ``model``; every layer must be there with its shape, and none besides.

    Raises:
        WeightsError: the first layer that does not fit.
    """
    own = model.state_dict()
    for name, value in own.items():
        if name not in tensors:
            raise WeightsError(f"layer {name} is missing")
        if tensors[name].shape != value.shape:
            raise WeightsError(f"layer {name} has shape {tuple(tensors[name].shape)}, expected {tuple(value.shape)}")
        if value.is_floating_point() and not torch.isfinite(tensors[name]).all():
            raise WeightsError(f"layer {name} holds values that are not finite")
    if extra := sorted(tensors.keys() - own.keys()):
        raise WeightsError(f"layer {extra[0]} is not one of this network's")
    model.load_state_dict(tensors)
