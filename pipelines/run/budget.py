"""The order of the views and the cascade that a run keeps for its ensemble in budget.json."""

from collections.abc import Sequence

from googlenet.evaluation.cascade import BUDGETS
from googlenet.evaluation.crops import Policy, is_chosen
from googlenet.evaluation.kept_budget import EarlyStop, KeptBudget, named_policy
from googlenet.evaluation.temperature import FEWEST_IMAGES
from pipelines.errors import UserError
from pipelines.run.commands import command_of
from pipelines.run.directory import BUDGET, PREDICTIONS
from pipelines.run.storage import Storage
from pipelines.run.view_probabilities import most_classes
from pipelines.run.weights import weights_digests


def read_budget(run: Storage, digests: tuple[str, ...]) -> KeptBudget | None:
    """Return what a run keeps for the weights with these SHA-256; None if it keeps nothing.

    Raises:
        DamagedFileError: the file is damaged, or was edited.
    """
    if not run.exists(BUDGET):
        return None
    kept = run.read_as(BUDGET, KeptBudget.from_dict)
    return kept if kept.weights_digests == digests else None


def write_budget(run: Storage, budget: KeptBudget) -> None:
    """Write budget.json."""
    run.write_json(BUDGET, budget.to_dict())


def budget_in_use(run: Storage, replicas: Sequence[int], option: str) -> KeptBudget:
    """Return what a run keeps for these of its replicas, which ``option`` of the command line needs.

    Raises:
        UserError: it keeps nothing for them.
    """
    if kept := read_budget(run, weights_digests(run, replicas)):
        return kept
    raise UserError(
        f"{option} needs {run.below(BUDGET)} for the finished replicas. A run keeps it once it is evaluated with 144 "
        f"crops on {FEWEST_IMAGES} validation images or more, of at most {most_classes(len(replicas)):,} classes: "
        f"repeat the evaluation (for a run of an earlier version, delete {run.below(PREDICTIONS)} first): "
        f"{command_of('evaluate_ensemble', run)}"
    )


def early_stop_of(run: Storage, replicas: Sequence[int], budget: str) -> EarlyStop | None:
    """Return when these replicas of a run may stop early; None for the budget of all passes.

    Raises:
        UserError: the run keeps no cascade for them.
    """
    return None if budget == BUDGETS[-1] else EarlyStop(budget_in_use(run, replicas, f"--budget {budget}"), budget)


def with_chosen_views(
    run: Storage, replicas: Sequence[int], policies: Sequence[Policy], option: str = "--policies"
) -> tuple[Policy, ...]:
    """Return the policies of ``option`` with the views that ``best:24`` stands for in this run.

    Raises:
        UserError: the run keeps no order of views, or the number of views is none.
    """
    asked = next((policy for policy in policies if is_chosen(policy)), None)
    if asked is None:
        return tuple(policies)
    kept = budget_in_use(run, replicas, f"{option} {asked}")
    try:
        return tuple(named_policy(policy, kept) for policy in policies)
    except ValueError as error:
        raise UserError(f"{option}: {error}") from error
