"""Batches of one image, which batch normalisation may refuse: told before a run is bound to its batch size."""

import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from googlenet import GoogLeNet
from pipelines.data.prepare import find_images
from pipelines.errors import UserError
from pipelines.run.claims import claim
from pipelines.run.named_recipes import demo
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.train_ensemble import _prepare, run_job
from pipelines.training.resources import check_batches, has_batch_of_one
from tests.pipelines.jobs import arguments
from tests.prepared import preparing_here


@pytest.mark.parametrize(("crop_px", "fails"), [(35, True), (46, True), (47, False)])
def test_crops_at_which_a_batch_of_one_cannot_be_normalised_are_refused_with_a_batch_size_that_can(
    crop_px: int, fails: bool
) -> None:
    model = GoogLeNet(3, "bn", width=0.125, dropout=(0.0, 0.0)).train()
    with pytest.raises(ValueError, match="more than 1 value") if fails else nullcontext():
        model(torch.zeros(1, 3, crop_px, crop_px))
    recipe = replace(demo(), crop_px=56, first_crop_px=crop_px, batch_size=32)
    named = r"^batches of 32 of 65 training images leave a batch of one, .* at crops of .* choose --batch-size 33, or"
    with pytest.raises(UserError, match=named) if fails else nullcontext():
        check_batches(recipe, 65)
    at_once = replace(recipe, epochs=1)  # the last epoch has full crops
    for harmless in (replace(recipe, batch_size=33), replace(recipe, variant="paper", first_crop_px=None), at_once):
        check_batches(harmless, 65)
    check_batches(recipe, 64)
    assert has_batch_of_one(7, 1)


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_batch_of_one_is_refused_before_a_cluster_starts_and_before_the_run_is_bound(
    tiny_recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str], dry_run: bool
) -> None:
    recipe = replace(tiny_recipe, batch_size=23)
    with pytest.raises(UserError, match=r"^batches of 23 of 24 training images leave a batch of one"):
        run_job(arguments(tmp_path / "run", recipe, dry_run=dry_run))
    assert "Ray" not in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_images_that_are_left_out_may_leave_a_batch_of_one_and_then_another_batch_size_can_be_chosen(
    photo_folder: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    photos = Path(shutil.copytree(photo_folder, tmp_path / "photos"))
    (photos / "train/class_0/2.jpg").write_bytes(b"broken")
    run, recipe = Storage.at(str(tmp_path / "run")), replace(tiny_recipe, data=str(photos), batch_size=22)
    options = arguments(tmp_path / "run", recipe, bad_images="quarantine")
    claim(run, "recipe", recipe.to_dict())
    with preparing_here(), pytest.raises(UserError, match=r"^batches of 22 of 23 training images leave a batch of one"):
        _prepare(options, run, recipe, find_images(run, recipe))
    recipe = replace(recipe, batch_size=23)
    claim(run, "recipe", recipe.to_dict())
    with preparing_here():
        manifest = _prepare(options, run, recipe, find_images(run, recipe))
    assert manifest.splits["train"].images == 23
