"""Loader of batches: one set of processes for a whole training, its epochs and its validations.

A process takes seconds to start, and has to fill its cache of records again: it is started once, and told batch by
batch what to load. Batches come back through shared memory, without a copy.
"""

import errno
import multiprocessing.util
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from multiprocessing.reduction import ForkingPickler
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing.reductions import reduce_storage
from torch.utils.data import DataLoader, Dataset, get_worker_info

from googlenet.images.record import RecordsByIndex
from googlenet.shapes import Float32, Int64, UInt8
from googlenet.training.crop_sizes import CropPx, crop_px_in

MORE_SHARED_MEMORY = "; make /dev/shm larger, in Docker with --shm-size=2g"
# By the error with which the system refuses shared memory.
REMEDIES = {
    errno.ENOSPC: MORE_SHARED_MEMORY,
    errno.EFBIG: MORE_SHARED_MEMORY,
    errno.EMFILE: "; allow a process more open files with ulimit -n",
}

# Of a socket's path, and what multiprocessing appends to the temporary folder: /pymp-12345678/listener-12345678.
LONGEST_SOCKET_BYTES, SOCKET_NAME_BYTES = 107, 32
SHORT_FOLDER = "/tmp"  # noqa: S108


@dataclass(frozen=True)
class Batch:
    """Images ready for the network.

    Attributes:
        images: (N, 3, H, W) uint8, channels-last in memory; this worker's share of the batch, possibly empty.
        labels: (N,) int64.
        num_images: images in the whole batch, over all data-parallel workers.
        targets: (N, C) float32, the teacher's probabilities in a distillation; otherwise None.
    """

    images: UInt8[Tensor, "n 3 crop crop"]
    labels: Int64[Tensor, " n"]
    num_images: int
    targets: Float32[Tensor, "n c"] | None = None

    @classmethod
    def whole(cls, images: UInt8[Tensor, "n 3 crop crop"], labels: Int64[Tensor, " n"]) -> "Batch":
        """Return a batch that is not shared."""
        return cls(images, labels, len(labels))

    def pin_memory(self) -> "Batch":
        """Return a copy in memory from which a GPU reads while the processor goes on; the loader calls this."""
        return replace(self, images=self.images.pin_memory(), labels=self.labels.pin_memory())


@dataclass(frozen=True)
class Request:
    """A batch to load.

    Attributes:
        source: name of the source.
        keys: keys of this worker's images.
        num_images: images in the whole batch, over all data-parallel workers.
    """

    source: str
    keys: Sequence[Any]
    num_images: int


def crop_px_of(request: Request, crop_px: CropPx) -> int:
    """Return the side of the crops of a request, whose keys are (epoch, index)."""
    # A worker's share may be empty: then no image depends on the side.
    return crop_px_in(request.keys[0][0] if request.keys else -1, crop_px)


@runtime_checkable
class Source(Protocol):
    """Batches made from records."""

    @property
    def records(self) -> RecordsByIndex:
        """Records from which the batches are made."""

    def load(self, request: Request) -> Any:
        """Return the batch of a request: a :class:`Batch`, or what becomes one on the device."""


def stacked(images: Iterable[tuple[UInt8[Tensor, "crop crop 3"], int]], crop_px: int, request: Request) -> Batch:
    """Return the batch of a request whose images, with their labels, are ``images``."""
    # Filled in place: an empty share keeps its shape.
    pixels = torch.empty(len(request.keys), crop_px, crop_px, 3, dtype=torch.uint8)
    labels = []
    for row, (image, label) in enumerate(images):
        pixels[row] = image
        labels.append(label)
    return Batch(pixels.permute(0, 3, 1, 2), torch.tensor(labels, dtype=torch.int64), request.num_images)


class _Sources(Dataset[Any]):
    """Sources as a data set whose items are the batches that requests describe."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self.sources = sources

    def __getitem__(self, request: Request) -> Any:
        return self.sources[request.source].load(request)


def load_batches(
    sources: Mapping[str, Source], requests: Iterable[Request], *, loader_processes: int = 0, pin_memory: bool = False
) -> Iterator[Any]:
    """Yield the batch of each request, in order.

    Args:
        sources: sources by the names that requests use.
        requests: batches to load; read ahead if there are loader processes.
        loader_processes: processes that load; 0 loads in this one, when a batch is asked for.
        pin_memory: pin memory, for asynchronous copies to a GPU.
    """
    loader: DataLoader[Any] = DataLoader(
        _Sources(sources),
        batch_size=None,  # a request is a batch
        sampler=requests,
        num_workers=loader_processes,
        multiprocessing_context=forkserver() if loader_processes else None,
        worker_init_fn=_settle if loader_processes else None,
        pin_memory=pin_memory,
    )
    return iter(loader)


def forkserver() -> ForkServerContext:
    """Return what forks processes off a server; a fork of this process can hang, since it may run Ray's threads."""
    _shorten_socket_paths()
    server = get_context("forkserver")
    # The server imports these once, which takes each process seconds. The first is Python's default; this project is
    # not always on the server's path.
    server.set_forkserver_preload(["__main__", "cv2", "torch"])
    return server


def _shorten_socket_paths() -> None:
    """Let the sockets of this process, and of those that it starts, lie in /tmp if their folder has too long a name."""
    if len(os.fsencode(tempfile.gettempdir())) + SOCKET_NAME_BYTES <= LONGEST_SOCKET_BYTES:
        return
    usual, tempfile.tempdir = tempfile.tempdir, SHORT_FOLDER
    try:
        multiprocessing.util.get_temp_dir()  # chosen once, when it is first asked for
    finally:
        tempfile.tempdir = usual


def _settle(_: int) -> None:
    """Limit a new loader process to one OpenCV thread and its part of the caches, and let it send in any case."""
    cv2.setNumThreads(0)
    ForkingPickler.register(torch.UntypedStorage, _sent)
    info: Any = get_worker_info()
    for source in info.dataset.sources.values():
        source.records.share_cache(info.num_workers)


def _sent(storage: torch.UntypedStorage) -> tuple[Any, ...]:
    """Return how a tensor's numbers are sent: through shared memory, or with the message where that is refused.

    PyTorch would drop the batch, and the training would wait for it for ever.
    """
    try:
        shared: tuple[Any, ...] = reduce_storage(storage)  # type: ignore[no-untyped-call]
    except (RuntimeError, OSError) as error:
        reason = str(error).rpartition(": ")[2]  # without the block's name: each process is to warn once
        remedy = next((advice for code, advice in REMEDIES.items() if os.strerror(code) in reason), "")
        refused = f"a batch cannot be put into shared memory ({reason})"
        warnings.warn(f"{refused}: it goes through a pipe, which is slower{remedy}", stacklevel=2)
        return _storage_of, (torch.empty(0, dtype=torch.uint8).set_(storage).numpy(),)
    return shared


def _storage_of(data: UInt8[np.ndarray, " bytes"]) -> torch.UntypedStorage:
    return torch.from_numpy(data).untyped_storage()
