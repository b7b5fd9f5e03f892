"""Errors and scores of a run by image and by cell of its table, kept to compare two runs image by image."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from googlenet.evaluation.crops import CROP_POLICIES, Policy, is_chosen, short_policy
from pipelines.errors import UserError
from pipelines.run.directory import OUTCOMES, SCORES
from pipelines.run.storage import MADE_AGAIN, Storage
from pipelines.run.tables import read_table, write_table

TOP = ("top1", "top5")
Floats = npt.NDArray[np.float64]


def cell_name(models: int, policy: Policy | str) -> str:
    """Return the name of a cell: ``7x144``, or models x scales for scales chosen by the user, ``7x256_320px``.

    MLflow does not allow a plus sign in the name of a metric. Views that a run has chosen are ``7xbest24``.
    """
    return f"{models}x{policy_in_metrics(policy)}"


def policy_in_metrics(policy: Policy | str) -> str:
    """Return the name of a crop policy in the name of a metric: ``144``, ``256_320px``, ``best24``."""
    if is_chosen(policy):
        return short_policy(policy).replace(":", "")
    known = {str(standard) for standard in CROP_POLICIES}
    return str(policy) if str(policy) in known else f"{str(policy).replace('+', '_')}px"


def soup_cell(name: str, policy: str) -> str:
    """Return the name of a soup's cell, beside those of the table: ``uniform_soup_1x144``."""
    return f"{name}_soup_{cell_name(1, policy)}"


def write_outcomes(
    run: Storage,
    image_ids: Sequence[str],
    shares: Floats,
    policies: Sequence[Policy],
    others: Mapping[str, npt.NDArray[np.bool_]],
) -> None:
    """Write the share of the ensembles of each size that answers each image wrongly.

    Args:
        run: the run directory.
        image_ids: N ids.
        shares: (N, S, P, 2) for S ensemble sizes, P policies, top-1 and top-5.
        policies: P crop policies.
        others: which images networks beside the ensembles answer wrongly, by column.
    """
    columns: dict[str, Any] = {"image_id": pa.array(image_ids, pa.string())}
    for size, policy, top in np.ndindex(shares.shape[1:]):
        columns[f"{TOP[top]}_wrong/{cell_name(size + 1, policies[policy])}"] = pa.array(shares[:, size, policy, top])
    columns |= {name: pa.array(wrong.astype(np.float64)) for name, wrong in others.items()}
    write_table(run, OUTCOMES, pa.table(columns))


def write_scores(run: Storage, image_ids: Sequence[str], scores: Mapping[str, Floats]) -> None:
    """Write scores of images, with and without a temperature; of very many images, those it was judged on."""
    columns: dict[str, Any] = {"image_id": pa.array(image_ids, pa.string())}
    columns |= {name: pa.array(values) for name, values in scores.items()}
    write_table(run, SCORES, pa.table(columns))


def read_scores(run: Storage) -> dict[str, Any]:
    """Return the columns of :func:`write_scores` by name; none for a run of an earlier version, or of few images."""
    return _columns(run, SCORES) if run.exists(SCORES) else {"image_id": []}


def read_outcomes(run: Storage) -> dict[str, Any]:
    """Return the columns of :func:`write_outcomes` by name: N ids, and (N,) for each cell and kind of error.

    Raises:
        UserError: the file is damaged.
    """
    return _columns(run, OUTCOMES)


def _columns(run: Storage, file: str) -> dict[str, Any]:
    table = read_table(run, file)
    if table is None:
        raise UserError(f"{run.below(file)} is damaged; restore it, or {MADE_AGAIN}")
    ids = table.column("image_id").to_pylist()
    cells = {name: table.column(name).to_numpy() for name in table.column_names if name != "image_id"}
    return {"image_id": ids, **cells}
