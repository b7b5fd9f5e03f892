"""Predictions in files: one row an image, a probability vector for each replica and crop policy.

The files are the ledger of the evaluation: a shard is done when its file is there, whole, and of this very ensemble.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.storage import Storage

METADATA_KEY = b"googlenet_ensemble"


@dataclass(frozen=True)
class Ensemble:
    """What predictions are of: everything that decides them, and nothing else.

    Attributes:
        replicas: names, in the order of the probability columns.
        weights_digests: SHA-256 of each replica's weights.
        policies: numbers of crops.
        crop_px: side of the crops.
        classes: class names by label.
        dataset_digest: of the images.
    """

    replicas: tuple[str, ...]
    weights_digests: tuple[str, ...]
    policies: tuple[int, ...]
    crop_px: int
    classes: tuple[str, ...]
    dataset_digest: str

    def to_dict(self) -> dict[str, Any]:
        """As it comes back from JSON."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Ensemble":
        """Inverse of :meth:`to_dict`."""
        fields: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
        return cls(**fields)

    def column(self, replica: int, policy: int) -> str:
        """Name of the probability column of the replica at position ``replica``."""
        return f"{self.replicas[replica]}/{policy}_crops"

    def schema(self) -> pa.Schema:
        """Columns of a prediction file; ``views`` holds the number of views averaged, by replica and policy."""
        vector = pa.list_(pa.float32(), len(self.classes))
        columns = [("image_id", pa.string()), ("label", pa.int32()), ("views", pa.list_(pa.int32()))]
        columns += [(self.column(k, p), vector) for k in range(len(self.replicas)) for p in self.policies]
        return pa.schema(columns, metadata={METADATA_KEY: json.dumps(self.to_dict())})


@dataclass(frozen=True)
class Predicted:
    """Rows of prediction files: ids, labels (N,), views (N, K, P), probabilities (N, K, P, C) float32."""

    image_ids: list[str]
    labels: npt.NDArray[np.int32]
    views: npt.NDArray[np.int32]
    probabilities: npt.NDArray[np.float32]


def file_name(shard: int) -> str:
    """Name of the file of a shard of the evaluation."""
    return f"{shard:06d}.parquet"


def write_predictions(storage: Storage, name: str, ensemble: Ensemble, rows: Predicted) -> None:
    """Write a shard's rows as a whole file."""
    columns: list[pa.Array] = [
        pa.array(rows.image_ids, pa.string()),
        pa.array(rows.labels, pa.int32()),
        pa.array(list(rows.views.reshape(len(rows.image_ids), -1)), pa.list_(pa.int32())),
    ]
    for replica in range(len(ensemble.replicas)):
        for position in range(len(ensemble.policies)):
            flat = pa.array(rows.probabilities[:, replica, position].reshape(-1), pa.float32())
            columns.append(pa.FixedSizeListArray.from_arrays(flat, len(ensemble.classes)))
    table = pa.Table.from_arrays(columns, schema=ensemble.schema())
    with storage.writing(name) as stream:
        pq.write_table(table, stream)


def read_ensemble(storage: Storage, name: str) -> Ensemble | None:
    """Whose predictions a file holds; None where it cannot be read as such."""
    try:
        metadata = pq.read_schema(storage.path(name), filesystem=storage.filesystem).metadata or {}
        return Ensemble.from_dict(json.loads(metadata[METADATA_KEY]))
    except (pa.ArrowInvalid, KeyError, TypeError, ValueError):
        return None


def read_predictions(storage: Storage, names: Sequence[str], ensemble: Ensemble) -> Iterator[Predicted]:
    """The rows of prediction files, a file at a time, so that memory does not grow with their number."""
    classes = len(ensemble.classes)
    for name in names:
        table = pq.read_table(storage.path(name), filesystem=storage.filesystem)
        vectors = [
            [_vectors(table.column(ensemble.column(k, p)), classes) for p in ensemble.policies]
            for k in range(len(ensemble.replicas))
        ]
        yield Predicted(
            table.column("image_id").to_pylist(),
            table.column("label").to_numpy(),
            np.array(table.column("views").to_pylist(), dtype=np.int32).reshape(
                len(table), len(ensemble.replicas), len(ensemble.policies)
            ),
            np.stack([np.stack(by_policy, axis=1) for by_policy in vectors], axis=1),
        )


def _vectors(column: pa.ChunkedArray, classes: int) -> npt.NDArray[np.float32]:
    flat: npt.NDArray[np.float32] = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(-1, classes)
