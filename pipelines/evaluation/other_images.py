"""A training run's replicas on other images than its own: which of them answer with what, and where that is kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from googlenet.evaluation.crops import CROP_POLICIES, Policy
from googlenet.evaluation.kept_budget import EarlyStop
from pipelines.evaluation.answer_options import about_no_temperature, check_sets
from pipelines.evaluation.evaluate import replicas_to_evaluate
from pipelines.evaluation.options import Arguments
from pipelines.job.console import say
from pipelines.run.budget import early_stop_of, with_chosen_views
from pipelines.run.claims import LISTING, claim
from pipelines.run.directory import evaluation_folder, run_id
from pipelines.run.predictions import sorted_policies
from pipelines.run.recipe import Recipe, check_policies
from pipelines.run.storage import Storage


@dataclass(frozen=True)
class Choice:
    """Replicas that are evaluated, and with what.

    Attributes:
        replicas: their numbers.
        policies: crop policies that name their views.
        early_stop: when to stop adding views and replicas; None for never.
    """

    replicas: list[int]
    policies: tuple[Policy, ...]
    early_stop: EarlyStop | None


def choose(trained: Storage, recipe: Recipe, asked: Arguments) -> Choice:
    """Return what the options ask for of a training run; a line says if answers get no temperature.

    Raises:
        UserError: no replica is finished, or the run keeps nothing for them that the options need.
    """
    replicas = replicas_to_evaluate(trained, recipe, are_judged=not asked.unlabelled)
    early_stop = early_stop_of(trained, replicas, asked.budget)
    policies = CROP_POLICIES[-1:] if early_stop else with_chosen_views(trained, replicas, asked.policies)
    check_policies(policies, recipe.crop_px)
    if asked.unlabelled:  # a report fits the sets for which the run keeps nothing on the images at hand
        check_sets(trained, replicas, policies, asked.coverage)
    has_temperature = asked.unlabelled and asked.calibrated and not early_stop
    if has_temperature and (line := about_no_temperature(trained, replicas, policies)):
        say(line)
    return Choice(replicas, policies, early_stop)


def settings_of(asked: Arguments, choice: Choice, data: str, listing: str) -> dict[str, Any]:
    """Return what decides the predictions of the images of ``data``; ``listing`` is the digest of their names."""
    return {
        "data": data,
        LISTING: listing,
        "policies": list(sorted_policies(choice.policies)),
        "precision": asked.precision,
        "unlabelled": asked.unlabelled,
        **({"budget": choice.early_stop.key} if choice.early_stop else {}),
    }


def place_of(trained: Storage, settings: Mapping[str, Any], versions: str, output_dir: str) -> Storage:
    """Return the run directory of an evaluation: ``output_dir``, bound to ``settings``; else a folder of the run's.

    ``versions`` is the digest that tells of images which were replaced under their names.

    Raises:
        UserError: ``output_dir`` is bound to others.
    """
    if not output_dir:
        return trained.below(evaluation_folder(settings["data"], [*settings.values(), versions]))
    run = Storage.at(output_dir)
    claim(run, "evaluation", {"run": run_id(trained), **settings}, "choose another --output-dir")
    return run
