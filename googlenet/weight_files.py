"""Files of weights by their ending: this project's .safetensors, Caffe's .npz, torchvision's .pth."""

from pathlib import Path

from googlenet.foreign_weights import read_caffe_npz, read_torchvision_pth
from googlenet.predictor import Replica
from googlenet.weights import StoredNetwork, WeightsError, read_safetensors

READERS = {".safetensors": read_safetensors, ".npz": read_caffe_npz, ".pth": read_torchvision_pth}


def load_weights(path: str | Path) -> Replica:
    """A network ready for inference, with the preprocessing that belongs to it.

    Raises:
        WeightsError: an unknown kind of file, a damaged one, or the first layer that does not fit.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    try:
        return read_weights(path.read_bytes(), path.name).build()
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error


def read_weights(data: bytes, name: str) -> StoredNetwork:
    """What the bytes of a file called ``name`` hold.

    Raises:
        WeightsError: an unknown kind of file, or a damaged one.
    """
    reader = READERS.get(Path(name).suffix)
    if reader is None:
        raise WeightsError(f"not a kind of weights known here: expected {', '.join(READERS)}")
    return reader(data)
