"""Initial weights scaled on training images: made once, the same for all replicas that share a seed."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from googlenet.network.preprocessing import SCRATCH_PREPROCESSING
from pipelines.errors import UserError
from pipelines.run.dataset import read_manifest
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training.network import network_of
from pipelines.training.scaled_weights import apply_scaled_weights, keep_scaled_weights


@pytest.fixture
def run(prepared_run: Path, tmp_path: Path) -> Storage:
    return Storage.at(str(shutil.copytree(prepared_run, tmp_path / "run")))


@pytest.fixture
def recipe(tiny_recipe: Recipe) -> Recipe:
    return replace(tiny_recipe, variant="paper", initialisation="lsuv", aux_heads=True, crop_px=63)


def weights_of(run: Storage, recipe: Recipe, replica: int) -> torch.Tensor:
    model = network_of(recipe, 3, replica)
    apply_scaled_weights(run, recipe, model, replica)
    return model.inception["5b"].conv_3x3.conv.weight  # type: ignore[union-attr, return-value]


def test_replicas_share_one_file_and_another_start_reads_it(run: Storage, recipe: Recipe) -> None:
    keep_scaled_weights(run, recipe, read_manifest(run))
    [name] = run.files("initial_weights")
    before = run.read(f"initial_weights/{name}")
    assert torch.equal(weights_of(run, recipe, 0), weights_of(run, recipe, 2))
    run.write(f"initial_weights/{name}", before)
    keep_scaled_weights(run, replace(recipe, areas=((0.9, 1.0),)), read_manifest(run))
    assert run.read(f"initial_weights/{name}") == before


def test_a_damaged_file_is_named_and_made_again(run: Storage, recipe: Recipe) -> None:
    keep_scaled_weights(run, recipe, read_manifest(run))
    [name] = run.files("initial_weights")
    whole = run.read(f"initial_weights/{name}")
    run.write(f"initial_weights/{name}", whole[:-1])
    with pytest.raises(UserError, match=rf"initial_weights/{name} is damaged .*delete it, and run the same command"):
        weights_of(run, recipe, 0)
    run.delete(f"initial_weights/{name}")
    keep_scaled_weights(run, recipe, read_manifest(run))
    assert run.read(f"initial_weights/{name}") == whole


def test_replicas_with_their_own_seeds_or_widths_have_their_own_files(run: Storage, recipe: Recipe) -> None:
    own = replace(recipe, shared_initial_weights=False, wide_replica_width=0.25)
    keep_scaled_weights(run, own, read_manifest(run))
    names = [f"seed_{seed}_width_{width}.safetensors" for seed, width in ((0, 0.125), (1, 0.125), (2, 0.25))]
    assert sorted(run.files("initial_weights")) == names
    assert not torch.equal(weights_of(run, own, 0), weights_of(run, own, 1))


@torch.no_grad()
def test_outputs_have_variance_one_on_other_images_of_the_set_too(run: Storage, recipe: Recipe) -> None:
    keep_scaled_weights(run, recipe, read_manifest(run))
    model = network_of(recipe, 3)
    apply_scaled_weights(run, recipe, model, 0)
    colours = np.array([(200, 40, 40), (40, 200, 40), (40, 40, 200)])
    noise = np.random.default_rng(5).normal(0, 60, (12, 63, 63, 3)) + np.tile(colours, (4, 1))[:, None, None]
    images = torch.from_numpy(noise.clip(0, 255).astype(np.uint8)).permute(0, 3, 1, 2)
    logits = model.eval()(SCRATCH_PREPROCESSING(images)).logits
    assert 0.3 < logits.var().item() < 3


def test_recipes_with_other_initial_weights_write_none(run: Storage, tiny_recipe: Recipe) -> None:
    keep_scaled_weights(run, tiny_recipe, read_manifest(run))
    keep_scaled_weights(
        run, replace(tiny_recipe, variant="paper", init_weights="x.npz", initialisation="lsuv"), read_manifest(run)
    )
    assert not run.files("initial_weights")
