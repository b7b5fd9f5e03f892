"""Prediction files: one row per image, with a probability vector for each replica and crop policy.

The files are the ledger of the evaluation: a shard is done if its file exists, is complete, and is of this ensemble.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from googlenet.evaluation.crops import CROP_POLICIES, Policy, View, is_chosen, num_views, view_groups, views_of_all
from googlenet.network.arithmetic import Arithmetic
from pipelines.errors import UserError
from pipelines.run.concurrency import concurrently
from pipelines.run.storage import MADE_AGAIN, Storage
from pipelines.run.tables import read_schema, read_table, write_table

METADATA_KEY = b"googlenet_ensemble"
COST_KEY = b"googlenet_cost"
# A shard is the unit of transfer, and of the work that a crash can cost: at 224 px about 1.5 MB per image.
IMAGES_PER_SHARD = 16
# What `file_name` returns.
PREDICTION_FILE = re.compile(r"\d{6,}\.parquet")
# float32 probabilities, int32 classes.
BYTES_PER_NUMBER = 4


def digest_of_all(weights_digests: Sequence[str]) -> str:
    """Return one digest of the weights of several replicas."""
    return hashlib.sha256("".join(weights_digests).encode()).hexdigest()


@dataclass(frozen=True)
class EvaluatedEnsemble:
    """The ensemble behind predictions: everything that decides them, and nothing else.

    Attributes:
        replicas: names, in the order of the probability columns.
        weights_digests: SHA-256 of each replica's weights.
        policies: crop policies, the one with the fewest views first.
        crop_px: side of the crops in pixels.
        classes: class names by label.
        dataset_digest: digest of the images.
        arithmetic: precision, and whether the network is compiled.
        budget: key of the budget under which predictions stop early; empty if all views are computed.
    """

    replicas: tuple[str, ...]
    weights_digests: tuple[str, ...]
    policies: tuple[Policy, ...]
    crop_px: int
    classes: tuple[str, ...]
    dataset_digest: str
    arithmetic: Arithmetic
    budget: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON would give them back, without an empty budget, as in files of earlier versions."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {name: value for name, value in values.items() if name != "budget" or value}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "EvaluatedEnsemble":
        """Inverse of :meth:`to_dict`."""
        fields: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
        return cls(**{**fields, "arithmetic": Arithmetic.from_dict(values["arithmetic"])})

    @property
    def largest(self) -> Policy:
        """The policy with the most views."""
        return self.policies[-1]

    @cached_property
    def views(self) -> tuple[View, ...]:
        """All views of all policies, in the order of the column ``view_top1``."""
        return views_of_all(self.policies, self.crop_px)

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups of views, in the order of the column ``group_top1``."""
        return tuple(view_groups(self.views))

    def column(self, replica: int, policy: Policy) -> str:
        """Return the name of the probability column of the replica at position ``replica``."""
        return f"{self.replicas[replica]}/{policy_in_columns(policy)}"

    def max_column(self, replica: int) -> str:
        """Return the name of its column of maxima over the views of the policy with the most views."""
        return f"{self.replicas[replica]}/max_pooled"

    def schema(self) -> pa.Schema:
        """Return the columns of a prediction file.

        ``views`` holds the number of views averaged, by replica and policy; ``view_top1`` and ``group_top1`` the most
        likely class for each view and group of views, by each replica and, last, by their average.
        """
        vector = pa.list_(pa.float32(), len(self.classes))
        columns = [("image_id", pa.string()), ("label", pa.int32()), ("views", pa.list_(pa.int32()))]
        columns += [("view_top1", pa.list_(pa.int32())), ("group_top1", pa.list_(pa.int32()))]
        replicas = range(len(self.replicas))
        columns += [(self.column(k, policy), vector) for k in replicas for policy in self.policies]
        columns += [(self.max_column(k), vector) for k in replicas]
        return pa.schema(columns, metadata={METADATA_KEY: json.dumps(self.to_dict())})


def policy_in_columns(policy: Policy) -> str:
    """Return a policy's part of column names: ``144_crops``, ``scales_256+320``, or that of chosen views itself."""
    if is_chosen(policy):
        return str(policy)
    return f"{policy}_crops" if policy in CROP_POLICIES else f"scales_{policy}"


def sorted_policies(policies: Sequence[Policy]) -> tuple[Policy, ...]:
    """Return the policies in order of their number of views."""
    return tuple(sorted(policies, key=lambda policy: (num_views(policy), str(policy))))


@dataclass(frozen=True)
class Cost:
    """Cost of predictions: seconds of one predictor and views computed, summed over the replicas; and the host.

    ``all_passes`` are the views that would have been computed without stopping early; 0 if nothing stopped early.
    """

    seconds: float
    forward_passes: int
    host: str = ""
    all_passes: int = 0


@dataclass(frozen=True)
class Predicted:
    """Rows of prediction files for N images, K replicas, P policies, V views, G groups and C classes.

    Attributes:
        image_ids: N ids.
        labels: (N,), -1 for images without a label.
        views: (N, K, P) numbers of views averaged.
        probabilities: (N, K, P, C) float32.
        max_pooled: (N, K, C) float32.
        view_top1: (N, K + 1, V) classes.
        group_top1: (N, K + 1, G) classes.
    """

    image_ids: list[str]
    labels: npt.NDArray[np.int32]
    views: npt.NDArray[np.int32]
    probabilities: npt.NDArray[np.float32]
    max_pooled: npt.NDArray[np.float32]
    view_top1: npt.NDArray[np.int32]
    group_top1: npt.NDArray[np.int32]


def bytes_per_image(replicas: int, policies: int, classes: int, views: int, groups: int) -> int:
    """Return the uncompressed bytes per image in a prediction file: vectors, maxima and top-1 classes."""
    numbers = replicas * (policies + 1) * classes + (replicas + 1) * (views + groups)
    return BYTES_PER_NUMBER * numbers


def file_name(shard: int) -> str:
    """Return the file name of a shard of the evaluation."""
    return f"{shard:06d}.parquet"


def write_predictions(storage: Storage, name: str, ensemble: EvaluatedEnsemble, rows: Predicted, cost: Cost) -> None:
    """Write a shard's rows as one complete file."""
    images = len(rows.image_ids)
    columns: list[pa.Array] = [
        pa.array(rows.image_ids, pa.string()),
        pa.array(rows.labels, pa.int32()),
        *(
            pa.array(list(values.reshape(images, -1)), pa.list_(pa.int32()))
            for values in (rows.views, rows.view_top1, rows.group_top1)
        ),
    ]
    replicas = range(len(ensemble.replicas))
    vectors = [rows.probabilities[:, k, p] for k in replicas for p in range(len(ensemble.policies))]
    vectors += [rows.max_pooled[:, k] for k in replicas]
    for vector in vectors:
        flat = pa.array(vector.reshape(-1), pa.float32())
        columns.append(pa.FixedSizeListArray.from_arrays(flat, len(ensemble.classes)))
    schema = ensemble.schema()
    schema = schema.with_metadata({**schema.metadata, COST_KEY: json.dumps(asdict(cost)).encode()})
    write_table(storage, name, pa.Table.from_arrays(columns, schema=schema))


def read_ensemble(storage: Storage, name: str) -> EvaluatedEnsemble | None:
    """Return the ensemble whose predictions a file holds; None if it cannot be read as a prediction file."""
    return ensemble_in(read_schema(storage, name))


def ensemble_in(schema: pa.Schema | None) -> EvaluatedEnsemble | None:
    """Return the ensemble that the schema of a file of predictions names; None if it names none."""
    try:
        return EvaluatedEnsemble.from_dict(json.loads(_metadata_of(schema)[METADATA_KEY]))
    except (KeyError, TypeError, ValueError):
        return None


def _metadata_of(schema: pa.Schema | None) -> dict[bytes, bytes]:
    return {} if schema is None else schema.metadata or {}


def read_cost(storage: Storage, name: str) -> Cost:
    """Return the cost of the predictions in a file.

    Raises:
        UserError: the file is damaged.
    """
    try:
        return Cost(**json.loads(_metadata_of(read_schema(storage, name))[COST_KEY]))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{storage.below(name)} is damaged; {MADE_AGAIN}") from error


def read_costs(storage: Storage) -> list[Cost]:
    """Return the costs of the predictions in all files of a folder.

    Raises:
        UserError: a file is damaged.
    """
    return list(concurrently(lambda name: read_cost(storage, name), storage.files("")))


def read_predictions(storage: Storage, names: Sequence[str], ensemble: EvaluatedEnsemble) -> Iterator[Predicted]:
    """Yield the rows of prediction files, a few of which are read ahead: memory does not grow with their number.

    Raises:
        UserError: a file is damaged, or of another ensemble.
    """
    files = concurrently(lambda name: _read_rows(storage, name, ensemble), names)
    for name, rows in zip(names, files, strict=True):
        if rows is None:
            raise UserError(f"{storage.below(name)} is damaged or of another ensemble; {MADE_AGAIN}")
        yield rows


def _read_rows(storage: Storage, name: str, ensemble: EvaluatedEnsemble) -> Predicted | None:
    table = read_table(storage, name)
    if table is None or ensemble_in(table.schema) != ensemble:
        return None
    if not table.schema.equals(ensemble.schema()):  # the footer has no checksum
        return None
    try:
        return _rows_in(table, ensemble)
    except ValueError:  # too few values
        return None


def _rows_in(table: pa.Table, ensemble: EvaluatedEnsemble) -> Predicted:
    replicas, classes = len(ensemble.replicas), len(ensemble.classes)
    vectors = [
        [_vectors(table.column(ensemble.column(k, policy)), classes) for policy in ensemble.policies]
        for k in range(replicas)
    ]
    return Predicted(
        table.column("image_id").to_pylist(),
        table.column("label").to_numpy(),
        _integers(table.column("views"), (replicas, len(ensemble.policies))),
        np.stack([np.stack(by_policy, axis=1) for by_policy in vectors], axis=1),
        np.stack([_vectors(table.column(ensemble.max_column(k)), classes) for k in range(replicas)], axis=1),
        _integers(table.column("view_top1"), (replicas + 1, len(ensemble.views))),
        _integers(table.column("group_top1"), (replicas + 1, len(ensemble.groups))),
    )


def _vectors(column: pa.ChunkedArray, classes: int) -> npt.NDArray[np.float32]:
    flat: npt.NDArray[np.float32] = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(-1, classes)


def _integers(column: pa.ChunkedArray, shape: tuple[int, int]) -> npt.NDArray[np.int32]:
    flat: npt.NDArray[np.int32] = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), *shape)
