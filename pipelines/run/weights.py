"""Files of weights: in storage, or published ones by name; read, or refused by name."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import safetensors

from googlenet.images.rereading import read_again
from googlenet.network.choices import WEIGHT_SUFFIXES
from googlenet.network.download import DownloadError
from googlenet.network.hub import name_of_page
from googlenet.network.published import (
    BVLC,
    HINT,
    MEANING_OF_BVLC,
    NAMES,
    check_weights_name,
    fetch_weights,
    is_weights_name,
    names_of_files,
    suffix_of_name,
)
from pipelines.errors import DamagedFileError, UserError
from pipelines.run.directory import RUN, SOUP, ReplicaFiles, read_run
from pipelines.run.named_recipes import finetune
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage, short_name

if TYPE_CHECKING:
    from googlenet.network.weights import StoredNetwork

# What makes the training of ``finetune`` too short for random weights.
OF_FINETUNE = ("learning_rate", "schedule", "warmup_epochs", "epochs")


def absolute_weights(weights: str) -> str:
    """Return a path that does not depend on the working directory; a name as it is.

    A link is resolved if it leads to a name with the ending of weights, and keeps its own name otherwise.
    """
    if not weights or is_weights_name(weights):
        return weights
    target = Storage.at(weights).root
    if target.endswith(WEIGHT_SUFFIXES):
        return target
    folder, name = Storage.of_file(weights)
    return folder.below(name).root


def suffix_of_weights(weights: str) -> str:
    """Return the suffix of the file at a path or behind a name.

    Raises:
        UserError: the name leads to no weights.
    """
    with _refusals():
        named = is_weights_name(weights)
        return suffix_of_name(weights) if named else PurePosixPath(Storage.of_file(weights)[1]).suffix


def each_file(weights: str) -> list[str]:
    """Return the path, or a name for each file behind a name: a repository of the Hub may hold several.

    Raises:
        UserError: there are none, or the repository cannot be had.
    """
    with _refusals():
        return names_of_files(weights) if is_weights_name(weights) else [absolute_weights(weights)]


def check_that_weights_are_given(run: Storage, recipe: Recipe) -> None:
    """Refuse a recipe that is meant for given weights and has none; a run that was begun without them goes on.

    Raises:
        UserError: it has none.
    """
    begun = read_run(run).get("recipe", {}) if run.exists(RUN) else {}
    goes_on = begun.get("name") == recipe.name and not begun.get("init_weights")
    if _is_for_given_weights(recipe) and not (recipe.init_weights or goes_on):
        raise UserError(
            f"the recipe {recipe.name} has the short training of finetune, which needs pretrained weights: add "
            f"--init-weights FILE, or --init-weights {BVLC} ({MEANING_OF_BVLC}); to train from random weights, choose "
            "--recipe imagenette, or add --from-scratch"
        )


def _is_for_given_weights(recipe: Recipe) -> bool:
    """Return whether a recipe is ``finetune``, or trains as it does under another name."""
    known = finetune()
    return recipe.name == known.name or all(getattr(recipe, name) == getattr(known, name) for name in OF_FINETUNE)


def check_file(weights: str) -> None:
    """Refuse a path or a name that leads to no file of weights, without reading or downloading it.

    Raises:
        UserError: the file does not exist or is of an unknown kind, or the name is unknown.
    """
    if is_weights_name(weights):
        with _refusals():
            check_weights_name(weights)
        return
    if page := name_of_page(weights):
        raise UserError(f"{weights} is a web page of Hugging Face; give the name of the weights instead: {page}")
    folder, name = Storage.of_file(weights)
    if folder.exists(name) and not folder.below(name).is_file:
        raise UserError(f"{folder.below(name)} is a folder, not a file of weights; give a file in it")
    _check_suffix(folder, name)
    if not folder.exists(name):
        raise UserError(f"no weights at {folder.below(name)}; {HINT}")


def read_file(weights: str) -> "tuple[bytes, StoredNetwork]":
    """Return the bytes of the file at a path or behind a name, and the network in it.

    Raises:
        UserError: the file does not exist, cannot be downloaded or cannot be used.
    """
    check_file(weights)
    if not is_weights_name(weights):
        return read_network(*Storage.of_file(weights))
    with _refusals():
        file = str(fetch_weights(weights))
    return read_network(*Storage.of_file(file), f"this is the cached copy of {weights}")


def read_network(folder: Storage, name: str, fix: str = "") -> "tuple[bytes, StoredNetwork]":
    """Return the bytes of a file of weights, and the network in it. ``fix`` says what to do if it cannot be used.

    Raises:
        UserError: the file does not exist.
        DamagedFileError: it cannot be used.
    """
    _check_suffix(folder, name)
    try:
        data = folder.read(name)
    except FileNotFoundError as error:
        raise UserError(f"no weights at {folder.below(name)}") from error
    # PyTorch is imported once it is needed: a command that ends before that does not wait for it.
    from googlenet.network.weight_files import read_weights
    from googlenet.network.weights import WeightsError

    try:
        return data, read_weights(data, name)
    except WeightsError as error:
        raise DamagedFileError(f"{folder.below(name)}: {error}{fix and f'; {fix}'}") from error


def read_kept(run: Storage, name: str, fix: str = "") -> "tuple[bytes, StoredNetwork]":
    """Return what :func:`read_network` returns of a file that this project wrote, read again if it looks damaged.

    Files that users give are read once: most of those that cannot be used are whole, but of another network.

    Raises:
        UserError: the file does not exist or is damaged.
    """
    return read_again(lambda: read_network(run, name, fix), DamagedFileError)


def read_replica(run: Storage, name: str) -> "tuple[bytes, StoredNetwork]":
    """Return the file of weights of a finished replica, or of a soup, as bytes and network.

    Raises:
        UserError: the file does not exist or is damaged.
    """
    return read_kept(run, name, _made_again(run))


def _made_again(run: Storage) -> str:
    if short_name(run.root) == SOUP:
        return "delete it, and the same command with --soup averages it again"
    return "delete it, and train_ensemble.py rewrites it from the newest checkpoint"


def weights_digests(run: Storage, replicas: Sequence[int]) -> tuple[str, ...]:
    """Return the SHA-256 of the weights of each of these finished replicas.

    Raises:
        UserError: a file is damaged.
    """
    return tuple(read_again(partial(_digest_of_replica, run, replica), DamagedFileError) for replica in replicas)


def _digest_of_replica(run: Storage, replica: int) -> str:
    name = ReplicaFiles(replica).weights
    content = run.read(name)
    try:
        safetensors.deserialize(content)  # type: ignore[no-untyped-call]  # a part of a file has a digest, too; PyTorch is not needed to see that
    except safetensors.SafetensorError as error:
        raise DamagedFileError(f"{run.below(name)} is damaged ({error}); {_made_again(run)}") from error
    return hashlib.sha256(content).hexdigest()


def _check_suffix(folder: Storage, name: str) -> None:
    if not name.endswith(WEIGHT_SUFFIXES):
        expected = f"expected one of {', '.join(WEIGHT_SUFFIXES)}, or a name: {NAMES}"
        raise UserError(f"{folder.below(name)}: unknown kind of weights file: {expected}; {HINT}")


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except DownloadError as error:
        raise UserError(str(error)) from error
