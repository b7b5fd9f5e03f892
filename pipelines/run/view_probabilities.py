"""Probabilities of each of the 144 views alone, kept for a share of the images to choose views and thresholds on.

They are float16: 2 bytes x replicas x 144 x classes an image, before compression. That is 20 kB with seven replicas and
ten classes, 2 MB with a thousand classes, so the share is bounded by images and by bytes.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from googlenet.evaluation.crops import CROP_POLICIES, Policy
from googlenet.evaluation.temperature import FEWEST_IMAGES, hash_shares
from pipelines.errors import UserError
from pipelines.run.concurrency import concurrently
from pipelines.run.directory import PREDICTIONS, VIEW_PROBABILITIES
from pipelines.run.predictions import METADATA_KEY, EvaluatedEnsemble
from pipelines.run.storage import Storage
from pipelines.run.tables import read_table, write_table

ALL_VIEWS = CROP_POLICIES[-1]
# The error of so many images is known to within a point.
MOST_IMAGES = 4_000
MOST_BYTES = 2**30
BYTES_PER_NUMBER = 2
COLUMNS = ("image_id", "label", "probabilities")


@dataclass(frozen=True)
class ViewProbabilities:
    """Probabilities of N images, K replicas, 144 views and C classes, sorted by image.

    Attributes:
        image_ids: N ids.
        labels: (N,).
        probabilities: (N, K, 144, C) float16.
    """

    image_ids: list[str]
    labels: npt.NDArray[np.int32]
    probabilities: npt.NDArray[np.float16]


def kept_images(ensemble: EvaluatedEnsemble, images: int) -> int:
    """Return of how many of ``images`` images about the views are kept: none if the policies lack 144 crops."""
    return _kept_images(len(ensemble.replicas), ensemble.policies, len(ensemble.classes), images)


def kept_bytes(replicas: int, policies: Sequence[Policy], classes: int, images: int) -> int:
    """Return the uncompressed bytes of the views that are kept of about ``images`` images."""
    return _kept_images(replicas, policies, classes, images) * _bytes_per_image(replicas, classes)


def _kept_images(replicas: int, policies: Sequence[Policy], classes: int, images: int) -> int:
    if ALL_VIEWS not in policies:
        return 0
    return min(images, MOST_IMAGES, MOST_BYTES // _bytes_per_image(replicas, classes))


def _bytes_per_image(replicas: int, classes: int) -> int:
    return BYTES_PER_NUMBER * replicas * ALL_VIEWS * classes


def most_classes(replicas: int) -> int:
    """Return with how many classes the views of the fewest images that anything is chosen on still fit."""
    return MOST_BYTES // (BYTES_PER_NUMBER * replicas * ALL_VIEWS * FEWEST_IMAGES)


def keeps_views(ensemble: EvaluatedEnsemble, images: int, image_ids: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return whether the views of each of these images are kept, as a hash of its id decides."""
    is_kept: npt.NDArray[np.bool_] = hash_shares(image_ids) < kept_images(ensemble, images) / max(1, images)
    return is_kept


def write_views(run: Storage, name: str, ensemble: EvaluatedEnsemble, rows: ViewProbabilities) -> None:
    """Write the views of the images of a shard that are kept as one complete file."""
    values = pa.array(rows.probabilities.reshape(-1), pa.float16())
    columns = [
        pa.array(rows.image_ids, pa.string()),
        pa.array(rows.labels, pa.int32()),
        pa.FixedSizeListArray.from_arrays(values, rows.probabilities[0].size),
    ]
    table = pa.table(columns, COLUMNS).replace_schema_metadata({METADATA_KEY: json.dumps(ensemble.to_dict())})
    write_table(run, f"{VIEW_PROBABILITIES}/{name}", table)


def read_views(run: Storage, ensemble: EvaluatedEnsemble) -> ViewProbabilities | None:
    """Return all views that a run keeps of this very ensemble, in the order of the images' ids; None if it keeps none.

    Runs of earlier versions keep none; neither do evaluations without 144 crops.

    Raises:
        UserError: a file is damaged.
    """
    read = concurrently(lambda name: _read_table(run, name), run.files(VIEW_PROBABILITIES))
    tables = [table for table in read if _about(table) == ensemble.to_dict()]
    if not tables:
        return None
    ids = [name for table in tables for name in table.column("image_id").to_pylist()]
    order = np.argsort(np.array(ids, dtype=object), kind="stable")
    labels = np.concatenate([table.column("label").to_numpy() for table in tables])
    return ViewProbabilities([ids[row] for row in order], labels[order], _probabilities(tables, ensemble, order))


def _probabilities(
    tables: list[pa.Table], ensemble: EvaluatedEnsemble, order: npt.NDArray[np.int64]
) -> npt.NDArray[np.float16]:
    """Return the rows of all tables in this order; each table's memory is free once it has been copied."""
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    shape = len(ensemble.replicas), ALL_VIEWS, len(ensemble.classes)
    rows = np.empty((len(order), *shape), np.float16)
    first = 0
    tables.reverse()
    while tables:
        table = tables.pop()
        values = table.column("probabilities").combine_chunks().flatten().to_numpy().reshape(-1, *shape)
        rows[places[first : first + len(values)]] = values
        first += len(values)
    return rows


def _read_table(run: Storage, name: str) -> pa.Table:
    file = f"{VIEW_PROBABILITIES}/{name}"
    table = read_table(run, file)
    if table is None or _about(table) is None or table.column_names != list(COLUMNS):
        raise UserError(
            f"{run.below(file)} is damaged; restore it, or delete it and {run.below(f'{PREDICTIONS}/{name}')}, and "
            "evaluate again"
        )
    return table


def _about(table: pa.Table) -> dict[str, Any] | None:
    """Return the ensemble that a table is about, as a dict; None if the table does not say."""
    try:
        about: dict[str, Any] = json.loads((table.schema.metadata or {})[METADATA_KEY])
    except (KeyError, ValueError):
        return None
    return about
