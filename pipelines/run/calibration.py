"""Calibration that a run keeps for its ensemble in calibration.json: what was fitted on its validation images."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from googlenet.evaluation.conformal import UNPENALISED, SetRule, threshold
from pipelines.run.directory import CALIBRATION
from pipelines.run.predictions import EvaluatedEnsemble
from pipelines.run.storage import Storage


@dataclass(frozen=True)
class KeptCalibration:
    """Temperatures of an ensemble, and the scores of the labels; by the name of the crop policy.

    Attributes:
        weights_digests: SHA-256 of each replica's weights.
        dataset_digest: digest of the images that it was fitted on.
        images: number of these images.
        one_model: temperature of one replica alone.
        all_models: temperature of the average of all replicas.
        label_mass: probability of all classes likelier than the label, in the average of all models, by image.
        label_ranks: rank of the label, from 0, for the same images.
    """

    weights_digests: tuple[str, ...]
    dataset_digest: str
    images: int
    one_model: dict[str, float]
    all_models: dict[str, float]
    label_mass: dict[str, list[float]] = field(default_factory=dict)
    label_ranks: dict[str, list[int]] = field(default_factory=dict)

    def temperature(self, models: int, policy: str) -> float | None:
        """Return the temperature for one or for all models; None for a policy that it was not fitted for."""
        is_whole = models == len(self.weights_digests)
        return (self.all_models if is_whole else self.one_model).get(policy)

    def threshold(self, policy: str, coverage: float, rule: SetRule = UNPENALISED) -> float | None:
        """Return the threshold of sets that hold the label with probability ``coverage``; None for another policy."""
        if policy not in self.label_mass:
            return None
        scores = np.array(self.label_mass[policy]) + rule.of_ranks(np.array(self.label_ranks[policy], np.int64))
        return threshold(scores, coverage)


def read_calibration(run: Storage, ensemble: EvaluatedEnsemble) -> KeptCalibration | None:
    """Return the calibration that a run keeps for this very ensemble; None if it keeps none."""
    if not run.exists(CALIBRATION):
        return None
    values: dict[str, Any] = run.read_json(CALIBRATION)
    kept = KeptCalibration(**{**values, "weights_digests": tuple(values["weights_digests"])})
    return kept if kept.weights_digests == ensemble.weights_digests else None


def write_calibration(run: Storage, calibration: KeptCalibration) -> None:
    """Write calibration.json."""
    run.write_json(CALIBRATION, json.loads(json.dumps(asdict(calibration))))
