"""Layers of other frameworks under this project's names; another network is refused by what it lacks."""

from collections.abc import Collection, Mapping, Sequence

from torch import Tensor

from googlenet.network.weights import WeightsError

SHOWN = 5


def renamed(tensors: Mapping[str, Tensor], names: Mapping[str, str], separator: str) -> dict[str, Tensor]:
    """Return ``tensors`` with the names of their layers translated; a parameter (weight, bias, ...) keeps its own name.

    Args:
        tensors: parameters, named ``<layer><separator><parameter>``.
        names: this project's name of each of their layers.
        separator: character before the parameter.

    Raises:
        WeightsError: a layer that inference needs is missing, or one is not part of the network.
    """
    layers = dict.fromkeys(name.rpartition(separator)[0] or name for name in tensors)
    needed = [theirs for theirs, ours in names.items() if not ours.startswith("aux.")]
    missing = [layer for layer in needed if layer not in layers]
    others = [layer for layer in layers if layer not in names]
    if missing:
        instead = f", and has {_some(others)} instead" if others else _perhaps_cut_off(layers)
        raise WeightsError(
            f"not this GoogLeNet: it lacks {len(missing)} of {len(needed)} layers ({_some(missing)}){instead}"
        )
    if others:
        unknown = next(name for name in tensors if (name.rpartition(separator)[0] or name) in others)
        raise WeightsError(f"layer {unknown} is not part of GoogLeNet")
    return {_renamed(name, names, separator): tensor for name, tensor in tensors.items()}


def _perhaps_cut_off(layers: Collection[str]) -> str:
    return ": perhaps its end is missing, compare it with the source" if layers else ""


def _renamed(name: str, names: Mapping[str, str], separator: str) -> str:
    layer, _, parameter = name.rpartition(separator)
    return f"{names[layer]}.{parameter}"


def _some(layers: Sequence[str]) -> str:
    more = f" and {len(layers) - SHOWN} more" if len(layers) > SHOWN else ""
    return f"{', '.join(layers[:SHOWN])}{more}"
