"""The network that a recipe describes."""

from googlenet.initialisation import initialise
from googlenet.model import GoogLeNet
from googlenet.randomness import torch_generator
from pipelines.recipe import Recipe


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
