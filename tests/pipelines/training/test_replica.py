"""Tests of one replica: interrupted at every step, it ends with bit-identical weights."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from googlenet import Ensemble
from googlenet.network.weight_files import load_weights
from googlenet.training import health
from googlenet.training.health import TrainingError
from pipelines.errors import UserError
from pipelines.run.claims import claim
from pipelines.run.dataset import open_records, read_manifest
from pipelines.run.recipe import Recipe
from pipelines.run.sheet import read_sheets
from pipelines.run.storage import Storage
from pipelines.training.network import check_initial_weights, keep_initial_weights
from pipelines.training.replica import train_replica
from pipelines.training.task import ReplicaTask
from pipelines.training.validation import Validation, centre_crop
from pipelines.training.validation_plan import ValidationPlan
from tests.pipelines.training.interrupted import Killed, interrupt_after, lines, task

pytestmark = pytest.mark.timeout(200)
STEPS = 6  # 24 images in batches of 8, two epochs


@pytest.mark.parametrize("checkpoint_seconds", [0.0, float("inf")])
def test_interrupted_after_every_step_it_ends_with_the_same_bits(
    dataset: Path, undisturbed: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch, threads: None,
    checkpoint_seconds: float,
) -> None:  # fmt: skip
    steps_between = 1 if checkpoint_seconds == 0 else 4  # without checkpoints within an epoch, an epoch has to fit
    interruptions = 0
    while True:
        with monkeypatch.context() as patched:
            interrupt_after(patched, steps_between)
            try:
                train_replica(task(dataset, tiny_recipe, checkpoint_seconds))
                break
            except Killed:
                interruptions += 1
    assert interruptions == (STEPS - 1 if checkpoint_seconds == 0 else 1)
    # The answers for the sheet of validation images, each epoch once.
    sheets, expected = (read_sheets(Storage.at(str(run)), 1) for run in (dataset, undisturbed))
    assert [replace(sheet, time_ms=0) for sheet in sheets] == [replace(sheet, time_ms=0) for sheet in expected]
    assert [sheet.epoch for sheet in sheets] == [1, 2]
    files = [run / "replicas/1/weights.safetensors" for run in (dataset, undisturbed)]
    assert files[0].read_bytes() == files[1].read_bytes()
    ours, reference = (lines(run / "replicas/1/metrics.jsonl") for run in (dataset, undisturbed))
    measured = {"images_per_second", "waiting_seconds", "time_ms"}
    assert [{k: v for k, v in line.items() if k not in measured} for line in ours] == [
        {k: v for k, v in line.items() if k not in measured} for line in reference
    ]
    steps = [line["step"] for epoch in range(2) for line in lines(dataset / f"replicas/1/steps/{epoch:05d}.jsonl")]
    assert steps == list(range(1, STEPS + 1))


def test_no_two_checkpoints_are_of_one_step_and_nothing_is_left_of_killed_writers(
    dataset: Path, tiny_recipe: Recipe, threads: None
) -> None:
    """Data-parallel workers agree on a step, and have to find the same state for it."""
    for name in ("weights.safetensors", "checkpoints/0000000001.safetensors", "steps/00000.jsonl"):
        Storage.at(str(dataset)).write(f"replicas/1/{name}.partial-0123", b"half")
    train_replica(task(dataset, tiny_recipe, 0.0))
    assert list(dataset.rglob("*.partial-*")) == []
    kept = sorted(path.name.partition(".")[0] for path in (dataset / "replicas/1/checkpoints").iterdir())
    assert kept == [f"{step:010d}" for step in (STEPS - 1, STEPS)]


def test_a_replica_that_dies_in_its_validation_takes_no_step_again(
    dataset: Path, undisturbed: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch, threads: None
) -> None:
    interrupt_after(monkeypatch, STEPS)  # in total
    validate, survives = Validation.errors, iter([False, True, False, True])

    def validation(*arguments: Any) -> dict[str, float]:
        if not next(survives):
            raise Killed
        return validate(*arguments)

    monkeypatch.setattr(Validation, "errors", validation)
    for _ in range(2):
        with pytest.raises(Killed):
            train_replica(task(dataset, tiny_recipe, float("inf")))
    train_replica(task(dataset, tiny_recipe, float("inf")))
    assert next(survives, None) is None
    files = [run / "replicas/1/weights.safetensors" for run in (dataset, undisturbed)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_damaged_newest_checkpoint_costs_the_steps_since_the_one_before(
    dataset: Path, undisturbed: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch, threads: None
) -> None:
    with monkeypatch.context() as patched:
        interrupt_after(patched, 5)
        with pytest.raises(Killed):
            train_replica(task(dataset, tiny_recipe, 0.0))
    newest = sorted((dataset / "replicas/1/checkpoints").iterdir())[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    train_replica(task(dataset, tiny_recipe, 0.0))
    files = [run / "replicas/1/weights.safetensors" for run in (dataset, undisturbed)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.processes
def test_it_ends_with_the_same_bits_if_other_processes_load_its_batches_and_it_is_interrupted(
    dataset: Path, undisturbed: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch, threads: None
) -> None:
    with_loaders = replace(task(dataset, tiny_recipe, 0.0), loader_processes=2)
    with monkeypatch.context() as patched:
        interrupt_after(patched, 2)
        with pytest.raises(Killed):
            train_replica(with_loaders)
    train_replica(with_loaders)
    files = [run / "replicas/1/weights.safetensors" for run in (dataset, undisturbed)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert errors(dataset) == errors(undisturbed)


def errors(run: Path) -> list[tuple[float, float] | None]:
    """Return the validation errors of each epoch; None where there was no validation."""
    return [
        (line["val_top1_error"], line["val_top1_error_raw_weights"]) if "val_top1_error" in line else None
        for line in lines(run / "replicas/1/metrics.jsonl")
    ]


def test_validation_now_and_then_and_on_some_images_changes_no_weight(
    dataset: Path, undisturbed: Path, tiny_recipe: Recipe, threads: None
) -> None:
    rarely = replace(task(dataset, tiny_recipe, float("inf")), validation=ValidationPlan(every_epochs=2, images=10))
    train_replica(rarely)
    files = [run / "replicas/1/weights.safetensors" for run in (dataset, undisturbed)]
    assert files[0].read_bytes() == files[1].read_bytes()
    first, last = lines(dataset / "replicas/1/metrics.jsonl")
    assert not {"val_top1_error", "val_images"} & first.keys()
    assert last["val_images"] == 10
    assert last["val_top1_error"] % 10 == pytest.approx(0)  # tenths


def test_the_validation_error_is_that_of_the_centre_crop_of_the_finished_ensemble(
    undisturbed: Path, tiny_recipe: Recipe, threads: None
) -> None:
    run = Storage.at(str(undisturbed))
    split = read_manifest(run).splits["val"]
    ensemble = Ensemble.load([undisturbed / "replicas/1/weights.safetensors"])
    records = list(open_records(run, split))
    wrong = [ensemble.probabilities(record.image, 1).argmax() != record.label for record in records]
    assert errors(undisturbed)[-1][0] == pytest.approx(100 * sum(wrong) / len(wrong))


def test_a_finished_replica_is_not_trained_again(
    dataset: Path, undisturbed: Path, tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch, threads: None
) -> None:
    shutil.copytree(undisturbed / "replicas/1", dataset / "replicas/1")
    interrupt_after(monkeypatch, 0)
    train_replica(task(dataset, tiny_recipe, 0.0))


def test_a_replica_alone_ends_with_the_same_weights_as_among_others(
    dataset: Path, finished_run: Path, tiny_recipe: Recipe, threads: None
) -> None:
    """Here in one process and without Ray, there in a Ray worker beside two others."""
    alone = replace(tiny_recipe, replicas=1, sampling_seed=1)
    train_replica(ReplicaTask(Storage.at(str(dataset)), alone, 0))
    ours, reference = (
        load_weights(path)
        for path in (dataset / "replicas/0/weights.safetensors", finished_run / "replicas/1/weights.safetensors")
    )
    expected = reference.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in ours.model.state_dict().items())


def test_a_replica_that_only_guesses_is_stopped_with_the_names_of_its_classifiers(
    dataset: Path, tiny_recipe: Recipe, threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "MIN_PATIENCE_STEPS", 6)  # all that this data set has
    still = replace(tiny_recipe, replicas=1, learning_rate=1e-12, dead_head_epochs=1.0, on_dead_head="stop")
    with pytest.raises(
        TrainingError, match=r"^the classifier.* learned nothing by step 6: .*guessing is ln\(3\) = 1\.099"
    ):
        train_replica(ReplicaTask(Storage.at(str(dataset)), still, 0))


def test_training_starts_from_weights_of_another_run(
    dataset: Path, undisturbed: Path, tiny_recipe: Recipe, tmp_path: Path, threads: None
) -> None:
    """With a learning rate of nearly zero the weights do not change."""
    weights, run = undisturbed / "replicas/1/weights.safetensors", Storage.at(str(dataset))
    still = replace(tiny_recipe, replicas=1, epochs=1, learning_rate=1e-12, aux_heads=False, init_weights=str(weights))
    claim(run, "recipe", still.to_dict())
    assert check_initial_weights(run, still, num_classes=3) == []
    keep_initial_weights(run, still, num_classes=3)
    train_replica(ReplicaTask(run, still, 0))
    before, after = (
        load_weights(path).model.state_dict() for path in (weights, dataset / "replicas/0/weights.safetensors")
    )
    for name in before:
        if "running" not in name and "num_batches" not in name:  # statistics follow the images at any learning rate
            assert torch.allclose(before[name], after[name], atol=1e-6), name
    weights_copy = tmp_path / "other.safetensors"
    weights_copy.write_bytes(weights.read_bytes())
    with pytest.raises(UserError, match="init_weights"):
        claim(run, "recipe", replace(still, init_weights=str(weights_copy)).to_dict())


def test_the_answers_on_the_sheet_are_those_of_the_averaged_weights_and_the_metrics_are_passed_on(
    dataset: Path, tiny_recipe: Recipe
) -> None:
    run, passed_on = Storage.at(str(dataset)), []
    train_replica(ReplicaTask(run, tiny_recipe, 1), passed_on.append)
    assert passed_on == lines(dataset / "replicas/1/metrics.jsonl")
    last, stored = read_sheets(run, 1)[-1], load_weights(dataset / "replicas/1/weights.safetensors")
    images = open_records(run, read_manifest(run).splits["val"])
    crops = torch.stack([centre_crop(images[record].image, tiny_recipe.crop_px) for record in last.records])
    stored.model.eval()
    with torch.no_grad():
        logits = stored.model(stored.preprocessing(crops.permute(0, 3, 1, 2))).logits
    probabilities, answers = logits.softmax(dim=1).max(dim=1)
    assert list(last.answers) == answers.tolist()
    assert last.probabilities == pytest.approx(probabilities.tolist(), abs=1e-5)
