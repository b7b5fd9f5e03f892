"""Refusals of options for which a run has not kept what they need, and lines about what it lacks."""

from collections.abc import Sequence

from googlenet.evaluation.crops import Policy, is_chosen, short_policy
from pipelines.errors import UserError
from pipelines.run.budget import read_budget
from pipelines.run.calibration import read_calibration
from pipelines.run.commands import command_of
from pipelines.run.directory import CALIBRATION
from pipelines.run.predictions import sorted_policies
from pipelines.run.storage import Storage
from pipelines.run.weights import weights_digests


def check_sets(run: Storage, replicas: Sequence[int], policies: Sequence[Policy], coverage: float | None) -> None:
    """Refuse sets that the run has not fitted for these of its replicas, or for a crop policy.

    ``policies`` name their views.

    Raises:
        UserError: the run has not fitted them.
    """
    if coverage is None:
        return
    largest, kept = sorted_policies(policies)[-1], read_calibration(run, weights_digests(run, replicas))
    if kept is None:
        raise UserError(f"--coverage {coverage:g} needs sets of classes: the run keeps {_what_it_lacks(run, replicas)}")
    if str(largest) not in kept.label_mass:
        raise UserError(
            f"--coverage {coverage:g} needs sets for the crop policy {short_policy(largest)}, which the run has not "
            f"fitted; let the largest of --policies be one of {', '.join(map(short_policy, kept.label_mass))}"
        )
    if missing := kept.images_missing_for(coverage):
        raise UserError(f"--coverage {coverage:g} {missing}")


def about_no_temperature(run: Storage, replicas: Sequence[int], policies: Sequence[Policy]) -> str:
    """Return that probabilities will not be calibrated, and why, in a line; empty if they get a temperature.

    ``policies`` name their views.
    """
    largest = sorted_policies(policies)[-1]
    if is_chosen(largest):  # its temperature is kept with the order of the views
        return ""
    kept = read_calibration(run, weights_digests(run, replicas))
    if kept and kept.temperature(len(replicas), largest):
        return ""
    missing = f"none for the crop policy {short_policy(largest)}" if kept else _what_it_lacks(run, replicas)
    return f"the probabilities will not be calibrated: this needs a temperature, and the run keeps {missing}"


def check_views(run: Storage, replicas: Sequence[int], policies: Sequence[Policy]) -> None:
    """Refuse the run's own chosen views for images of which some are those that the views were chosen on.

    ``policies`` name their views.

    Raises:
        UserError: ``policies`` contains the run's own chosen views.
    """
    kept = read_budget(run, weights_digests(run, replicas))
    if kept and (own := next(filter(kept.temperature, policies), None)):
        raise UserError(
            f"--policies {short_policy(own)}: these views were chosen on validation images of the run, so their error "
            f"on the same images would be too low: leave {short_policy(own)} out; the run's own report judges chosen "
            "views by cross-validation (docs/evaluation.md, 'The best answer for the cost')"
        )


def _what_it_lacks(run: Storage, replicas: Sequence[int]) -> str:
    """Return for which replicas a run has no calibration, and the command that makes it."""
    command = command_of("evaluate_ensemble", run)
    if not run.exists(CALIBRATION):
        return f"none yet; evaluate it on at least 40 validation images first: {command}"
    these = "this replica" if len(replicas) == 1 else f"these {len(replicas)} replicas together"
    return f"none for {these}; evaluate the run first: {command}"


def check_ood(data: str, own: str) -> None:
    """Refuse photographs of something else that are the run's own images, given as absolute paths or URIs.

    Raises:
        UserError: they are.
    """
    if own and (_is_within(data, own) or _is_within(own, data)):
        raise UserError(f"--ood {data} has the run's own images (--data {own}); give photographs of something else")


def _is_within(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")
