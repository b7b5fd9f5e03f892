"""Content of budget.json: the order of the views and the cascade, chosen on a run's validation images."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from googlenet.evaluation.calibration import LEAST_KEPT
from googlenet.evaluation.cascade import BUDGETS, NEVER, Fitted, Stage, Stop
from googlenet.evaluation.crops import CHOSEN, CROP_POLICIES, Policy, chosen_policy, chosen_positions, is_chosen

BUDGET_JSON = "budget.json"


@dataclass(frozen=True)
class KeptBudget:
    """The order of an ensemble's views and its cascade, fitted on all of a run's images that have view probabilities.

    Attributes:
        weights_digests: SHA-256 of each replica's weights.
        dataset_digest: digest of the images that it was fitted on.
        images: number of these images.
        view_order: positions of the 144 views, the most helpful first.
        stages: numbers of replicas and of views at each stage of the cascade.
        temperatures: temperature of the average at each stage, for probabilities of ``LEAST_KEPT`` or more.
        chosen_temperatures: that of the average of all replicas with the first 1, 2, ... views of the order.
        stops: by budget, when the cascade ends.
        promised_points: by budget, the share of answers that it promises to lose at most, in percentage points; empty
            for stops of earlier versions, which have no guarantee.
    """

    weights_digests: tuple[str, ...]
    dataset_digest: str
    images: int
    view_order: tuple[int, ...]
    stages: tuple[Stage, ...]
    temperatures: tuple[float, ...]
    chosen_temperatures: tuple[float, ...]
    stops: dict[str, Stop]
    promised_points: dict[str, float] = field(default_factory=dict)

    @property
    def fitted(self) -> Fitted:
        """The order and the temperatures."""
        return Fitted(np.array(self.view_order, np.int64), self.temperatures)

    def stop(self, budget: str) -> Stop:
        """Return when the cascade ends with a budget.

        Raises:
            ValueError: there is no such budget.
        """
        if budget not in BUDGETS:
            raise ValueError(f"budget must be one of {', '.join(BUDGETS)}, got {budget!r}")
        return self.stops.get(budget, Stop(NEVER, len(self.stages) - 1))

    def temperature(self, policy: Policy) -> float | None:
        """Return the temperature of all replicas with a policy of its chosen views; None for other policies."""
        number = len(chosen_positions(policy))
        is_own = number and policy == chosen_policy(self.view_order[:number])
        return self.chosen_temperatures[number - 1] if is_own else None

    def order_of(self, digests: Sequence[str]) -> list[int] | None:
        """Return the positions of these weights in the order that the budget counts them; None if they are others."""
        if sorted(digests) != sorted(self.weights_digests):
            return None
        return [digests.index(digest) for digest in self.weights_digests]

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON would give them back."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        if not self.promised_points:  # of an earlier version, whose content and key stay
            del values["promised_points"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "KeptBudget":
        """Inverse of :meth:`to_dict`.

        Raises:
            KeyError, TypeError, ValueError: a value is missing, or has another form.
        """
        lists = ("weights_digests", "view_order", "temperatures", "chosen_temperatures")
        tuples = {name: tuple(values[name]) for name in lists}
        stages = tuple((models, views) for models, views in values["stages"])
        stops = {name: Stop(**stop) for name, stop in values["stops"].items()}
        return cls(**{**values, **tuples, "stages": stages, "stops": stops})


@dataclass(frozen=True)
class EarlyStop:
    """A budget of a kept cascade by its name."""

    kept: KeptBudget
    budget: str

    @property
    def stop(self) -> Stop:
        """When the cascade ends."""
        return self.kept.stop(self.budget)

    @property
    def key(self) -> str:
        """The budget, and a digest of all that decides where it stops."""
        content = json.dumps([self.kept.to_dict(), LEAST_KEPT], sort_keys=True)
        return f"{self.budget}:{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def named_policy(policy: Policy, kept: KeptBudget | None) -> Policy:
    """Return a policy with its views: ``best:24`` gets the first 24 of the kept order; the text ``"144"`` is 144.

    Others stay as they are.

    Raises:
        ValueError: the number of views is none, or no order is kept.
    """
    if policy in CROP_POLICIES or str(policy) in map(str, CROP_POLICIES):  # 10.0, too, and not a scale in pixels
        return int(policy)
    text = str(policy).removeprefix(CHOSEN)
    if not is_chosen(policy) or ":" in text:
        return policy
    if not text.isdecimal() or kept is None or not 1 <= int(text) <= len(kept.view_order):
        reason = "needs the order of the views that a run keeps" if kept is None else "must have 1 to 144 views"
        raise ValueError(f"the crop policy {policy} {reason}")
    return chosen_policy(kept.view_order[: int(text)])
