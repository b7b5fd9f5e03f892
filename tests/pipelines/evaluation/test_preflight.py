"""Tests of the comparison of two arithmetics, against sets counted by hand."""

import numpy as np

from pipelines.evaluation.preflight import agreement_percent


def test_agreement_is_of_sets_of_answers_and_ties_go_to_the_lower_class() -> None:
    exact = np.array([[5, 4, 3, 2, 1, 0.9, 0], [5, 4, 3, 2, 1, 0.9, 0]], np.float32)
    tied = np.array([[4, 5, 3, 2, 1, 1, 0], [5, 4, 3, 2, 0.9, 1, 0]], np.float32)
    assert agreement_percent(exact, tied, answers=1) == 50  # the first two answers of the first image change places
    assert agreement_percent(exact, tied, answers=5) == 50  # the fifth and sixth of the second do
    assert agreement_percent(exact[None], tied[None], answers=7) == 100
