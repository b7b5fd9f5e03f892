"""Temperatures of an ensemble: fitted on its predictions, judged on other images, kept in temperatures.json.

One temperature for each crop policy, for one model (shared by the replicas) and for all models.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from googlenet.evaluation.crops import num_views
from googlenet.evaluation.temperature import (
    FEWEST_IMAGES,
    FOLDS,
    Judged,
    cross_fitted,
    fit_temperature,
    folds_of,
    hash_shares,
    with_temperature,
)
from pipelines.report.schema import ReliabilityBin, TemperatureRow
from pipelines.run.directory import TEMPERATURES
from pipelines.run.predictions import EvaluatedEnsemble, Predicted
from pipelines.run.storage import Storage

# 160 MB; of ImageNet's 50,000 images and seven replicas, a temperature is fitted on about 1,900.
KEPT_NUMBERS = 40_000_000

Probabilities = npt.NDArray[np.float32]


class KeptProbabilities:
    """Probabilities of the images on which temperatures are fitted: all, or a share of them chosen by a hash."""

    def __init__(self, ensemble: EvaluatedEnsemble, images: int) -> None:
        numbers = len(ensemble.replicas) * len(ensemble.policies) * len(ensemble.classes)
        self._share = KEPT_NUMBERS / max(1, numbers * images)
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
class Temperatures:
    """Temperatures of an ensemble by the name of the crop policy.

    Attributes:
        weights_digests: SHA-256 of each replica's weights.
        dataset_digest: digest of the images that they were fitted on.
        images: number of these images.
        one_model: for one replica alone.
        all_models: for the average of all replicas.
    """

    weights_digests: tuple[str, ...]
    dataset_digest: str
    images: int
    one_model: dict[str, float]
    all_models: dict[str, float]

    def of(self, models: int, policy: str) -> float | None:
        """Return the temperature for one or for all models; None for a policy that it was not fitted for."""
        all_models = models == len(self.weights_digests)
        return (self.all_models if all_models else self.one_model).get(policy)


@dataclass(frozen=True)
class Calibrated:
    """An ensemble's temperatures, and what they are worth.

    Attributes:
        temperatures: the temperatures.
        rows: scores before and after, by number of models and crop policy.
        reliability: reliability diagram of all models with the most crops.
    """

    temperatures: Temperatures
    rows: list[TemperatureRow]
    reliability: list[ReliabilityBin]


def read_temperatures(run: Storage, ensemble: EvaluatedEnsemble) -> Temperatures | None:
    """Return the temperatures that a run keeps for this very ensemble; None if it keeps none."""
    if not run.exists(TEMPERATURES):
        return None
    values = run.read_json(TEMPERATURES)
    kept = Temperatures(**{**values, "weights_digests": tuple(values["weights_digests"])})
    return kept if kept.weights_digests == ensemble.weights_digests else None


def write_temperatures(run: Storage, temperatures: Temperatures) -> None:
    """Write temperatures.json."""
    run.write_json(TEMPERATURES, json.loads(json.dumps(asdict(temperatures))))


def calibrate(kept: KeptProbabilities, ensemble: EvaluatedEnsemble, known: Temperatures | None) -> Calibrated | None:
    """Return the ensemble's temperatures and what they are worth; None with too few images.

    ``known`` temperatures were fitted on other images and are judged as they are. Without them, each fold of the images
    is judged with what was fitted on the other folds, and those returned are fitted on all.
    """
    if kept.images < FEWEST_IMAGES:
        return None
    ids, probabilities, labels = kept.sorted()
    folds, replicas = folds_of(ids), len(ensemble.replicas)
    everyone = probabilities.mean(axis=1, dtype=np.float64)[None]
    rows, reliability = [], []
    for models in dict.fromkeys((1, replicas)):
        for place, policy in enumerate(ensemble.policies):
            averaged = everyone[:, :, place] if models == replicas else probabilities[:, :, place].swapaxes(0, 1)
            temperature, judged = _judge(averaged, labels, folds, known.of(models, str(policy)) if known else None)
            row: dict[str, Any] = {"models": models, "crops": num_views(policy), "policy": str(policy)}
            row |= {"temperature": temperature, "images": len(ids), "folds": FOLDS}
            row["judged_on"] = "other_images" if known and known.of(models, str(policy)) else "other_folds"
            rows.append(cast("TemperatureRow", {**row, **judged.scores()}))
            reliability = judged.reliability()[1]
    one_model, all_models = (
        {row["policy"]: row["temperature"] for row in rows if row["models"] == models} for models in (1, replicas)
    )
    fitted = Temperatures(ensemble.weights_digests, ensemble.dataset_digest, len(ids), one_model, all_models)
    return Calibrated(known or fitted, rows, cast("list[ReliabilityBin]", reliability))


def _judge(
    averaged: npt.NDArray[Any], labels: npt.NDArray[np.int32], folds: npt.NDArray[np.int64], known: float | None
) -> tuple[float, Judged]:
    """Return the temperature, fitted on all images if none is known, and its scores on images that it never saw."""
    if known:
        return known, Judged(averaged, with_temperature(averaged, known), labels)
    return fit_temperature(averaged, labels), Judged(averaged, cross_fitted(averaged, labels, folds), labels)
