"""Weights from other sources: read, checked against each other, and in this project's format."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from googlenet.network.published import BVLC, TORCHVISION, outputs_of_weights
from pipelines.errors import UserError
from pipelines.evaluation.options import DEFAULT_CROP_PX, Arguments
from pipelines.job.console import count, say, some
from pipelines.run.differences import shortened
from pipelines.run.predictions import sorted_policies
from pipelines.run.recipe import MOST_REPLICAS, check_policies, ensembles_line
from pipelines.run.weights import read_file

# Needs PyTorch, which a command that ends with an error does not wait for.
if TYPE_CHECKING:
    from googlenet.network.weights import StoredNetwork

WORDNET_ID = re.compile(r"n\d{8}")
SAVE_AGAIN = "save it again with googlenet.save_weights(..., classes=[...], crop_px=SIDE_OF_THE_INPUT)"


@dataclass(frozen=True)
class ExternalWeights:
    """Weights from other sources that were read, and agree on what they must.

    Attributes:
        files: path or name of each file.
        digests: SHA-256 of each.
        networks: what is in each.
        crop_px: side of the networks' input.
        classes: names of their outputs; empty if nothing gives them.
    """

    files: tuple[str, ...]
    digests: tuple[str, ...]
    networks: "tuple[StoredNetwork, ...]"
    crop_px: int
    classes: tuple[str, ...]

    def check(self, classes: Sequence[str], asked: Arguments) -> None:
        """Refuse networks that have another number of outputs than there are ``classes``.

        Raises:
            UserError: one has.
        """
        check_outputs(self.files, [network.num_classes for network in self.networks], len(classes), asked)

    def in_own_format(self) -> list[bytes]:
        """Return each file's weights in this project's format; print what is assumed about them.

        Raises:
            UserError: one is not of such a network.
        """
        return [own_format(file, network) for file, network in zip(self.files, self.networks, strict=True)]

    def settings(self, data: str, classes: Sequence[str], asked: Arguments) -> dict[str, Any]:
        """Return what decides the predictions of the images of ``data``, which have these ``classes``."""
        return {
            "data": data,
            "weights": list(self.digests),
            "classes": list(classes),
            "policies": list(sorted_policies(asked.policies)),
            "crop_px": self.crop_px,
            "precision": asked.precision,
        }


def read_external(asked: Arguments, classes: Sequence[str] | None) -> ExternalWeights:
    """Read the files of --weights; ``classes`` are those that --classes lists.

    Raises:
        UserError: a file cannot be used, or they do not agree with each other and with the options.
    """
    files = [read_file(file) for file in asked.weights]
    networks = tuple(network for _, network in files)
    for file, network in zip(asked.weights, networks, strict=True):
        check_metadata(file, network.extra)
    crop_px = agreed("crop_px", asked.crop_px, networks) or DEFAULT_CROP_PX
    check_policies(asked.policies, crop_px)
    named = tuple(agreed("classes", classes, networks) or ())
    digests = tuple(hashlib.sha256(content).hexdigest() for content, _ in files)
    weights = ExternalWeights(asked.weights, digests, networks, crop_px, named)
    if named:
        weights.check(named, asked)
    return weights


def check_metadata(file: str, extra: Mapping[str, Any]) -> None:
    """Refuse a file of weights in which others have written a crop size or classes that are none.

    Raises:
        UserError: the crop size is not a whole number, or the classes are not a list of names.
    """
    crop_px, classes = extra.get("crop_px"), extra.get("classes")
    if crop_px is not None and (not isinstance(crop_px, int) or isinstance(crop_px, bool)):
        raise UserError(f"{file}: its metadata have the crop size {crop_px!r}, expected a whole number; {SAVE_AGAIN}")
    if classes is None or (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
        return
    raise UserError(f"{file}: its metadata have {shortened(classes)!r} as classes, expected names; {SAVE_AGAIN}")


def check_order(weights: Sequence[str], classes: Sequence[str], data: str) -> None:
    """Refuse class folders for published weights, whose outputs are in the order of ImageNet's ids, if named otherwise.

    Folders are sorted by their names; a data set that lists its classes may have them in any order.

    Raises:
        UserError: the folders have other names, and are in the order of these.
    """
    others = [name for name in classes if not WORDNET_ID.fullmatch(name)]
    if others and list(classes) == sorted(classes) and any(map(outputs_of_weights, weights)):
        raise UserError(
            f"the outputs of {weights[0]} are in the order of ImageNet's ids (n01440764, ...), and the classes in "
            f"{data} have other names ({some(others, 3)}): list them in the order of the outputs with --classes FILE"
        )


def check_published(weights: Sequence[str], classes: Callable[[], Sequence[str]], asked: Arguments) -> None:
    """Refuse published weights that cannot have as many outputs as there are classes, before they are downloaded.

    ``classes`` are looked up only if there are such weights.

    Raises:
        UserError: one has another number of outputs.
    """
    outputs = [outputs_of_weights(name) for name in weights]
    if any(outputs):
        check_outputs(weights, outputs, len(classes()), asked)


def check_outputs(paths: Sequence[str], outputs: Sequence[int | None], num_classes: int, asked: Arguments) -> None:
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

    if stored.assumption and path not in (BVLC, TORCHVISION):  # published weights are what is assumed
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
