"""Temperatures of an ensemble: fitted on its predictions and judged on other images.

One temperature for each crop policy and ensemble size, shared by the ensembles of that size.
"""

from dataclasses import dataclass, field
from itertools import product
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from googlenet.evaluation.calibration import LEAST_KEPT, LEAST_PROBABILITY
from googlenet.evaluation.conformal import label_mass
from googlenet.evaluation.crops import num_views
from googlenet.evaluation.kept_budget import KeptBudget
from googlenet.evaluation.kept_calibration import KeptCalibration
from googlenet.evaluation.temperature import (
    FEWEST_IMAGES,
    FOLDS,
    JudgedTemperature,
    cross_fitted,
    fit_temperature,
    folds_of,
    hash_shares,
    with_temperature,
)
from pipelines.report.abstention import USUAL_SETS, ReportedSets, selective_rows, set_rows
from pipelines.report.outcomes import cell_name
from pipelines.report.schema_of_certainty import ReliabilityBin, SelectiveRow, SetRow, TemperatureRow
from pipelines.run.predictions import EvaluatedEnsemble, Predicted

# 160 MB; of ImageNet's 50,000 images and seven replicas, a temperature is fitted on about 1,900.
KEPT_NUMBERS = 40_000_000
# Enough for a threshold to within a percent of coverage; the bootstraps take time by image.
KEPT_IMAGES = 10_000

Probabilities = npt.NDArray[np.float32]


class KeptProbabilities:
    """Probabilities of the images on which temperatures are fitted: all, or a share of them chosen by a hash."""

    def __init__(self, ensemble: EvaluatedEnsemble, images: int) -> None:
        numbers = len(ensemble.replicas) * len(ensemble.policies) * len(ensemble.classes)
        self._share = min(KEPT_NUMBERS / numbers, KEPT_IMAGES) / max(1, images)
        self._ids: list[str] = []
        self._probabilities: list[Probabilities] = []
        self._labels: list[npt.NDArray[np.int32]] = []

    def update(self, rows: Predicted) -> None:
        """Add the rows of a file."""
        kept = hash_shares(rows.image_ids) < self._share
        self._ids += [name for name, is_kept in zip(rows.image_ids, kept, strict=True) if is_kept]
        self._probabilities.append(rows.probabilities[kept])
        self._labels.append(rows.labels[kept])

    @property
    def images(self) -> int:
        """Number of images kept."""
        return len(self._ids)

    def sorted(self) -> tuple[list[str], Probabilities, npt.NDArray[np.int32]]:
        """Return N ids, (N, K, P, C) and (N,) in the order of the ids, whichever shard came first."""
        order = np.argsort(np.array(self._ids, dtype=object), kind="stable")
        ids = [self._ids[place] for place in order]
        return ids, np.concatenate(self._probabilities)[order], np.concatenate(self._labels)[order]


@dataclass(frozen=True)
class Calibrated:
    """An ensemble's calibration, and what it is worth.

    Attributes:
        calibration: the temperatures, and the scores of the labels under them.
        rows: scores before and after, by number of models and crop policy.
        reliability: reliability diagram of all models with the most crops.
        sets: prediction sets of all models with the most crops.
        selective: the error that remains if the least sure images are not answered.
        image_ids: ids of the images that all of this was judged on.
        scores: scores of each of these images, by the names that MLflow has for their means.
    """

    calibration: KeptCalibration
    rows: list[TemperatureRow]
    reliability: list[ReliabilityBin]
    sets: list[SetRow]
    selective: list[SelectiveRow]
    image_ids: list[str]
    scores: dict[str, npt.NDArray[np.float64]] = field(compare=False)


def calibrate(
    kept: KeptProbabilities,
    ensemble: EvaluatedEnsemble,
    known: KeptCalibration | None,
    sets: ReportedSets = USUAL_SETS,
    known_budget: KeptBudget | None = None,
) -> Calibrated | None:
    """Return the ensemble's calibration and what it is worth; None with too few images.

    A ``known`` one was fitted on other images and is judged as it is, and so are the temperatures of chosen views in a
    ``known_budget``. Without it, each fold of the images is judged with what was fitted on the other folds, and what is
    returned is fitted on all.
    """
    if kept.images < FEWEST_IMAGES:
        return None
    ids, probabilities, labels = kept.sorted()
    folds, replicas = folds_of(ids), len(ensemble.replicas)
    rows = []
    scores: dict[str, npt.NDArray[np.float64]] = {}
    for models, (place, policy) in product(range(1, replicas + 1), enumerate(ensemble.policies)):
        members = some_ensembles(replicas, models)
        averaged = np.stack([probabilities[:, of_one, place].mean(axis=1, dtype=np.float64) for of_one in members])
        given, least = known.temperature(models, policy) if known else None, LEAST_PROBABILITY
        if given is None and known_budget and models == replicas:
            given, least = known_budget.temperature(policy), LEAST_KEPT
        # A calibration of an earlier version lacks sizes between one and all: they are not judged in another way.
        if known and given is None and 1 < models < replicas:
            continue
        temperature = given or fit_temperature(averaged, labels)
        calibrated = with_temperature(averaged, given, least) if given else cross_fitted(averaged, labels, folds)
        judged = JudgedTemperature(averaged, calibrated, labels)
        row: dict[str, Any] = {"models": models, "crops": num_views(policy), "policy": str(policy)}
        row |= {"ensembles": len(members), "temperature": temperature, "images": len(ids), "folds": FOLDS}
        row["judged_on"] = "other_images" if given else "other_folds"
        rows.append(cast("TemperatureRow", {**row, **judged.scores()}))
        for stage, values in zip(("", "/calibrated"), judged.by_image(), strict=True):
            scores |= {f"{name}/{cell_name(models, policy)}{stage}": score for name, score in values.items()}
    reliability = judged.reliability()[1]
    everyone = probabilities.mean(axis=1, dtype=np.float64)
    fitted = known or _kept(ensemble, rows, everyone, labels)
    judged_sets = set_rows(everyone[:, -1], labels, folds, ensemble, known, sets)
    selective = selective_rows(probabilities[:, :, -1], labels)
    return Calibrated(fitted, rows, reliability, judged_sets, selective, ids, scores)


def some_ensembles(replicas: int, models: int) -> list[list[int]]:
    """Return ensembles of a size that have each replica equally often, which bounds the work.

    They are neighbours when the replicas stand in a ring: of seven replicas, seven of the 35 ensembles of three.
    """
    starts = replicas if models < replicas else 1
    return [[(first + step) % replicas for step in range(models)] for first in range(starts)]


def _kept(
    ensemble: EvaluatedEnsemble,
    rows: list[TemperatureRow],
    everyone: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int32],
) -> KeptCalibration:
    """Return what the run keeps: the temperatures, and the labels' scores under those of all models.

    A temperature that is kept with a budget stays there only: it is of probabilities with another floor.
    """
    sizes: dict[int, dict[str, float]] = {}
    for row in rows:
        of_size = sizes.setdefault(row["models"], {})
        if row["judged_on"] == "other_folds":
            of_size[row["policy"]] = row["temperature"]
    one_model, all_models = sizes[1], sizes[len(ensemble.replicas)]
    between = {str(models): of_size for models, of_size in sizes.items() if 1 < models < len(ensemble.replicas)}
    mass, ranks = {}, {}
    for place, policy in enumerate(map(str, ensemble.policies)):
        if policy not in all_models:
            continue
        of_labels, places = label_mass(with_temperature(everyone[:, place], all_models[policy]), labels)
        mass[policy], ranks[policy] = of_labels.tolist(), places.tolist()
    digests = ensemble.weights_digests, ensemble.dataset_digest
    return KeptCalibration(*digests, len(labels), one_model, all_models, mass, ranks, between)
