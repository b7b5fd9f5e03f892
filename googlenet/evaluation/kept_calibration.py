"""Content of calibration.json: temperatures and scores, fitted on a run's validation images for use on others."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from googlenet.evaluation.conformal import UNPENALISED, SetRule, fewest_scores, highest_coverage, threshold
from googlenet.evaluation.crops import Policy

CALIBRATION_JSON = "calibration.json"
# Key of the SHA-256 of the weights that something was fitted for.
DIGESTS = "weights_digests"


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
        models_between: temperatures of smaller ensembles of several of the replicas, by their number as text.
    """

    weights_digests: tuple[str, ...]
    dataset_digest: str
    images: int
    one_model: dict[str, float]
    all_models: dict[str, float]
    label_mass: dict[str, list[float]] = field(default_factory=dict)
    label_ranks: dict[str, list[int]] = field(default_factory=dict)
    models_between: dict[str, dict[str, float]] = field(default_factory=dict)

    def temperature(self, models: int, policy: Policy) -> float | None:
        """Return the temperature for a number of models; None for a number or a policy that it was not fitted for."""
        if models == len(self.weights_digests):
            return self.all_models.get(str(policy))
        return (self.one_model if models == 1 else self.models_between.get(str(models), {})).get(str(policy))

    def for_weights(self, digests: Sequence[str]) -> "KeptCalibration | None":
        """Return the calibration of an ensemble of some of the replicas, without sets; None if others are among them.

        Args:
            digests: SHA-256 of each replica's weights, in any order, on which no average depends.
        """
        if sorted(digests) == sorted(self.weights_digests):
            return self
        if not set(digests) <= set(self.weights_digests) or len(set(digests)) < len(digests):
            return None
        policies = (*self.one_model, *self.all_models)
        temperatures = {policy: self.temperature(len(digests), policy) for policy in policies}
        of_size = {policy: temperature for policy, temperature in temperatures.items() if temperature is not None}
        return KeptCalibration(tuple(digests), self.dataset_digest, self.images, self.one_model, of_size)

    def threshold(self, policy: Policy, coverage: float, rule: SetRule = UNPENALISED) -> float | None:
        """Return the threshold of sets that hold the label with probability ``coverage``; None for another policy."""
        name = str(policy)
        if name not in self.label_mass:
            return None
        scores = np.array(self.label_mass[name]) + rule.of_ranks(np.array(self.label_ranks[name], np.int64))
        return threshold(scores, coverage)

    def images_missing_for(self, coverage: float) -> str:
        """Return why sets cannot hold the label with probability ``coverage``, without a subject; empty if they can.

        Of too few images, the threshold is infinite, and every set holds all classes.
        """
        if (fewest := fewest_scores(coverage)) <= self.images:
            return ""
        highest = highest_coverage(self.images)
        has = f"the calibration has {self.images}: at most {highest:g} can be promised"
        return f"needs {fewest:,} validation images or more, and {has}"

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON would give them back."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "KeptCalibration":
        """Inverse of :meth:`to_dict`.

        Raises:
            KeyError, TypeError: a value is missing, or is none of these.
        """
        return cls(**{**values, "weights_digests": tuple(values["weights_digests"])})
