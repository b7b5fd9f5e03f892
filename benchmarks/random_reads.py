"""Training samples in random order from cold shards: images read one by one, against a row group for each.

    python -m benchmarks.random_reads

Both kinds of shards hold the same images; before each round, the system's cache drops their pages. Bytes and reads are
those of the system's counters, as multiples of the image's own; time is the processor's, so that other work on the
machine hardly matters.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import torch
import tyro

from benchmarks.measure import print_circumstances
from benchmarks.photographs import photographs_of_size
from benchmarks.training import shard_columns
from googlenet.images.records import ROW_GROUP_IMAGES, SCHEMA, Records, write_records
from googlenet.randomness import numpy_generator
from googlenet.training.augment import Sampling, draw_sample_from
from googlenet.training.batches import TrainingSamples

Write = Callable[[Path, Sequence[bytes]], None]
# Neither kind gains from its cache if the data set is much larger than it.
CACHE_BYTES = 1 << 20


@dataclass(frozen=True)
class Arguments:
    """Compare ways to read images in random order."""

    photos: str = ""
    """Folder of photographs; scikit-learn's two otherwise."""
    rounds: int = 5
    """Rounds."""
    shards: int = 8
    """Shards of each kind."""
    images_per_shard: int = 256
    """Images in a shard."""
    reads: int = 500
    """Samples in a round."""
    width: int = 500
    """Width of the photographs in pixels."""
    height: int = 375
    """Height of the photographs in pixels."""
    quality: int = 94
    """Quality of the JPEGs; 94 results in about 75 KB, and 97 in ImageNet's 110 KB."""
    crop_px: int = 224
    """Side of the samples."""
    folder: str = ""
    """Where to write the shards, on the disk to measure; the system's temporary folder otherwise."""


@dataclass(frozen=True)
class Cost:
    """Cost of a round.

    Attributes:
        asked: bytes that the process read, as a multiple of the images'.
        from_disk: bytes that the system read from the disk, as a multiple of the images'.
        reads: calls of the system for each image.
        seconds: time of the processor for each image.
    """

    asked: float
    from_disk: float
    reads: float
    seconds: float


def _by_row_group(path: Path, encoded: Sequence[bytes]) -> None:
    table = pa.table(shard_columns(encoded), SCHEMA)
    checks = {"write_statistics": False, "write_page_checksum": True}
    pq.write_table(table, path, row_group_size=ROW_GROUP_IMAGES, compression="none", **checks)


def _one_by_one(path: Path, encoded: Sequence[bytes]) -> None:
    with path.open("wb") as stream:
        write_records(stream, zip(*shard_columns(encoded).values(), strict=True), {})


WRITERS = {"by row group": _by_row_group, "one by one": _one_by_one}


class Kind:
    """Samples from shards that ``write`` wrote to ``folder``."""

    def __init__(
        self,
        folder: Path,
        encoded: Sequence[bytes],
        write: Callable[[Path, Sequence[bytes]], None],
        arguments: Arguments,
    ) -> None:
        folder.mkdir()
        self._paths = [folder / f"{shard:05d}.parquet" for shard in range(arguments.shards)]
        for path in self._paths:
            write(path, encoded)
        counts = [len(encoded)] * arguments.shards
        self._records = Records(pafs.LocalFileSystem(), [str(path) for path in self._paths], counts, CACHE_BYTES)
        self._samples = TrainingSamples(self._records, arguments.crop_px, Sampling(), 0)
        self._sizes = [len(image) for image in encoded]
        for first in range(0, len(self._records), len(encoded)):
            self._records.labelled_image(first)  # opens the shard, as the first batches of a training do

    def cost(self, places: Sequence[tuple[int, int]], decode: bool) -> Cost:
        """Return the cost of the samples at (epoch, index), or of their bytes alone."""
        self._forget_pages()
        before, started = _counters(), time.process_time()
        for place in places:
            if decode:
                self._samples[place]
            else:
                self._records.labelled_image(place[1])
        seconds, after = time.process_time() - started, _counters()
        size = sum(self._sizes[index % len(self._sizes)] for _, index in places)
        asked, from_disk, reads = (after[name] - before[name] for name in ("rchar", "read_bytes", "syscr"))
        return Cost(asked / size, from_disk / size, reads / len(places), seconds / len(places))

    def _forget_pages(self) -> None:
        """Drop the shards from the system's cache."""
        for path in self._paths:
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _counters() -> dict[str, int]:
    lines = Path("/proc/self/io").read_text().splitlines()
    return {name: int(value) for name, value in (line.split(": ") for line in lines)}


def main(arguments: Arguments) -> None:
    """Print bytes, reads, and samples per second of the processor, for each kind of shards."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    size = (arguments.width, arguments.height, arguments.quality)
    encoded = photographs_of_size(arguments.photos, arguments.images_per_shard, *size)
    costs: dict[tuple[str, bool], list[Cost]] = {(name, decode): [] for name in WRITERS for decode in (False, True)}
    with tempfile.TemporaryDirectory(dir=arguments.folder or None) as folder:
        kinds = {name: Kind(Path(folder) / name, encoded, write, arguments) for name, write in WRITERS.items()}
        images = arguments.shards * arguments.images_per_shard
        for number in range(arguments.rounds):
            indices = np.random.default_rng(number).permutation(images)[: arguments.reads].tolist()
            for (name, decode), measured in costs.items():
                measured.append(kinds[name].cost([(number, index) for index in indices], decode))
    kilobytes = sum(map(len, encoded)) / len(encoded) / 1000
    print(f"JPEGs of {arguments.width}x{arguments.height} px, {kilobytes:.0f} KB; multiples of the images' bytes\n")
    in_memory = statistics.median(_samples_per_second(encoded, arguments) for _ in range(arguments.rounds))
    print("| images are read | bytes read | from the disk | reads an image | ms of CPU an image | samples/s of CPU |")
    print("| --- |" + " ---: |" * 5)
    for name in WRITERS:
        alone, decoded = costs[name, False], costs[name, True]
        asked, from_disk, reads = (_median(alone, field) for field in ("asked", "from_disk", "reads"))
        rates = [1 / cost.seconds for cost in decoded]
        spread = f"{statistics.median(rates):.0f} ({min(rates):.0f} - {max(rates):.0f})"
        milliseconds = 1000 * _median(alone, "seconds")
        print(f"| {name} | {asked:.2f} | {from_disk:.2f} | {reads:.2f} | {milliseconds:.3f} | {spread} |")
    print(f"| from memory | | | | | {in_memory:.0f} |")
    print_circumstances(arguments.rounds)


def _samples_per_second(encoded: Sequence[bytes], arguments: Arguments) -> float:
    """Return the samples per second of the processor of images in memory: the limit of any way to read."""
    started = time.process_time()
    for index, image in enumerate(encoded):
        draw_sample_from(image, arguments.crop_px, Sampling(), numpy_generator(0, "sampling", 0, index))
    return len(encoded) / (time.process_time() - started)


def _median(costs: Sequence[Cost], field: str) -> float:
    return statistics.median(getattr(cost, field) for cost in costs)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
