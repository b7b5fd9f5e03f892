"""Soups of a run: which replicas each averages, and where its weights and predictions are.

The folder ``soup/`` is laid out like a run: soup number n is its replica n.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipelines.errors import UserError
from pipelines.run.directory import SOUP, SOUPS_JSON, replica_number
from pipelines.run.predictions import EvaluatedEnsemble
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage

# The uniform soup, the greedy one, and one for each fold of the images.
MOST_SOUPS = 7
# Validation images on which greedy soups are chosen, by a hash of their ids: an error is known to within three points.
MOST_CHOICE_IMAGES = 1_000
# Numbers of the replicas that are averaged.
Members = tuple[int, ...]


@dataclass(frozen=True)
class Soups:
    """The soups of a run.

    Attributes:
        replicas: numbers of the run's replicas that could be averaged.
        weights_digests: SHA-256 of the weights of each of them.
        networks: members of each averaged network, which have several.
        uniform: members of the uniform soup, all of them.
        greedy: members of the greedy soup, chosen on all images; a single one is that replica itself.
        greedy_by_fold: members of the greedy soup for the images of each fold, chosen on the other folds.
        statistics_images: training images on which statistics of batch normalisation were estimated.
        chosen_on_images: validation images on which the greedy soup was chosen.
        are_predicted: whether the predictions of all networks are complete.
    """

    replicas: tuple[int, ...]
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
        members |= {name: tuple(values[name]) for name in ("replicas", "weights_digests", "uniform", "greedy")}
        return cls(**{**values, **members})

    def with_numbers(self) -> "Soups":
        """Return these soups, whose members are places in the list of the replicas, with the replicas' numbers."""
        return replace(
            self,
            networks=tuple(at(self.replicas, places) for places in self.networks),
            uniform=at(self.replicas, self.uniform),
            greedy=at(self.replicas, self.greedy),
            greedy_by_fold=tuple(at(self.replicas, places) for places in self.greedy_by_fold),
        )


def check_soup(recipe: Recipe, *, soup: bool) -> None:
    """Refuse soups of replicas whose weights have no average, before anything is computed.

    Raises:
        UserError: one replica is wider than the others.
    """
    if soup and recipe.wide_replica_width is not None:
        raise UserError(
            "--soup averages weights, but those of a wider replica have other shapes: leave out --soup or "
            "--wide-replica-width"
        )


def read_soups(run: Storage, ensemble: EvaluatedEnsemble) -> Soups | None:
    """Return the soups that a run keeps of exactly the replicas of ``ensemble``; None if it keeps none.

    Raises:
        DamagedFileError: the file is damaged, or was edited.
    """

    def soups_of(values: dict[str, Any]) -> Soups | None:
        if tuple(values["weights_digests"]) != ensemble.weights_digests:
            return None
        if "replicas" in values:
            return Soups.from_dict(values)
        # Members in files of earlier versions are places in this list.
        return Soups.from_dict({**values, "replicas": numbers_of(ensemble)}).with_numbers()

    return run.read_as(SOUPS_JSON, soups_of) if run.exists(SOUPS_JSON) else None


def soups_are_predicted(run: Storage, replicas: Sequence[int]) -> bool:
    """Return whether a run keeps soups of exactly these replicas with complete predictions."""
    if not run.exists(SOUPS_JSON):
        return False
    values = run.read_json(SOUPS_JSON, needed=("weights_digests",))
    # Files of earlier versions have no numbers.
    are_same = values.get("replicas", list(replicas)) == list(replicas)
    return bool(values.get("are_predicted")) and are_same and len(values["weights_digests"]) == len(replicas)


def write_soups(run: Storage, soups: Soups) -> None:
    """Write soups.json."""
    run.write_json(SOUPS_JSON, asdict(soups))


def folder_of_soups(run: Storage) -> Storage:
    """Return the folder of the soups' weights and predictions."""
    return run.below(SOUP)


def numbers_of(ensemble: EvaluatedEnsemble) -> tuple[int, ...]:
    """Return the numbers of an ensemble's replicas, which differ from their places where a replica failed."""
    return tuple(map(replica_number, ensemble.replicas))


def at(replicas: tuple[int, ...], places: tuple[int, ...]) -> Members:
    """Return the numbers of the replicas at these places of a list."""
    return tuple(replicas[place] for place in places)
