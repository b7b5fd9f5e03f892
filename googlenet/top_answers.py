"""The likeliest classes of an image, as an ensemble says, and how far its replicas agree."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

TOP = 5


def answer_columns(classes: int) -> list[str]:
    """Names of what :func:`top_answers` gives, in their order."""
    places = range(1, min(TOP, classes) + 1)
    return [*(f"{kind}_{place}" for place in places for kind in ("answer", "probability")), "agreement"]


def top_answers(probabilities: Float32[np.ndarray, "k c"], classes: Sequence[str]) -> dict[str, Any]:
    """Of one image: the first five classes of K replicas' mean.

    Args:
        probabilities: (K, C), of each replica.
        classes: C names.

    Returns:
        ``answer_1``, ``probability_1`` and so on, float32 precision; and ``agreement``, the share of the replicas whose
        own first answer is the ensemble's.
    """
    means = probabilities.mean(axis=0, dtype=np.float64)
    order = np.argsort(-means, kind="stable")
    agreement = (probabilities.argmax(axis=1) == order[0]).mean()
    values: list[Any] = []
    for label in order[:TOP]:
        values += [classes[label], float(np.float32(means[label]))]
    return dict(zip(answer_columns(len(classes)), [*values, float(np.float32(agreement))], strict=True))
