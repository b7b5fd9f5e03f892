"""Files of weights in storage, read or refused by name."""

from typing import TYPE_CHECKING

from googlenet.network.choices import WEIGHT_SUFFIXES
from pipelines.errors import UserError
from pipelines.run.storage import Storage

if TYPE_CHECKING:
    from googlenet.network.weights import StoredNetwork


def read_network(folder: Storage, name: str, fix: str = "") -> "tuple[bytes, StoredNetwork]":
    """Return the bytes of a file of weights, and the network in it. ``fix`` says what to do if it cannot be used.

    Raises:
        UserError: the file does not exist or cannot be used.
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
        raise UserError(f"{folder.below(name)}: {error}{fix and f'; {fix}'}") from error


def check_file(path: str) -> None:
    """Refuse a path that names no file of weights, without reading it.

    Raises:
        UserError: the file does not exist or is of an unknown kind.
    """
    folder, name = Storage.of_file(path)
    _check_suffix(folder, name)
    if not folder.exists(name):
        raise UserError(f"no weights at {folder.below(name)}")
    if not folder.below(name).is_file:
        raise UserError(f"{folder.below(name)} is a folder, not a file of weights")


def _check_suffix(folder: Storage, name: str) -> None:
    if not name.endswith(WEIGHT_SUFFIXES):
        kinds = ", ".join(WEIGHT_SUFFIXES)
        raise UserError(f"{folder.below(name)}: unknown kind of weights file: expected one of {kinds}")


def read_replica(run: Storage, name: str) -> "tuple[bytes, StoredNetwork]":
    """Return the file of weights of a finished replica, as bytes and network.

    Raises:
        UserError: the file does not exist or is damaged.
    """
    return read_network(run, name, "delete it, and train_ensemble.py rewrites it from the newest checkpoint")


def read_file(path: str) -> "tuple[bytes, StoredNetwork]":
    """Return the bytes of a file of weights, and the network in it.

    Raises:
        UserError: the file does not exist or cannot be used.
    """
    return read_network(*Storage.of_file(path))
