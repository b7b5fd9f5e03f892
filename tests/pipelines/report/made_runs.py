"""Runs made by hand: six images, two replicas, chosen answers."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from googlenet.images.records import SCHEMA
from googlenet.network.arithmetic import FP32
from pipelines.report.write import write_report
from pipelines.run.claims import claim
from pipelines.run.dataset import Manifest, Shard, Split
from pipelines.run.directory import MANIFEST
from pipelines.run.predictions import Cost, EvaluatedEnsemble, Predicted, file_name, write_predictions
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage

CLASSES = tuple("abcdefg")
ENSEMBLE = EvaluatedEnsemble(("replica_0", "replica_1"), ("x", "y"), (1, 10, 144), 84, CLASSES, "digest", FP32)
IDS = [f"val/{number}.jpg" for number in range(6)]
LABELS = np.array([0, 1, 2, 3, 4, 5], np.int32)
NOISY = [[0, 1, 2, 3, 4, 0], [0, 1, 2, 0, 0, 0], [0, 1, 0, 3, 0, 0]]  # one, three and three of six are wrong


def photograph(number: int, width: int = 131) -> bytes:
    """A JPEG of noise, as a file, 100 px high."""
    pixels = np.random.default_rng(number).integers(0, 256, (100, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def made_run(folder: Path, width: int = 131) -> Storage:
    """A run with a data set of six images of one class each, without predictions; images are 100 px high.

    At the default width, no two of the 144 views are equal.
    """
    storage = Storage.at(str(folder))
    columns = {
        "image_id": IDS,
        "image": [photograph(n, width) for n in range(6)],
        "label": LABELS,
        "width": [width] * 6,
        "height": [100] * 6,
    }
    with storage.writing("dataset/val/00000.parquet") as stream:
        pq.write_table(pa.table(columns, SCHEMA), stream)
    split = Split((Shard("val/00000.parquet", 6, ""),), dict.fromkeys(CLASSES, 1))
    storage.write_json(MANIFEST, Manifest({}, CLASSES, {"train": split, "val": split}, "digest", 0).to_dict())
    return storage


def answers(*choices: list[int], classes: int = len(CLASSES)) -> np.ndarray:
    """(6, K, 3, C) probabilities: replica k answers ``choices[k]`` with 0.6 - 0.05 k, for every crop policy."""
    probabilities = np.full((6, len(choices), 3, classes), 0.4 / (classes - 1), np.float32)
    for replica, chosen in enumerate(choices):
        for image, answer in enumerate(chosen):
            probabilities[image, replica, :, answer] = 0.6 - 0.05 * replica
    return probabilities


def rows_of(ids: list[str], labels: np.ndarray, probabilities: np.ndarray, views: int = 144) -> Predicted:
    """Every view and group of views answers like the average; with the maximum, both replicas are equally confident."""
    everyone = np.concatenate([probabilities, probabilities.mean(axis=1, keepdims=True)], axis=1)[:, :, -1].argmax(-1)
    counts = np.tile(np.array([1, 10, views], np.int32), (len(ids), probabilities.shape[1], 1))
    by_view = np.repeat(everyone[:, :, None], len(ENSEMBLE.views), axis=2).astype(np.int32)
    by_group = np.repeat(everyone[:, :, None], len(ENSEMBLE.groups), axis=2).astype(np.int32)
    pooled = np.where(probabilities[:, :, -1] > 0.5, np.float32(0.9), probabilities[:, :, -1])
    return Predicted(ids, labels, counts, probabilities, pooled, by_view, by_group)


def predict(
    run: Storage,
    rows: list[int],
    shard: int = 0,
    ensemble: EvaluatedEnsemble = ENSEMBLE,
    views: int = 144,
    passes: int = 288,
) -> None:
    """Predictions of some images: replica 0 is wrong on the last one, replica 1 on the last three."""
    probabilities = answers([0, 1, 2, 3, 4, 0], [0, 1, 2, 0, 0, 0])[rows]
    predicted = rows_of([IDS[row] for row in rows], LABELS[rows], probabilities, views)
    cost = Cost(seconds=0.5 * len(rows), forward_passes=passes * len(rows))
    write_predictions(run.below("predictions"), file_name(shard), ensemble, predicted, cost)


def report_on_made_run(folder: Path, *choices: list[int], with_pictures: bool = True, **fields: Any) -> Storage:
    """A run of two replicas that answered ``choices``, or as :func:`predict` has it, with its report."""
    folder.mkdir(parents=True)
    claim(Storage.at(str(folder)), "recipe", Recipe(replicas=2, **fields).to_dict())
    run = made_run(folder)
    if choices:
        predict_as(run, answers(*choices))
    else:
        predict(run, list(range(6)))
    write_report(run, ENSEMBLE, with_pictures=with_pictures)
    return run


def ensemble_of(replicas: int, classes: int = len(CLASSES)) -> EvaluatedEnsemble:
    """The ensemble of so many replicas and classes, of which a thousand are called as ImageNet's are."""
    names = tuple(f"replica_{replica}" for replica in range(replicas))
    name = "n{:08}" if classes == 1000 else "class {}"
    own = CLASSES if classes == len(CLASSES) else tuple(map(name.format, range(classes)))
    return replace(ENSEMBLE, replicas=names, weights_digests=names, classes=own)


def predict_as(run: Storage, probabilities: np.ndarray, ensemble: EvaluatedEnsemble = ENSEMBLE) -> None:
    """Predictions of all images."""
    cost = Cost(seconds=1.0, forward_passes=1)
    predicted = rows_of(IDS, LABELS, probabilities)
    write_predictions(run.below("predictions"), file_name(0), ensemble, predicted, cost)


def cautious_rows(images: int = 400) -> Predicted:
    """Three replicas that are right on 90 % of the images and never surer than 55 %."""
    generator = np.random.default_rng(5)
    labels = generator.integers(0, 4, images).astype(np.int32)
    probabilities = np.full((images, 3, 2, 4), 0.15, np.float32)
    for replica in range(3):
        answers = np.where(generator.random(images) < 0.9, labels, (labels + 1) % 4)
        probabilities[np.arange(images), replica, :, answers] = 0.55
    ids = [f"val/{number}.jpg" for number in range(images)]
    nothing = np.zeros((images, 4, 0), np.int32)
    return Predicted(ids, labels, nothing, probabilities, probabilities[:, :, 0], nothing, nothing)
