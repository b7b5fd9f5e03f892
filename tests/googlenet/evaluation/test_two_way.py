"""Intervals over images and replicas: against their definition, against the pigeonhole bootstrap, and by coverage."""

from fractions import Fraction
from itertools import combinations
from statistics import NormalDist

import numpy as np
import pytest
from scipy import stats

from googlenet.evaluation.metrics import EnsembleTally, bootstrap_interval, ensemble_errors
from googlenet.evaluation.two_way import resampled_errors, stretch, two_way_intervals
from googlenet.randomness import numpy_generator

REPLICAS = 7
OF_IMAGES, OF_REPLICAS, OF_BOTH = 1.0, 0.4, 0.6  # standard deviations of the score of the right class
MEAN = 0.8


def drawn_run(generator: np.random.Generator, images: int, of_replicas: float = OF_REPLICAS) -> np.ndarray:
    """(N, 7, 1, 2): probabilities that are linear in normal scores; the label is 0, with more than a half."""
    score = MEAN + OF_IMAGES * generator.standard_normal((images, 1))
    score = score + of_replicas * generator.standard_normal((1, REPLICAS))
    score = score + OF_BOTH * generator.standard_normal((images, REPLICAS))
    right = 0.5 + score / 100
    return np.stack([right, 1 - right], axis=-1)[:, :, None]


def tallied(probabilities: np.ndarray) -> EnsembleTally:
    tally = EnsembleTally(*probabilities.shape[1:3])
    tally.update(probabilities, np.zeros(len(probabilities), np.int64))
    return tally


def expected_error(models: int, of_replicas: float = OF_REPLICAS) -> float:
    """The probability that new replicas err on a new image: their mean score is normal."""
    spread = np.sqrt(OF_IMAGES**2 + (of_replicas**2 + OF_BOTH**2) / models)
    return NormalDist().cdf(-MEAN / float(spread))


def test_a_resample_is_the_row_plus_the_pseudo_values_of_the_replicas_drawn() -> None:
    """In exact arithmetic, from the outcomes of every ensemble."""
    images, replicas, resamples = 9, 5, 15
    probabilities = np.random.default_rng(2).dirichlet(np.ones(3), size=(images, replicas, 2))
    labels = np.zeros(images, np.int64)
    tally = EnsembleTally(replicas, 2)
    tally.update(probabilities[:4], labels[:4])
    tally.update(probabilities[4:], labels[4:])
    outcomes = [dict(ensemble_errors(probabilities[:, :, policy], labels)) for policy in range(2)]
    all_images = numpy_generator(0, "bootstrap").multinomial(images, np.full(images, 1 / images), size=resamples)
    all_replicas = numpy_generator(0, "bootstrap", 1).multinomial(replicas, np.full(replicas, 1 / replicas), resamples)
    found = resampled_errors(tally, 0, resamples)

    def error(policy: int, drawn: np.ndarray, ensembles: list[tuple[int, ...]]) -> Fraction:
        wrong = sum(int(drawn @ outcomes[policy][members][:, 0]) for members in ensembles)
        return Fraction(wrong, images * len(ensembles))

    for resample, (drawn, times) in enumerate(zip(all_images, all_replicas, strict=True)):
        for policy in range(2):
            for size in range(1, replicas + 1):
                row = error(policy, drawn, list(combinations(range(replicas), size)))
                left = [tuple(other for other in range(replicas) if other != k) for k in range(replicas)]
                without = [error(policy, drawn, list(combinations(others, min(size, 3)))) for others in left]
                pseudo_values = [replicas * row - (replicas - 1) * value for value in without]
                centre = sum(pseudo_values) / replicas
                moved = sum(int(n) * value for n, value in zip(times, pseudo_values, strict=True)) / replicas - centre
                wanted = float(row) + stretch(replicas) * float(moved)
                assert found[resample, size - 1, policy, 0] == pytest.approx(wanted, abs=1e-12)


def test_of_single_models_images_and_replicas_are_drawn_with_replacement() -> None:
    """The pigeonhole bootstrap by hand, with other random numbers."""
    probabilities = drawn_run(np.random.default_rng(3), 200)
    wrong = (probabilities[:, :, 0, 0] < 0.5).astype(float)
    generator = np.random.default_rng(4)
    means = []
    for _ in range(8_000):
        rows = wrong[generator.integers(0, 200, 200)]
        means.append((rows.mean(), rows[:, generator.integers(0, REPLICAS, REPLICAS)].mean()))
    of_images, of_both = np.array(means).T
    wanted = np.percentile(of_images + stretch(REPLICAS) * (of_both - of_images), [2.5, 97.5])
    (low, high), _ = two_way_intervals(tallied(probabilities))
    assert [low[0, 0, 0], high[0, 0, 0]] == pytest.approx(wanted, abs=0.01)


@pytest.mark.parametrize(("replicas", "tolerance"), [(3, 0.01), (4, 2e-3), (7, 1e-4), (20, 1e-4)])
def test_deviations_of_few_replicas_are_stretched_to_students_t(replicas: int, tolerance: float) -> None:
    """The interval of a mean of normal numbers is t times s over the root of K."""
    values = np.random.default_rng(1).standard_normal(replicas)
    exact = stats.t.ppf(0.975, replicas - 1) * values.std(ddof=1) / np.sqrt(replicas)
    assert 1.95996 * stretch(replicas) * values.std() / np.sqrt(replicas) == pytest.approx(exact, rel=tolerance)


@pytest.fixture(scope="module")
def covered() -> dict[str, np.ndarray]:
    """How often each size's interval holds the error expected of new images and replicas, in 60 runs."""
    generator, hits = np.random.default_rng(5), {"images": [], "both": []}
    truth = np.array([expected_error(models) for models in range(1, REPLICAS + 1)])
    for _ in range(60):
        tally = tallied(drawn_run(generator, 250))
        low, high = bootstrap_interval(tally.by_image()[:, :, 0, 0], resamples=300)
        hits["images"].append((low <= truth) & (truth <= high))
        (low, high), _ = two_way_intervals(tally, resamples=300)
        hits["both"].append((low[:, 0, 0] <= truth) & (truth <= high[:, 0, 0]))
    return {name: np.mean(rows, axis=0) for name, rows in hits.items()}


def test_an_interval_over_images_alone_misses_other_seeds(covered: dict[str, np.ndarray]) -> None:
    assert (covered["images"] < 0.8).all()


def test_an_interval_over_images_and_replicas_covers_other_seeds(covered: dict[str, np.ndarray]) -> None:
    assert (covered["both"] >= 0.9).all()


def test_where_replicas_are_alike_the_interval_is_hardly_wider() -> None:
    generator, ratios = np.random.default_rng(6), []
    for _ in range(5):
        tally = tallied(drawn_run(generator, 1000, of_replicas=0.0))
        low, high = bootstrap_interval(tally.by_image()[:, :, 0, 0], resamples=300)
        (wide_low, wide_high), _ = two_way_intervals(tally, resamples=300)
        ratios.append((wide_high - wide_low)[:, 0, 0] / (high - low))
    assert (np.mean(ratios, axis=0) > 0.98).all()
    assert (np.mean(ratios, axis=0) < 1.4).all()


def test_differences_are_paired_by_image_and_by_replica() -> None:
    probabilities = drawn_run(np.random.default_rng(7), 300)
    tally = tallied(np.concatenate([probabilities, probabilities], axis=2))
    (low, high), (difference_low, difference_high) = two_way_intervals(tally)
    assert (high - low)[0, 1, 0] > 0.05
    assert difference_low[0, 1, 0] == difference_high[0, 1, 0] == 0  # the same answers under another policy
    repeated = two_way_intervals(tally)
    assert np.array_equal(repeated[0], [low, high])


def test_no_bound_of_one_image_lies_beyond_what_errors_and_their_differences_can_be() -> None:
    """Of three replicas, one is wrong; stretched deviations of so few reach beyond 250 percentage points."""
    right = np.array([0.9, 0.1, 0.9])
    bounds, differences = two_way_intervals(tallied(np.stack([right, 1 - right], axis=-1)[None, :, None]))
    assert (bounds.min(), bounds.max()) == (0, 1)
    assert differences.min() == -1
    assert differences.max() <= 1


def test_two_replicas_say_too_little_about_others() -> None:
    with pytest.raises(ValueError, match="spread of 2 replicas"):
        two_way_intervals(tallied(drawn_run(np.random.default_rng(8), 20)[:, :2]))
