"""Random access to (image bytes, label, image id) in Parquet shards, and the order in which an epoch visits them.

Order and sampling are pure functions of (sampling seed, epoch, index); how many workers share the work, and whether
one of them crashed, leaves no trace in what a replica sees.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from googlenet.augment import Sampling, draw_sample
from googlenet.images import decode_rgb
from googlenet.randomness import numpy_generator

# The label of an image that has none.
NO_LABEL = -1
SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("image", pa.binary()),
        ("label", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)
# A record is read together with its row group, so groups are small; encoded images do not compress further.
ROW_GROUP_IMAGES = 32
DEFAULT_CACHE_BYTES = 1 << 30


class RecordsError(OSError):
    """A shard cannot be read as it was written."""


@dataclass(frozen=True)
class Record:
    """One image as it is stored: ``image`` holds the original file's bytes."""

    image_id: str
    image: bytes
    label: int


class Records(Sequence[Record]):
    """Records of one split, by index, over shards on any pyarrow filesystem.

    Args:
        filesystem: where the shards are.
        paths: the shards in their order.
        num_images: for each shard the number of its records, from the manifest; files are opened only when read.
        cache_bytes: bound on the row groups kept in memory.

    Raises:
        RecordsError: on access, a shard that is damaged (pages carry checksums) or cannot be reached.
    """

    def __init__(
        self,
        filesystem: pafs.FileSystem,
        paths: Sequence[str],
        num_images: Sequence[int],
        cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        if len(paths) != len(num_images):
            raise ValueError(f"{len(paths)} shards, but {len(num_images)} counts of images")
        self._filesystem = filesystem
        self._paths = list(paths)
        self._ends = list(accumulate(num_images))
        self._cache: OrderedDict[tuple[int, int], pa.Table] = OrderedDict()
        self._cached_bytes = 0
        self._cache_bytes = cache_bytes
        self._files: dict[int, pq.ParquetFile] = {}

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # Sequence asks for an overload with slices
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        shard = bisect_right(self._ends, index)
        row = index - (self._ends[shard - 1] if shard else 0)
        group = self._row_group(shard, row // ROW_GROUP_IMAGES)
        at = row % ROW_GROUP_IMAGES
        return Record(*(group.column(name)[at].as_py() for name in ("image_id", "image", "label")))

    def __getstate__(self) -> dict[str, object]:
        # Loader workers open their own files and fill their own cache.
        return {**self.__dict__, "_cache": OrderedDict(), "_cached_bytes": 0, "_files": {}}

    def _row_group(self, shard: int, group: int) -> pa.Table:
        key = shard, group
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        try:
            table = self._file(shard).read_row_group(group, columns=["image_id", "image", "label"])
        except (OSError, pa.ArrowInvalid) as error:
            raise RecordsError(f"{self._paths[shard]} is damaged or out of reach: {error}") from error
        self._cache[key] = table
        self._cached_bytes += table.nbytes
        while self._cached_bytes > self._cache_bytes and len(self._cache) > 1:
            _, dropped = self._cache.popitem(last=False)
            self._cached_bytes -= dropped.nbytes
        return table

    def _file(self, shard: int) -> pq.ParquetFile:
        if shard not in self._files:
            stream = self._filesystem.open_input_file(self._paths[shard])
            self._files[shard] = pq.ParquetFile(stream, page_checksum_verification=True)
        return self._files[shard]


def epoch_order(num_images: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """The permutation of 0..num_images-1 in which replica ``seed`` visits its records in ``epoch``."""
    return numpy_generator(seed, "order", epoch).permutation(num_images)


@dataclass(frozen=True)
class Batch:
    """Samples ready for the network: ``images`` (N, 3, H, W) uint8, channels-last in memory; ``labels`` (N,) int64."""

    images: Tensor
    labels: Tensor


class TrainingSamples(Dataset[tuple[Tensor, int]]):
    """Samples of one epoch: item i is the sample of record i, the same whoever asks for it and when."""

    def __init__(self, records: Records, crop_px: int, sampling: Sampling, seed: int, epoch: int) -> None:
        self._records, self._crop_px, self._sampling = records, crop_px, sampling
        self._seed, self._epoch = seed, epoch

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        record = self._records[index]
        generator = numpy_generator(self._seed, "sampling", self._epoch, index)
        pixels = draw_sample(decode_rgb(record.image), self._crop_px, self._sampling, generator)
        return torch.from_numpy(pixels), record.label


class _EpochBatches(Sampler[list[int]]):
    def __init__(self, order: npt.NDArray[np.int64], batch_size: int, first_step: int) -> None:
        self._order, self._batch_size, self._first_step = order, batch_size, first_step

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(self._first_step * self._batch_size, len(self._order), self._batch_size):
            yield self._order[start : start + self._batch_size].tolist()


def training_batches(
    samples: TrainingSamples,
    order: npt.NDArray[np.int64],
    batch_size: int,
    *,
    first_step: int = 0,
    num_workers: int = 0,
) -> Iterator[Batch]:
    """The batches of one epoch from ``first_step`` on; the last one holds what remains.

    The number of loader workers changes the speed, never a batch.
    """
    loader: DataLoader[tuple[Tensor, int]] = DataLoader(
        samples,
        batch_sampler=_EpochBatches(order, batch_size, first_step),
        num_workers=num_workers,
        collate_fn=_collate,
        # A forked copy of a process that runs threads (Ray's, Arrow's) can hang.
        multiprocessing_context="forkserver" if num_workers else None,
    )
    yield from loader


def _collate(samples: list[tuple[Tensor, int]]) -> Batch:
    images = torch.stack([pixels for pixels, _ in samples]).permute(0, 3, 1, 2)
    return Batch(images, torch.tensor([label for _, label in samples]))
