"""Time and peak memory of the report on simulated predictions of ImageNet's size.

    python -m benchmarks.full_size_report

Predictions of 50,000 images x 7 replicas x 3 policies x 1,000 classes are written as an evaluation would write them
(about 8 GB); a separate process then writes the report.
"""

import io
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tyro
from PIL import Image

from benchmarks.measure import peak_mb, print_circumstances
from googlenet.images.records import ROW_GROUP_IMAGES, SCHEMA
from googlenet.network.arithmetic import Arithmetic
from pipelines.report.write import write_report
from pipelines.run.dataset import Manifest, Shard, Split
from pipelines.run.directory import MANIFEST
from pipelines.run.predictions import (
    IMAGES_PER_SHARD,
    Cost,
    EvaluatedEnsemble,
    Predicted,
    file_name,
    write_predictions,
)
from pipelines.run.storage import Storage


def grey_jpeg() -> bytes:
    """Return an image file, for the example's views and the pictures of mistakes."""
    buffer = io.BytesIO()
    Image.new("L", (500, 375), 128).save(buffer, "JPEG")
    return buffer.getvalue()


@dataclass(frozen=True)
class Arguments:
    """Measure the report on simulated predictions."""

    images: tuple[int, ...] = (5_000, 50_000)
    """Numbers of images, to see how memory grows."""
    replicas: int = 7
    """Replicas."""
    classes: int = 1000
    """Classes."""
    rounds: int = 5
    """Reports on the same predictions, each in its own process."""


def simulate(folder: Path, images: int, replicas: int, classes: int) -> tuple[Storage, EvaluatedEnsemble]:
    """Write a run directory with one grey image repeated, and predictions that are right about two times in three."""
    run = Storage.at(str(folder))
    ids = [f"val/{number:06d}.jpg" for number in range(images)]
    labels = np.random.default_rng(0).integers(0, classes, images).astype(np.int32)
    ones = [1] * images
    columns = {"image_id": ids, "image": [grey_jpeg()] * images, "label": labels, "width": ones, "height": ones}
    with run.writing("dataset/val/00000.parquet") as stream:
        pq.write_table(pa.table(columns, SCHEMA), stream, row_group_size=ROW_GROUP_IMAGES)
    names = tuple(f"class_{label}" for label in range(classes))
    split = Split((Shard("val/00000.parquet", images, ""),), dict.fromkeys(names, 0))
    run.write_json(MANIFEST, Manifest({}, names, {"train": split, "val": split}, "", 0).to_dict())
    replica_names = tuple(f"replica_{replica}" for replica in range(replicas))
    ensemble = EvaluatedEnsemble(replica_names, ("",) * replicas, (1, 10, 144), 224, names, "", Arithmetic())
    for shard in range(-(-images // IMAGES_PER_SHARD)):
        rows = slice(shard * IMAGES_PER_SHARD, min((shard + 1) * IMAGES_PER_SHARD, images))
        predicted = _rows(shard, ids[rows], labels[rows], ensemble)
        write_predictions(run.below("predictions"), file_name(shard), ensemble, predicted, Cost(1.0, 1))
    return run, ensemble


def _rows(shard: int, ids: list[str], labels: np.ndarray, ensemble: EvaluatedEnsemble) -> Predicted:  # type: ignore[type-arg]
    generator = np.random.default_rng(shard)
    images, replicas, policies = len(ids), len(ensemble.replicas), len(ensemble.policies)
    shape = (images, replicas, policies + 1, len(ensemble.classes))
    logits = generator.standard_normal(shape, dtype=np.float32)
    logits[np.arange(images), :, :, labels] += generator.normal(3.8, 1.0, (images, 1, 1)).astype(np.float32)
    probabilities = np.exp(2 * logits)
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    answers = probabilities[:, :, -1].argmax(axis=-1)
    everyone = np.concatenate([answers, answers[:, :1]], axis=1).astype(np.int32)
    return Predicted(
        ids,
        labels,
        np.tile(np.array(ensemble.policies, np.int32), (images, replicas, 1)),
        np.ascontiguousarray(probabilities[:, :, :-1]),
        np.ascontiguousarray(probabilities[:, :, -1]),
        np.repeat(everyone[:, :, None], len(ensemble.views), axis=2),
        np.repeat(everyone[:, :, None], len(ensemble.groups), axis=2),
    )


def _report(run: Storage, ensemble: EvaluatedEnsemble) -> tuple[float, float]:
    """Write the report; return seconds and peak resident memory in MB."""
    started = time.monotonic()
    write_report(run, ensemble)
    return time.monotonic() - started, peak_mb()


def main(arguments: Arguments) -> None:
    """Print time and memory of the report by number of images."""
    print("| images | predictions GB | report seconds, median | lowest - highest | peak MB |")
    print("| ---: |" + " ---: |" * 4)
    for images in arguments.images:
        with tempfile.TemporaryDirectory() as folder:
            run, ensemble = simulate(Path(folder), images, arguments.replicas, arguments.classes)
            size = sum(path.stat().st_size for path in (Path(folder) / "predictions").iterdir()) / 1e9
            found = []
            for _ in range(arguments.rounds):
                with ProcessPoolExecutor(1, get_context("spawn")) as process:
                    found.append(process.submit(_report, run, ensemble).result())
            seconds = [took for took, _ in found]
            peak_mb = max(peak for _, peak in found)
            spread = f"{min(seconds):.0f} - {max(seconds):.0f}"
            print(
                f"| {images} | {size:.2f} | {statistics.median(seconds):.0f} | {spread} | {peak_mb:.0f} |", flush=True
            )
    print_circumstances(arguments.rounds)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
