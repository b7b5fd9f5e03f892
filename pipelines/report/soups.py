"""Errors of soups, each image judged with a soup that was chosen on other images."""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from googlenet.evaluation.crops import num_views
from googlenet.evaluation.metrics import top_k_errors
from googlenet.evaluation.temperature import folds_of
from pipelines.errors import UserError
from pipelines.job.console import complain
from pipelines.report.intervals import error_interval
from pipelines.report.outcomes import TOP, soup_cell
from pipelines.report.schema_of_spending import SoupRow
from pipelines.report.tally import checked_predictions
from pipelines.run.directory import PREDICTIONS, replica_name
from pipelines.run.predictions import EvaluatedEnsemble, file_name, read_ensemble
from pipelines.run.soups import Members, Soups, folder_of_soups, read_soups
from pipelines.run.storage import Storage

Wrong = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class JudgedSoups:
    """Soups of a run, judged.

    Attributes:
        rows: their errors by crop policy.
        outcomes: errors by image, in the order of the ids asked for, by the name of the column in outcomes.parquet.
    """

    rows: list[SoupRow]
    outcomes: dict[str, Wrong]


def judge_soups(run: Storage, ensemble: EvaluatedEnsemble, ids: list[str]) -> JudgedSoups | None:
    """Return the errors of the soups on the images ``ids``; None if the run has none that are predicted.

    A warning says so where their predictions were deleted or damaged: a report without soups is complete.
    """
    soups, folder = read_soups(run, ensemble), folder_of_soups(run)
    if not soups or not soups.are_predicted:
        return None
    of_networks = _wrong_of_networks(folder, run, ensemble, ids)
    if of_networks is None:
        return None
    of_replicas = zip(soups.replicas, _wrong(run, run, ensemble, ids), strict=True)
    wrong: dict[Members, Wrong] = {(replica,): errors for replica, errors in of_replicas}
    wrong |= dict(zip(soups.networks, of_networks, strict=True))
    greedy = _by_fold(soups, wrong, ids)
    single = np.mean([wrong[replica,] for replica in soups.replicas], axis=0)
    rows, outcomes = [], {}
    for name, members, errors in (("uniform", soups.uniform, wrong[soups.uniform]), ("greedy", soups.greedy, greedy)):
        about = {"soup": name, "members": [replica_name(member) for member in members]}
        about |= {"judged_on": "other_folds"} if name == "greedy" else {}
        for place, policy in enumerate(ensemble.policies):
            cell = {"crops": num_views(policy), "policy": str(policy)}
            rows.append(cast("SoupRow", {**about, **cell, **_scores(errors[:, place], single[:, place, 0])}))
            for column, top in enumerate(TOP):
                outcomes[f"{top}_wrong/{soup_cell(name, str(policy))}"] = errors[:, place, column]
    return JudgedSoups(rows, outcomes)


def _by_fold(soups: Soups, wrong: dict[Members, Wrong], ids: list[str]) -> Wrong:
    """Return the errors of greedy soups (N, P, 2), on each fold's images of the soup that the others chose."""
    folds, errors = folds_of(ids), np.empty_like(wrong[soups.uniform])
    for fold, members in enumerate(soups.greedy_by_fold):
        errors[folds == fold] = wrong[members][folds == fold]
    return errors


def _wrong_of_networks(folder: Storage, run: Storage, ensemble: EvaluatedEnsemble, ids: list[str]) -> Wrong | None:
    """Return the errors of the averaged networks as :func:`_wrong`; None if they lack predictions."""
    storage, name = folder.below(PREDICTIONS), file_name(0)
    averaged = read_ensemble(storage, name) if storage.exists(name) else None
    if averaged and averaged.policies != ensemble.policies:
        return None
    with suppress(UserError):
        if averaged:
            return _wrong(folder, run, averaged, ids)
    complain(f"warning: no soups in the report: predictions in {storage} are missing or damaged; redo them with --soup")
    return None


def _wrong(folder: Storage, run: Storage, ensemble: EvaluatedEnsemble, ids: list[str]) -> npt.NDArray[np.bool_]:
    """Return (K, N, P, 2): which images each network of an ensemble answers wrongly, by policy, top 1 and top 5."""
    at = {image_id: place for place, image_id in enumerate(ids)}
    wrong = np.zeros((len(ensemble.replicas), len(ids), len(ensemble.policies), len(TOP)), bool)
    for rows in checked_predictions(folder, ensemble, Counter(), images=run):
        places = [at[image_id] for image_id in rows.image_ids]
        for replica, policy in np.ndindex(len(ensemble.replicas), len(ensemble.policies)):
            wrong[replica, places, policy] = top_k_errors(rows.probabilities[:, replica, policy], rows.labels)
    return wrong


def _scores(wrong: Wrong, single: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Return the errors of a soup from (N, 2), and the difference from the mean of one replica's."""
    top1 = 100.0 * wrong[:, 0]
    columns = np.stack([top1, top1 - 100 * single], axis=1)
    low, high = error_interval(columns, errors=1)
    return {
        "images": len(wrong),
        "top1_error": float(top1.mean()),
        "top1_ci95": [float(low[0]), float(high[0])],
        "top5_error": float(100 * wrong[:, 1].mean()),
        "top1_difference": float(columns[:, 1].mean()),
        "top1_difference_ci95": [float(low[1]), float(high[1])],
    }
