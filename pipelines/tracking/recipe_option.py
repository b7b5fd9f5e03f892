"""Recipe that the option --recipe names: by its name, in a JSON file, or of a run in MLflow."""

import argparse
from collections.abc import Sequence
from dataclasses import replace

from googlenet.network.published import variant_of_weights
from pipelines.errors import TryAgainError, UserError
from pipelines.job.console import complain, say
from pipelines.job.run_option import tell_look
from pipelines.run.dataset import Manifest
from pipelines.run.directory import RUN, read_recipe, read_run
from pipelines.run.named_recipes import load_recipe
from pipelines.run.recipe import Recipe
from pipelines.run.recipe_json import recipe_from_dict
from pipelines.run.storage import Storage
from pipelines.run.teacher import absolute_teacher, recipe_of_student
from pipelines.tracking.fetch import PREFIX, differences_from, fetch_recipe
from pipelines.tracking.store import tracking_uri_of_runs


def recipe_of_options(argv: Sequence[str], default: str) -> Recipe:
    """Return the recipe of --recipe, by default ``default``, for given --init-weights and --teacher.

    It is read before the other options, since it holds their defaults.

    Raises:
        UserError: there is no such recipe.
    """
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    options.add_argument("--recipe", nargs="?", const="", default="")
    options.add_argument("--run-dir", "--run_dir", nargs="?", const="", default="")
    options.add_argument("--tracking-uri", "--tracking_uri", nargs="?", const="", default="")
    options.add_argument("--init-weights", "--init_weights", nargs="?", const="", default="")
    options.add_argument("--teacher", nargs="?", const="", default="")
    given, _ = options.parse_known_args(argv)
    recipe = _recipe_called(given.recipe or default, given.tracking_uri, given.run_dir)
    if teacher := given.teacher or recipe.teacher:
        tell_look(absolute_teacher(teacher))
    if given.teacher and not recipe.teacher:  # a file has the recipe of its own teacher
        recipe = recipe_of_student(recipe, given.teacher)
    variant = variant_of_weights(given.init_weights or recipe.init_weights)
    return replace(recipe, variant=variant) if variant else recipe


def _recipe_called(name: str, tracking_uri: str, run_dir: str) -> Recipe:
    if not name.startswith(PREFIX):
        return load_recipe(name)
    complain(f"reading the recipe of {name} from MLflow ...")  # beside standard output, which --print-recipe keeps
    try:
        return recipe_from_dict(fetch_recipe(tracking_uri_of_runs(tracking_uri), name))
    except UserError as error:
        run = Storage.at(run_dir) if run_dir else None
        if run is None or not _goes_on_without_mlflow(run, name, error):
            raise
        complain(f"warning: {error}; resuming with the recipe of {run}")
        return read_recipe(run)


def _goes_on_without_mlflow(run: Storage, name: str, error: UserError) -> bool:
    """Return whether ``run`` was begun with the recipe called ``name``, also if that is gone from MLflow.

    Of a run of an earlier version, that is not known: its recipe serves while MLflow is unreachable.
    """
    if not run.exists(RUN):
        return False
    given = read_run(run).get("given_recipe")
    return given == name or (given is None and isinstance(error, TryAgainError))


def tell_differences(name: str, tracking_uri: str, manifest: Manifest) -> None:
    """Print how images, code and versions here differ from those of the run in MLflow that --recipe names, if any.

    A failure of MLflow is a warning.
    """
    if not name.startswith(PREFIX):
        return
    try:
        for line in differences_from(tracking_uri_of_runs(tracking_uri), name, manifest.digest):
            say(f"differs from {name}: {line}")
    except UserError as error:
        say(f"warning: differences from {name} are unknown: {error}")
