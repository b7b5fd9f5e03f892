"""Checks of weights from other sources: what they must agree on, and their copies in this project's format."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import UserError
from pipelines.job.console import count
from pipelines.run.directory import shortened

# Needs PyTorch, which a command that ends with an error does not wait for.
if TYPE_CHECKING:
    from googlenet.network.weights import StoredNetwork


def check_outputs(
    paths: Sequence[str], networks: "Sequence[StoredNetwork]", num_classes: int, data: str, class_list: str
) -> None:
    """Refuse weights that have another number of outputs than there are classes.

    ``data`` are the images, and ``class_list`` the file of --classes, if there is one.

    Raises:
        UserError: one has.
    """
    for path, stored in zip(paths, networks, strict=True):
        if stored.num_classes == num_classes:
            continue
        outputs = count(stored.num_classes, "output")
        if class_list:
            raise UserError(
                f"{path} has {outputs}, --classes {class_list} names {num_classes}: "
                "the file needs one line for each output, in their order"
            )
        raise UserError(
            f"{path} has {outputs}, {data} has {count(num_classes, 'class', 'classes')}: "
            "list the classes of its outputs, in their order, with --classes FILE"
        )


def own_format(path: str, stored: "StoredNetwork") -> bytes:
    """Return external weights in this project's format.

    Raises:
        UserError: they are not those of such a network.
    """
    from googlenet.network.weights import WeightsError, to_safetensors

    try:
        network = stored.build()
    except WeightsError as error:
        raise UserError(f"{path}: {error}") from error
    return to_safetensors(network.model, network.model.state_dict(), network.preprocessing, source=Path(path).name)


def agreed(name: str, asked: Any, networks: "Sequence[StoredNetwork]") -> Any:
    """Return the value on which the command line and all files that have one agree; None if there is none.

    Raises:
        UserError: the values differ, so that an average would mix networks that do not belong together.
    """
    values = [value for value in (asked, *(network.extra.get(name) for network in networks)) if value is not None]
    if any(value != values[0] for value in values):
        shown = " and ".join(str(shortened(value)) for value in shortened(values))
        raise UserError(f"the weight files (or --{name.replace('_', '-')}) differ in their {name}: {shown}")
    return values[0] if values else None
