"""Options of answers for images without labels, and of an evaluation of a run's own images."""

from collections.abc import Sequence

from googlenet.evaluation.crops import CROP_POLICIES, Policy
from pipelines.errors import UserError
from pipelines.run.directory import CALIBRATION
from pipelines.run.storage import Storage


def check_coverage(coverage: float, run_dir: str, is_answering: bool, calibrated: bool) -> None:
    """Refuse a coverage that cannot be kept.

    ``is_answering`` says whether a training run is to answer images without labels.

    Raises:
        UserError: it cannot.
    """
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


def check_set_penalty(penalty: float, coverage: float | None) -> None:
    """Refuse a penalty on the ranks of sets that is negative, or without sets.

    Raises:
        UserError: it is.
    """
    if penalty < 0:
        raise UserError(f"--set-penalty must not be negative, got {penalty:g}")
    if penalty and coverage is None:
        raise UserError(f"--set-penalty {penalty:g} shortens sets of classes: it needs --coverage")


def check_budget(budget: str, is_answering: bool, policies: Sequence[Policy], coverage: float | None) -> None:
    """Refuse a budget where nothing can stop early, as :func:`check_coverage`.

    Raises:
        UserError: nothing can.
    """
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
