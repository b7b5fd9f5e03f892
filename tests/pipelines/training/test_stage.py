"""The look at a recipe before the training starts."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch  # noqa: F401  # its import starts a process, which the tests that need it may not

from pipelines.job.ray_session import native_stderr_to_log
from pipelines.run.claims import claim
from pipelines.run.dataset import Counts
from pipelines.run.directory import RUN, ReplicaFiles
from pipelines.run.named_recipes import modern
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training.resources import (
    Resources,
)
from pipelines.training.stage import check_before_start, placed_if_shared


@pytest.mark.parametrize(("stored", "policies", "told"), [
    (None, (1, 10, 144), False), (352, (1, 10, 144), False), (351, (1, 10, 144), True), (256, (1, 10), False),
    (224, (1, 10), True),
])  # fmt: skip
def test_images_that_are_stored_too_small_for_the_views_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stored: int | None, policies: tuple[int, ...], told: bool
) -> None:
    """The scales of a crop of 224 px are 256, 288, 320 and 352 px in the paper; fewer views need the first alone."""
    recipe = Recipe(stored_short_side_px=stored, policies=policies)
    check_before_start(Storage.at(str(tmp_path)), recipe, Counts(100, 10, 2))
    largest = 352 if 144 in policies else 256
    line = f"data: shorter sides are stored with at most {stored} px, and the evaluation scales them to up to {largest}"
    printed = capsys.readouterr().out
    assert (line in printed) == told
    assert (f"use --stored-short-side-px {largest}, or leave it out" in printed) == told


def test_a_run_that_has_begun_is_not_told_to_use_another_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, recipe = Storage.at(str(tmp_path)), Recipe(stored_short_side_px=224, epochs=1, warmup_epochs=1)
    claim(run, "recipe", recipe.to_dict())
    check_before_start(run, recipe, Counts(100, 10, 2))
    assert capsys.readouterr().out == ""


def test_what_rays_core_writes_stays_off_the_terminal_while_a_shared_cluster_is_connected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def connected() -> Iterator[None]:
        os.write(2, b"connects ")
        yield
        os.write(2, b"leaves\n")

    monkeypatch.setenv("RAY_ADDRESS", "somewhere:6379")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("pipelines.training.stage.connected", connected)
    run, recipe = Storage.at(str(tmp_path / "run")), Recipe(replicas=1)
    run.write(ReplicaFiles(0).weights, b"")  # nothing is left that needs a place
    with placed_if_shared(run, recipe, Resources()), native_stderr_to_log(run):
        os.write(2, b"works\n")
        print("for the user", file=sys.stderr)
    assert capfd.readouterr().err == "for the user\n"
    [outer] = tmp_path.glob("googlenet-*/logs/*")
    [inner] = (tmp_path / "run/logs").iterdir()
    assert (outer.read_text(), inner.read_text()) == ("connects leaves\n", "works\n")


@pytest.mark.parametrize(("epochs", "told"), [(1, "use --warmup-epochs 0.25"), (2, "use --warmup-epochs 0.5"), (3, "")])
def test_a_warm_up_that_is_all_of_the_training_is_told_when_a_run_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], epochs: int, told: str
) -> None:
    recipe, run, counts = replace(modern(), epochs=epochs), Storage.at(str(tmp_path)), Counts(320, 10, 3)
    check_before_start(run, recipe, counts)
    line = " ".join(capsys.readouterr().out.split())
    assert line.endswith(told)
    assert bool(line) == bool(told)
    run.write_json(RUN, {})  # and it cannot be changed any more
    check_before_start(run, recipe, counts)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("images", "is_told"), [(32, True), (33, False)])
def test_a_training_of_one_step_at_a_rate_of_zero_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], images: int, is_told: bool
) -> None:
    recipe = replace(modern(), epochs=1, warmup_epochs=0.5, batch_size=32)
    check_before_start(Storage.at(str(tmp_path)), recipe, Counts(images, 10, 3))
    assert ("the only step of this training begins the warm-up" in capsys.readouterr().out) == is_told
