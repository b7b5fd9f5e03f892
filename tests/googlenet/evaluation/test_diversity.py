"""Disagreement and gain on hand-made answers."""

import numpy as np

from googlenet.evaluation.diversity import DisagreementTally, gains


def test_disagreement_counts_images_with_different_answers() -> None:
    answers = np.array([[0, 0, 1], [2, 2, 2], [1, 0, 2], [1, 1, 0]])  # 4 images, 3 replicas
    probabilities = np.eye(3)[answers]
    tally = DisagreementTally(3)
    tally.update(probabilities[:1])
    tally.update(probabilities[1:])
    assert tally.percent().tolist() == [[0, 25, 75], [25, 0, 75], [75, 75, 0]]


def test_gain_is_against_the_mean_of_the_two() -> None:
    disagreement = np.array([[0, 40.0], [40.0, 0]])
    (pair,) = gains(disagreement, {(0,): 30.0, (1,): 20.0, (0, 1): 18.0})
    assert pair == {"replicas": [0, 1], "disagreement": 40.0, "gain": 7.0}
