"""Weights from elsewhere that training starts from, kept in the run directory so that every worker finds them."""

from pathlib import Path

from googlenet.model import GoogLeNet
from googlenet.preprocessing import Preprocessing
from googlenet.weight_files import read_weights
from googlenet.weights import StoredNetwork, WeightsError, start_from
from pipelines.errors import UserError
from pipelines.recipe import Recipe
from pipelines.storage import Storage


def read_file(path: str) -> tuple[bytes, StoredNetwork]:
    """The bytes of a file of weights, and what they hold.

    Raises:
        UserError: there is no such file, or it cannot be used.
    """
    folder, _, name = path.rpartition("/")
    try:
        data = Storage.at(folder or "/").read(name)
        return data, read_weights(data, name)
    except FileNotFoundError as error:
        raise UserError(f"no weights at {path}") from error
    except WeightsError as error:
        raise UserError(f"{path}: {error}") from error


def check_initial_weights(run: Storage, recipe: Recipe) -> None:
    """Refuse weights that cannot be read, before anything else is done.

    Raises:
        UserError: there is no such file, or it cannot be used.
    """
    if recipe.init_weights and not run.exists(_kept_name(recipe)):
        read_file(recipe.init_weights)


def keep_initial_weights(run: Storage, recipe: Recipe, num_classes: int) -> list[str]:
    """Copy ``recipe.init_weights`` into ``run`` and try them; remarks on what the file does not cover.

    Raises:
        UserError: the file cannot be used.
    """
    if not recipe.init_weights:
        return []
    name = _kept_name(recipe)
    if run.exists(name):  # the file itself may have moved since
        data = run.read(name)
        stored = read_weights(data, name)
    else:
        data, stored = read_file(recipe.init_weights)
    try:
        model = GoogLeNet(num_classes, recipe.variant, recipe.aux_heads, recipe.width, lrn=recipe.lrn)
        remarks = start_from(model, stored)
    except WeightsError as error:
        network = "the options --variant, --width and --lrn decide the network"
        raise UserError(f"{recipe.init_weights}: {error} ({network})") from error
    if not run.exists(name):
        run.write(name, data)
    return remarks


def apply_initial_weights(run: Storage, recipe: Recipe, model: GoogLeNet) -> Preprocessing:
    """Copy the kept weights into ``model``; the preprocessing that belongs to them."""
    name = _kept_name(recipe)
    stored = read_weights(run.read(name), name)
    start_from(model, stored)
    return stored.preprocessing


def _kept_name(recipe: Recipe) -> str:
    return f"initial_weights{Path(recipe.init_weights).suffix}"
