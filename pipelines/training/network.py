"""Network that a recipe describes, and its initial weights: random, or from a file.

The file is copied into the run directory, so that every worker finds it.
"""

from collections.abc import Sequence

import torch

from googlenet.network.complexity import forward_flops
from googlenet.network.initialisation import initialise
from googlenet.network.model import GoogLeNet
from googlenet.network.preprocessing import CAFFE_PREPROCESSING, SCRATCH_PREPROCESSING, Preprocessing
from googlenet.network.published import BVLC, TORCHVISION
from googlenet.network.weights import WeightsError, start_from
from googlenet.randomness import torch_generator
from pipelines.errors import UserError
from pipelines.job.process_memory import prediction_bytes
from pipelines.run.directory import initial_weights_file
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.run.weights import read_file, read_kept, suffix_of_weights

PREPROCESSING: dict[str, Preprocessing] = {"caffe": CAFFE_PREPROCESSING, "scratch": SCRATCH_PREPROCESSING}


def network_of(recipe: Recipe, classes: int, replica: int = 0) -> GoogLeNet:
    """Return the network of replica ``replica`` with ``classes`` outputs and random initial weights."""
    model = _built(recipe, classes, replica)
    generator = torch_generator(recipe.replica_weights_seed(replica), "initial_weights")
    initialise(model, recipe.initialisation, generator)
    return model


def network_without_weights(recipe: Recipe, classes: int, replica: int = 0) -> GoogLeNet:
    """Return a network with the layers of replica ``replica``, to count its memory and operations, on no device."""
    with torch.device("meta"):
        return _built(recipe, classes, replica)


def _built(recipe: Recipe, classes: int, replica: int) -> GoogLeNet:
    return GoogLeNet(
        classes,
        recipe.variant,
        recipe.aux_heads,
        recipe.replica_width(replica),
        lrn=recipe.lrn,
        dropout=(recipe.dropout, recipe.aux_dropout),
    )


def ensemble_bytes(recipe: Recipe, classes: int, replicas: Sequence[int] | None = None) -> dict[str, int]:
    """Return the memory of a predictor of ``replicas``, on a CPU ("cpu") and on the node of its GPU ("gpu").

    By default these are all replicas of the recipe.
    """
    numbers = range(recipe.replicas) if replicas is None else replicas
    networks = networks_without_weights(recipe, classes, numbers)
    return prediction_bytes(networks, recipe.crop_px)


def networks_without_weights(recipe: Recipe, classes: int, replicas: Sequence[int]) -> list[GoogLeNet]:
    """Return networks with the layers of ``replicas``; those of one width are the same object, to save time."""
    replica_of = {recipe.replica_width(replica): replica for replica in replicas}
    networks = {width: network_without_weights(recipe, classes, replica) for width, replica in replica_of.items()}
    return [networks[recipe.replica_width(replica)] for replica in replicas]


def relative_operations(recipe: Recipe, classes: int) -> list[float]:
    """Return the operations of a forward pass of each replica, relative to the first one's: a wider one has more."""
    if recipe.wide_replica_width is None:
        return [1.0] * recipe.replicas
    networks = networks_without_weights(recipe, classes, range(recipe.replicas))
    operations = [forward_flops(network, recipe.crop_px) for network in networks]
    return [each / operations[0] for each in operations]


def check_initial_weights(run: Storage, recipe: Recipe, num_classes: int) -> list[str]:
    """Try the initial weights before anything else is done; return remarks on what the file does not cover or say.

    Raises:
        UserError: the file does not exist or cannot be used.
    """
    return _tried(run, recipe, num_classes)[1] if recipe.init_weights else []


def keep_initial_weights(run: Storage, recipe: Recipe, num_classes: int) -> None:
    """Copy ``recipe.init_weights`` into ``run``, unless that is done.

    Raises:
        UserError: the file cannot be used.
    """
    if recipe.init_weights and not run.exists(_kept_name(recipe)):
        run.write(_kept_name(recipe), _tried(run, recipe, num_classes)[0])


def _tried(run: Storage, recipe: Recipe, num_classes: int) -> tuple[bytes, list[str]]:
    """Return the file's bytes, and remarks on what it does not cover or say."""
    name = _kept_name(recipe)
    # The original file may have moved since it was copied.
    data, stored = read_kept(run, name) if run.exists(name) else read_file(recipe.init_weights)
    is_known = recipe.init_weights in (BVLC, TORCHVISION)  # published weights are what is assumed
    assumed = [] if is_known or not stored.assumption else [stored.assumption]
    try:
        return data, assumed + start_from(network_of(recipe, num_classes), stored)
    except WeightsError as error:
        network = "the options --variant, --width and --lrn define the network"
        raise UserError(f"{recipe.init_weights}: {error} ({network})") from error


def apply_initial_weights(run: Storage, recipe: Recipe, model: GoogLeNet) -> Preprocessing:
    """Load the kept weights into ``model``; return the preprocessing that they need."""
    name = _kept_name(recipe)
    _, stored = read_kept(run, name)
    start_from(model, stored)
    return stored.preprocessing


def _kept_name(recipe: Recipe) -> str:
    return initial_weights_file(suffix_of_weights(recipe.init_weights))
