"""Options of answers for images without labels, and of an evaluation of a run's own images."""

from collections.abc import Sequence

from googlenet.evaluation.cascade import BUDGETS
from googlenet.evaluation.crops import CROP_POLICIES, Policy, short_name
from pipelines.errors import UserError
from pipelines.run.directory import CALIBRATION
from pipelines.run.predictions import sorted_policies
from pipelines.run.storage import Storage


def check_coverage(coverage: float | None, run_dir: str, is_answering: bool, calibrated: bool) -> None:
    """Refuse a coverage that cannot be kept.

    ``is_answering`` says whether a training run is to answer images without labels.

    Raises:
        UserError: it cannot.
    """
    if coverage is None:
        return
    if not 0 < coverage < 1:
        raise UserError(f"--coverage must be between 0 and 1, such as 0.95, got {coverage:g}")
    if not is_answering:
        raise UserError("--coverage is for the answers of a training run: it needs --unlabelled and no --weights")
    if not calibrated:
        raise UserError("--coverage needs the run's calibration: leave out --no-calibrated")
    if not Storage.at(run_dir).exists(CALIBRATION):
        raise UserError(
            f"--coverage needs {run_dir}/{CALIBRATION}, which a run of 40 validation images or more keeps; "
            f"for a run of an earlier version: python pipelines/evaluate_ensemble.py --run-dir {run_dir}"
        )


def check_sets(run: Storage, policies: Sequence[Policy], coverage: float | None) -> None:
    """Refuse sets for a crop policy that the run's calibration does not know; ``policies`` name their views.

    Raises:
        UserError: it does not.
    """
    largest = sorted_policies(policies)[-1]
    known = {} if coverage is None else run.read_json(CALIBRATION)["label_mass"]
    if coverage is not None and str(largest) not in known:
        raise UserError(
            f"--coverage {coverage:g} needs sets for {short_name(largest)} crops, which the run has not fitted; let "
            f"the largest of --policies be one of {', '.join(map(short_name, known))}"
        )


def check_set_penalty(penalty: float, coverage: float | None, unlabelled: bool) -> None:
    """Refuse a penalty on the ranks of sets that is negative, or for answers without sets.

    Raises:
        UserError: it is.
    """
    if penalty < 0:
        raise UserError(f"--set-penalty must not be negative, got {penalty:g}")
    if penalty and unlabelled and coverage is None:
        raise UserError(f"--set-penalty {penalty:g} shortens sets of classes: with --unlabelled it needs --coverage")


def check_ood(data: str, own: str) -> None:
    """Refuse photographs of something else that are the run's own images, given as absolute paths or URIs.

    Raises:
        UserError: they are.
    """
    if own and (_is_within(data, own) or _is_within(own, data)):
        raise UserError(f"--ood {data} has the run's own images (--data {own}); give photographs of something else")


def check_budget(budget: str, is_answering: bool, policies: Sequence[Policy], coverage: float | None) -> None:
    """Refuse a budget where nothing can stop early, as :func:`check_coverage`.

    Raises:
        UserError: nothing can.
    """
    if budget == BUDGETS[-1]:
        return
    given = f"--budget {budget}"
    if not is_answering:
        raise UserError(f"{given} is for the answers of a training run: it needs --unlabelled and no --weights")
    if tuple(policies) != CROP_POLICIES:
        raise UserError(f"{given} decides how many of the 144 views are computed: leave out --policies")
    if coverage is not None:
        raise UserError(f"{given} cannot be combined with --coverage: sets were fitted on all views")


def check_own_images(ood: bool, soup: bool, elsewhere: bool) -> None:
    """Refuse --ood and --soup together, or where the images or the weights are not a training run's own.

    Raises:
        UserError: they cannot be used.
    """
    given = "--ood" if ood else "--soup"
    if (ood or soup) and elsewhere:
        raise UserError(f"{given} is for a training run's own validation images: leave out --data and --weights")
    if ood and soup:
        raise UserError("--ood and --soup are two evaluations: give one after the other")


def _is_within(path: str, folder: str) -> bool:
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")
