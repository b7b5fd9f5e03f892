"""Weights in safetensors files, with everything needed to use them in the metadata. No pickle."""

import json
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from googlenet.network.choices import LRN, Variant
from googlenet.network.model import GoogLeNet
from googlenet.network.preprocessing import Preprocessing

METADATA_KEY = "googlenet"
FORMAT = "googlenet-1"


class WeightsError(ValueError):
    """A weights file cannot be used; the message gives the reason, or the first layer that does not fit."""


@dataclass(frozen=True)
class Replica:
    """A network with the preprocessing that its weights were trained with."""

    model: GoogLeNet
    preprocessing: Preprocessing


@dataclass(frozen=True)
class StoredNetwork:
    """Contents of a weights file: tensors by this project's layer names, and a description of their network.

    Attributes:
        tensors: parameters and statistics; auxiliary heads may be missing.
        variant: variant of the network.
        width: width of the network.
        lrn: constants of the local response normalisation.
        preprocessing: preprocessing that the weights were trained with.
        extra: other metadata of the file, such as its classes.
        assumption: what the file does not say and is assumed, for messages; empty if it says all.
    """

    tensors: dict[str, Tensor]
    variant: Variant
    width: float
    lrn: LRN
    preprocessing: Preprocessing
    extra: dict[str, Any] = field(default_factory=dict)
    assumption: str = ""

    @property
    def num_classes(self) -> int:
        """Number of outputs of the classifier."""
        if "classifier.bias" not in self.tensors:
            raise WeightsError("layer classifier.bias is missing")
        return len(self.tensors["classifier.bias"])

    def build(self) -> Replica:
        """Build the network for inference, without auxiliary heads.

        Raises:
            WeightsError: there is no such network, or a layer does not fit; the first one is named.
        """
        try:
            model = GoogLeNet(self.num_classes, self.variant, False, self.width, lrn=self.lrn)
        except (TypeError, ValueError) as error:  # of a description by another version or hand
            raise WeightsError(str(error)) from error
        load_exactly(model, without_aux_heads(self.tensors))
        return Replica(model.eval(), self.preprocessing)


def to_safetensors(model: GoogLeNet, weights: dict[str, Tensor], preprocessing: Preprocessing, **extra: Any) -> bytes:
    """Serialise ``weights`` of a network like ``model`` to the bytes of a safetensors file.

    Auxiliary heads are left out: inference discards them (section 5). ``extra`` (JSON) goes into the metadata.

    Raises:
        ValueError: ``extra`` has a key that describes the network itself.
    """
    import safetensors.torch

    kept = {name: tensor.cpu().contiguous() for name, tensor in without_aux_heads(weights).items()}
    description = {
        "format": FORMAT,
        "num_classes": model.num_classes,
        "variant": model.variant,
        "width": model.width,
        "lrn": model.lrn_name,
        "preprocessing": preprocessing.to_dict(),
    }
    if taken := sorted(description.keys() & extra.keys()):
        raise ValueError(f"{', '.join(taken)}: the network says this itself; leave it out, or choose another key")
    # A single key: safetensors writes several in random order, and equal weights must give equal files.
    data: bytes = safetensors.torch.save(kept, {METADATA_KEY: json.dumps({**description, **extra})})
    return data


def read_safetensors(data: bytes) -> StoredNetwork:
    """Read what :func:`to_safetensors` wrote.

    Raises:
        WeightsError: the file is of another kind, or damaged.
    """
    import safetensors.torch
    from safetensors import SafetensorError

    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as error:
        raise WeightsError(f"not a complete safetensors file: {error}") from error
    header_bytes = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + header_bytes]).get("__metadata__", {})
    try:
        extra: dict[str, Any] = dict(json.loads(metadata.get(METADATA_KEY, "{}")))
    except (TypeError, ValueError) as error:
        raise WeightsError(f"its metadata cannot be read: {error}") from error
    if extra.pop("format", None) != FORMAT:
        raise WeightsError(
            f"a safetensors file of another program (its metadata lacks {METADATA_KEY!r}): only those of this project "
            "have the preprocessing that belongs to the weights"
        )
    try:
        variant, width, lrn, described = (extra.pop(name) for name in ("variant", "width", "lrn", "preprocessing"))
        preprocessing = Preprocessing.from_dict(described)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"its metadata cannot be used: {error}") from error
    return StoredNetwork(tensors, variant, width, lrn, preprocessing, extra)


def start_from(model: GoogLeNet, stored: StoredNetwork) -> list[str]:
    """Copy the layers of ``stored`` into ``model``; return remarks on the layers that keep their initial weights.

    These are a classifier for another number of classes, and auxiliary heads that the file lacks.

    Raises:
        WeightsError: variant, width or LRN differs, or a layer does not fit; the first one is named.
    """
    for name, theirs, ours in (
        ("variant", stored.variant, model.variant),
        ("width", stored.width, model.width),
        ("lrn", stored.lrn if model.variant == "paper" else model.lrn_name, model.lrn_name),
    ):
        if theirs != ours:
            raise WeightsError(f"the weights have {name} {theirs}, this network has {ours}")
    tensors, remarks = dict(stored.tensors), []
    own, kept = model.state_dict(), {}
    if stored.num_classes != model.num_classes:
        classifiers = [name for name in own if "classifier." in name]
        kept.update({name: own[name] for name in classifiers})
        remarks.append(
            f"classifier re-initialised: {stored.num_classes:,} classes in the file, {model.num_classes:,} here"
        )
    fresh = [head for head in model.aux if not any(name.startswith(f"aux.{head}.") for name in tensors)]
    if fresh:
        kept.update({name: value for name, value in own.items() if name.startswith(tuple(f"aux.{h}." for h in fresh))})
        remarks.append(f"auxiliary classifiers re-initialised, missing from the file: {', '.join(fresh)}")
    if not model.aux:
        tensors = without_aux_heads(tensors)
    load_exactly(model, {**tensors, **kept})
    return remarks


def without_aux_heads(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the layers that inference needs."""
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("aux.")}


@torch.no_grad()
def load_exactly(model: GoogLeNet, tensors: dict[str, Tensor]) -> None:
    """Copy ``tensors`` into ``model``; names and shapes must match exactly.

    Raises:
        WeightsError: a layer does not fit; the first one is named.
    """
    own = model.state_dict()
    for name, value in own.items():
        if name not in tensors:
            raise WeightsError(f"layer {name} is missing")
        if tensors[name].shape != value.shape:
            raise WeightsError(f"layer {name} has shape {tuple(tensors[name].shape)}, expected {tuple(value.shape)}")
        if value.is_floating_point():
            _check_numbers(name, tensors[name], value.dtype)
    if extra := sorted(tensors.keys() - own.keys()):
        raise WeightsError(f"layer {extra[0]} is not part of this network")
    model.load_state_dict(tensors)


def _check_numbers(name: str, given: Tensor, wanted: torch.dtype) -> None:
    """Refuse values of a layer that would not be the same, or no numbers at all, as ``wanted``."""
    if not given.is_floating_point():
        kind = str(given.dtype).removeprefix("torch.")
        raise WeightsError(f"layer {name} holds {kind} numbers: save the network before it is quantised or converted")
    numbers = given.to(wanted)  # those of 64 bits may be too large for it
    if not torch.isfinite(numbers).all():
        raise WeightsError(f"layer {name} holds values that are not finite")
    if name.endswith(".running_var") and (numbers < 0).any():
        raise WeightsError(f"layer {name} holds negative variances")
