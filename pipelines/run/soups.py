"""Soups of a run: which replicas each averages, and where its weights and predictions are.

The folder ``soup/`` is laid out like a run: soup number n is its replica n.
"""

from dataclasses import asdict, dataclass
from typing import Any

from pipelines.errors import UserError
from pipelines.run.directory import SOUP, SOUPS_JSON
from pipelines.run.predictions import EvaluatedEnsemble
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage

# Places of the replicas that are averaged, as googlenet.evaluation.soup has them, which imports PyTorch.
Members = tuple[int, ...]


@dataclass(frozen=True)
class Soups:
    """The soups of a run.

    Attributes:
        weights_digests: SHA-256 of the weights of each replica.
        networks: members of each averaged network, which have several.
        uniform: members of the uniform soup, all replicas.
        greedy: members of the greedy soup, chosen on all images; a single one is that replica itself.
        greedy_by_fold: members of the greedy soup for the images of each fold, chosen on the other folds.
        statistics_images: training images on which statistics of batch normalisation were estimated.
        chosen_on_images: validation images on which the greedy soup was chosen.
        are_predicted: whether the predictions of all networks are complete.
    """

    weights_digests: tuple[str, ...]
    networks: tuple[Members, ...]
    uniform: Members
    greedy: Members
    greedy_by_fold: tuple[Members, ...]
    statistics_images: int
    chosen_on_images: int
    are_predicted: bool = False

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Soups":
        """Inverse of ``asdict``, from JSON."""
        members = {name: tuple(map(tuple, values[name])) for name in ("networks", "greedy_by_fold")}
        members |= {name: tuple(values[name]) for name in ("weights_digests", "uniform", "greedy")}
        return cls(**{**values, **members})


def check_soup(recipe: Recipe, *, soup: bool) -> None:
    """Refuse soups of replicas whose weights have no average, before anything is computed.

    Raises:
        UserError: one replica is wider than the others.
    """
    if soup and recipe.wide_replica_width is not None:
        raise UserError("--soup averages weights, and a wider replica has others: leave out one of the two")


def read_soups(run: Storage, weights_digests: tuple[str, ...]) -> Soups | None:
    """Return the soups that a run keeps of exactly these replicas; None if it keeps none."""
    if not run.exists(SOUPS_JSON):
        return None
    soups = Soups.from_dict(run.read_json(SOUPS_JSON))
    return soups if soups.weights_digests == weights_digests else None


def write_soups(run: Storage, soups: Soups) -> None:
    """Write soups.json."""
    run.write_json(SOUPS_JSON, asdict(soups))


def folder_of_soups(run: Storage) -> Storage:
    """Return the folder of the soups' weights and predictions."""
    return run.below(SOUP)


def names_of(members: Members, ensemble: EvaluatedEnsemble) -> list[str]:
    """Return the names of the replicas at these places of an ensemble."""
    return [ensemble.replicas[place] for place in members]
