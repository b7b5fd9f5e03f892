"""Initial weights that are scaled on training images (initialisation ``lsuv``): made once, read by every replica."""

import safetensors.torch
import torch
from safetensors import SafetensorError

from googlenet.images.rereading import read_again
from googlenet.network.model import GoogLeNet
from googlenet.network.unit_variance import scale_to_unit_variance
from googlenet.randomness import torch_generator
from googlenet.training.batches import TrainingSamples
from googlenet.training.epoch_order import EpochOrder
from pipelines.errors import DamagedFileError
from pipelines.job.console import say
from pipelines.run.dataset import Manifest, open_records
from pipelines.run.directory import scaled_weights_file
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training.network import PREPROCESSING, network_of

# Some dozens of images determine one variance for each layer.
IMAGES = 64


def are_scaled(recipe: Recipe) -> bool:
    """Return whether the recipe's initial weights depend on images."""
    return recipe.initialisation == "lsuv" and not recipe.init_weights


def keep_scaled_weights(run: Storage, recipe: Recipe, manifest: Manifest) -> None:
    """Write the initial weights of all replicas, unless that is done or the recipe needs none.

    Replicas that start from the same weights share a file, so that they do so on any mixture of machines.
    """
    if not are_scaled(recipe):
        return
    missing = [replica for replica in range(recipe.replicas) if not run.exists(_name(recipe, replica))]
    if missing:
        say(f"scaling the initial weights on {IMAGES} training images ...")
    for replica in missing:
        if not run.exists(name := _name(recipe, replica)):  # replicas may share it
            model = _scaled_network(run, recipe, manifest, replica)
            run.write(name, safetensors.torch.save(model.state_dict()))


def apply_scaled_weights(run: Storage, recipe: Recipe, model: GoogLeNet, replica: int) -> None:
    """Load the kept weights of ``replica`` into ``model``.

    Raises:
        DamagedFileError: they are damaged.
    """
    name = _name(recipe, replica)

    def state() -> dict[str, torch.Tensor]:
        content = run.read(name)
        try:
            weights: dict[str, torch.Tensor] = safetensors.torch.load(content)
        except SafetensorError as error:
            fix = "delete it, and run the same command again"
            raise DamagedFileError(f"{run.below(name)} is damaged ({error}); {fix}") from error
        return weights

    model.load_state_dict(read_again(state, DamagedFileError))


def _scaled_network(run: Storage, recipe: Recipe, manifest: Manifest, replica: int) -> GoogLeNet:
    model, seed = network_of(recipe, len(manifest.classes), replica), recipe.replica_weights_seed(replica)
    records = open_records(run, manifest.splits["train"])
    # The samples depend on the seed of the weights alone: replicas differ in their sampling only.
    samples = TrainingSamples(records, recipe.training_crops_px(), recipe.sampling(0), seed)
    indices = EpochOrder(len(records), seed, 0)[:IMAGES].tolist()
    images = torch.stack([samples[0, index][0] for index in indices]).permute(0, 3, 1, 2)
    scale_to_unit_variance(model, PREPROCESSING[recipe.preprocessing](images), torch_generator(seed, "dropout"))
    return model


def _name(recipe: Recipe, replica: int) -> str:
    return scaled_weights_file(recipe.replica_weights_seed(replica), recipe.replica_width(replica))
