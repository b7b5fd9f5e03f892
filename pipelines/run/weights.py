"""Files of weights in storage: read, or refused by name."""

from googlenet.network.weight_files import read_weights
from googlenet.network.weights import StoredNetwork, WeightsError
from pipelines.errors import UserError
from pipelines.run.storage import Storage


def read_network(folder: Storage, name: str, mend: str = "") -> tuple[bytes, StoredNetwork]:
    """The bytes of a file of weights, and what they hold. ``mend`` says what to do about a file that cannot be used.

    Raises:
        UserError: there is no such file, or it cannot be used.
    """
    try:
        data = folder.read(name)
        return data, read_weights(data, name)
    except FileNotFoundError as error:
        raise UserError(f"no weights at {folder.below(name)}") from error
    except WeightsError as error:
        raise UserError(f"{folder.below(name)}: {error}{mend and f'; {mend}'}") from error


def read_replica(run: Storage, name: str) -> tuple[bytes, StoredNetwork]:
    """The file of weights of a finished replica.

    Raises:
        UserError: it is damaged.
    """
    return read_network(run, name, "delete it, and train_ensemble.py writes it again from the newest checkpoint")


def read_file(path: str) -> tuple[bytes, StoredNetwork]:
    """The bytes of a file of weights, and what they hold.

    Raises:
        UserError: there is no such file, or it cannot be used.
    """
    return read_network(*Storage.of_file(path))
