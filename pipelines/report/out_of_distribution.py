"""Photographs of something else: how well each measure of being unsure tells them from images of the classes."""

from collections import Counter
from collections.abc import Mapping
from typing import cast

import numpy as np
import numpy.typing as npt

from googlenet.evaluation.out_of_distribution import area_under_roc, false_positive_interval, false_positives
from googlenet.evaluation.selective import uncertainties
from pipelines.report.intervals import with_exact_bounds
from pipelines.report.numbers import digest_of_name
from pipelines.report.schema_of_certainty import ApartRow
from pipelines.report.tally import checked_predictions
from pipelines.run.directory import APART
from pipelines.run.predictions import EvaluatedEnsemble
from pipelines.run.storage import Storage, short_name


def keep_apart(run: Storage, inside: EvaluatedEnsemble, other: Storage, outside: EvaluatedEnsemble, data: str) -> None:
    """Judge the predictions of ``other``, images of something else, against those of ``run``; keep it for reports.

    ``data`` is the path or URI of these images; those of the same path that were judged before are replaced.
    """
    ours, theirs = _all_uncertainties(run, inside), _all_uncertainties(other, outside)
    known = read_apart(run, inside)
    # By name; files of earlier versions have none.
    folders: dict[str, str] = run.read_json(APART).get("folders", {}) if known else {}
    name = _name_of(data, folders)
    judged = [_row(name, measure, ours[measure], theirs[measure]) for measure in ours]
    # In their old place: metrics of two folders are told apart in the order of the rows.
    place = next((number for number, row in enumerate(known) if row["data"] == name), len(known))
    rows = [*known[:place], *judged, *(row for row in known[place:] if row["data"] != name)]
    kept = {"weights_digests": list(inside.weights_digests), "folders": {**folders, name: data}, "rows": rows}
    run.write_json(APART, kept)


def _name_of(data: str, folders: Mapping[str, str]) -> str:
    """Return the name under which a folder is judged, with a digest if ``folders`` has another one of its name."""
    name = short_name(data) or data
    return name if folders.get(name, data) == data else f"{name}-{digest_of_name(data)}"


def read_apart(run: Storage, ensemble: EvaluatedEnsemble) -> list[ApartRow]:
    """Return what a run keeps about this ensemble and images of something else."""
    if not run.exists(APART):
        return []
    kept = run.read_json(APART)
    return cast("list[ApartRow]", kept["rows"]) if kept["weights_digests"] == list(ensemble.weights_digests) else []


def _all_uncertainties(run: Storage, ensemble: EvaluatedEnsemble) -> dict[str, npt.NDArray[np.float64]]:
    """Return how unsure all models with the most crops are about each image, by measure."""
    seen: Counter[str] = Counter()
    parts = [uncertainties(rows.probabilities[:, :, -1]) for rows in checked_predictions(run, ensemble, seen)]
    return {measure: np.concatenate([part[measure] for part in parts]) for measure in parts[0]}


def _row(name: str, measure: str, inside: npt.NDArray[np.float64], outside: npt.NDArray[np.float64]) -> ApartRow:
    area, interval = area_under_roc(inside, outside)
    passing = 100.0 * false_positives(inside, outside)[:, None]
    low, high = (np.array([100 * bound]) for bound in false_positive_interval(inside, outside))
    bounds = with_exact_bounds(passing, low, high)
    row = {
        "data": name,
        "images": len(outside),
        "measure": measure,
        "area_under_roc": area,
        "area_under_roc_ci95": list(interval),
        "false_positives": float(passing.mean()),
        "false_positives_ci95": [float(bound[0]) for bound in bounds],
    }
    return cast("ApartRow", row)
