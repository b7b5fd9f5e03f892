"""Weights from elsewhere that training starts from, kept in the run directory so that every worker finds them."""

from pathlib import PurePosixPath

from googlenet.network.initialisation import initialise
from googlenet.network.model import GoogLeNet
from googlenet.network.preprocessing import Preprocessing
from googlenet.network.weights import WeightsError, start_from
from googlenet.randomness import torch_generator
from pipelines.errors import UserError
from pipelines.run.directory import initial_weights_file
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.run.weights import read_file, read_network


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
        data, stored = read_network(run, name)
    else:
        data, stored = read_file(recipe.init_weights)
    try:
        remarks = start_from(network_of(recipe, num_classes), stored)
    except WeightsError as error:
        network = "the options --variant, --width and --lrn decide the network"
        raise UserError(f"{recipe.init_weights}: {error} ({network})") from error
    if not run.exists(name):
        run.write(name, data)
    return remarks


def apply_initial_weights(run: Storage, recipe: Recipe, model: GoogLeNet) -> Preprocessing:
    """Copy the kept weights into ``model``; the preprocessing that belongs to them."""
    name = _kept_name(recipe)
    _, stored = read_network(run, name)
    start_from(model, stored)
    return stored.preprocessing


def _kept_name(recipe: Recipe) -> str:
    return initial_weights_file(PurePosixPath(Storage.of_file(recipe.init_weights)[1]).suffix)


def network_of(recipe: Recipe, classes: int, replica: int = 0) -> GoogLeNet:
    """The network of replica ``replica`` for so many classes, with its initial weights."""
    model = GoogLeNet(
        classes,
        recipe.variant,
        recipe.aux_heads,
        recipe.replica_width(replica),
        lrn=recipe.lrn,
        dropout=(recipe.dropout, recipe.aux_dropout),
    )
    generator = torch_generator(recipe.replica_weights_seed(replica), "initial_weights")
    initialise(model, recipe.initialisation, generator)
    return model
