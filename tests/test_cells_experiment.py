"""Pairs of cells of the table: their errors one by one, and the report's intervals."""

import re

import numpy as np
import pytest

from experiments.answers import Answers
from experiments.cells import cells_of, print_pairs
from googlenet.evaluation.metrics import EnsembleTally, percentile_bounds
from googlenet.evaluation.two_way import two_way_intervals


@pytest.fixture(scope="module")
def answers() -> Answers:
    """Return the answers of three replicas to 50 images of seven classes, by two policies, the second the better."""
    scores = np.random.default_rng(0).random((50, 3, 2, 7))
    scores[..., 0] += np.array([0.2, 0.5])
    probabilities = scores / scores.sum(axis=3, keepdims=True)
    return Answers(probabilities.astype(np.float32), np.zeros(50, np.int32), (1, 10), "digest")


def test_the_cells_hold_the_errors_of_single_models_and_of_all_together(answers: Answers) -> None:
    cells = cells_of(answers)
    assert list(cells.names) == ["1 x 1", "1 x 10", "3 x 1", "3 x 10"]
    expected = np.concatenate([answers.single_errors(), answers.errors(range(3))], axis=1)
    assert cells.by_image[0] == pytest.approx(expected)
    together = answers.probabilities.mean(axis=1)
    better = (together > together[:, :, :1]).sum(axis=2)
    assert cells.by_image[1][:, 2:] == pytest.approx(100.0 * (better >= 5))


def test_against_one_model_with_one_crop_the_intervals_are_those_of_the_report(answers: Answers) -> None:
    tally = EnsembleTally(3, 2)
    tally.update(answers.probabilities, answers.labels)
    _, differences = two_way_intervals(tally)  # (bounds, sizes, policies, measures)
    resampled = cells_of(answers).resampled
    for measure in range(2):
        found = np.clip(percentile_bounds(resampled[measure] - resampled[measure][:, :1]), -100, 100)
        assert found == pytest.approx(100 * differences[..., measure][:, [0, -1]].reshape(2, 4))


def test_each_pair_has_a_row_with_the_later_cell_against_the_earlier_one(
    answers: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = cells_of(answers)
    print_pairs(cells)
    rows = re.findall(r"^\| ([\dx ]+) against ([\dx ]+) \| ([-+.\d]+) ", capsys.readouterr().out, re.MULTILINE)
    assert len(rows) == 2 * 6
    means = dict(zip(cells.names, cells.by_image[0].mean(axis=0), strict=True))
    for later, earlier, difference in rows[:6]:
        assert float(difference) == pytest.approx(means[later] - means[earlier], abs=0.005)
    assert ("1 x 10", "1 x 1") in [row[:2] for row in rows]
