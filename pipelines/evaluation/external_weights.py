"""Checks of weights from other sources: what they must agree on, and their copies in this project's format."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from googlenet.network.published import TORCHVISION, outputs_of_weights
from pipelines.errors import UserError
from pipelines.job.console import count, say
from pipelines.run.directory import shortened
from pipelines.run.recipe import MOST_REPLICAS, ensembles_line

# Needs PyTorch, which a command that ends with an error does not wait for.
if TYPE_CHECKING:
    from googlenet.network.weights import StoredNetwork


class Asked(Protocol):
    """Options of an evaluation that messages name."""

    @property
    def data(self) -> str:
        """The images."""

    @property
    def classes(self) -> str:
        """File with the classes' names; empty if there is none."""

    @property
    def unlabelled(self) -> bool:
        """Whether the images have no labels, and so no report."""


def check_published(weights: Sequence[str], classes: Callable[[], Sequence[str]], asked: Asked) -> None:
    """Refuse published weights that cannot have as many outputs as there are classes, before they are downloaded.

    ``classes`` are looked up only if there are such weights.

    Raises:
        UserError: one has another number of outputs.
    """
    outputs = [outputs_of_weights(name) for name in weights]
    if any(outputs):
        check_outputs(weights, outputs, len(classes()), asked)


def check_outputs(paths: Sequence[str], outputs: Sequence[int | None], num_classes: int, asked: Asked) -> None:
    """Refuse weights that have another number of outputs than there are classes; None is one that is not known.

    Also refuses more weights than a report can judge.

    Raises:
        UserError: one has, or there are too many.
    """
    if len(paths) > MOST_REPLICAS and not asked.unlabelled:
        raise UserError(
            f"--weights must name at most {MOST_REPLICAS} networks, got {len(paths)}: {ensembles_line(len(paths))}"
        )
    for path, number in zip(paths, outputs, strict=True):
        if number in (None, num_classes):
            continue
        has = f"{path} has {count(number or 0, 'output')}"
        if asked.classes:
            raise UserError(
                f"{has}, --classes {asked.classes} names {num_classes}: "
                "the file needs one line for each output, in their order"
            )
        raise UserError(
            f"{has}, {asked.data} has {count(num_classes, 'class', 'classes')}: "
            "list the classes of its outputs, in their order, with --classes FILE"
        )


def own_format(path: str, stored: "StoredNetwork") -> bytes:
    """Return external weights in this project's format; print what is assumed about them.

    Raises:
        UserError: they are not those of such a network.
    """
    from googlenet.network.weights import WeightsError, to_safetensors

    if stored.assumption and path != TORCHVISION:  # published weights are what is assumed
        say(f"{path}: {stored.assumption}")
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
