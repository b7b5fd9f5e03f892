"""Short trainings of one replica: settings, folders, and a table; and those whose figures are in the results."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.short_runs import Arguments, claim_folder, main, row, started_step, train, trials_of
from pipelines.errors import UserError
from pipelines.job.worker_process import use_own_cpus
from pipelines.training.task import ReplicaTask
from tests.project import ROOT

pytestmark = pytest.mark.timeout(300)

TINY_TRIAL = {"width": 0.03, "crop_px": 35, "epochs": 1, "batch_size": 8, "warmup_epochs": 0, "aux_heads": False}


def short_run_arguments(prepared: Path, folder: Path, changes: dict[str, object]) -> Arguments:
    (folder / "trials.json").write_text(json.dumps(changes))
    return Arguments(prepared, folder / "work", folder / "trials.json", seeds=(3, 5))


def test_a_trial_changes_the_recipe_and_both_seeds(prepared_run: Path, tmp_path: Path) -> None:
    arguments = short_run_arguments(prepared_run, tmp_path, {"a": {}, "b": {"learning_rate": 0.5}})
    found = {(t.label, t.seed): t.recipe for t in trials_of(arguments)}
    assert list(found) == [("a", 3), ("b", 3), ("a", 5), ("b", 5)]
    assert found["b", 5] == replace(found["a", 3], learning_rate=0.5, weights_seed=5, sampling_seed=5)


TRIALS = sorted((ROOT / "experiments/trials").glob("*.json"))


@pytest.mark.parametrize("trials", TRIALS, ids=lambda path: path.stem)
def test_the_trials_of_the_results_are_recipes(trials: Path, tmp_path: Path) -> None:
    pages = "".join(page.read_text() for page in (ROOT / "docs/results").glob("*.md"))
    [base] = re.findall(rf"short_runs --recipe (\S+) .*--trials experiments/trials/{trials.name} ", pages)
    recipe = str(ROOT / base) if base.endswith(".json") else base
    found = trials_of(Arguments(tmp_path, tmp_path, trials, recipe))
    assert len({trial.recipe for trial in found}) == len(found) > 1


def test_a_classifier_has_started_where_its_loss_stays_below_that_of_guessing() -> None:
    losses = [2.3] * 20 + [1.0] + [2.3] * 20 + [1.9] * 30
    steps = [{"step": 10 * number, "loss": loss} for number, loss in enumerate(losses)]
    # Ten lines have a median of 2.1, below 0.95 ln(10) = 2.19, once five are at 1.9, not by one low line.
    assert started_step(steps, "loss", 10) == 360
    assert started_step(steps[:41], "loss", 10) is None


def test_a_trial_of_other_images_is_not_taken_for_one_of_these(
    prepared_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        shutil.copytree(prepared_run, tmp_path / name)
    [trial, *_] = trials_of(short_run_arguments(prepared_run, tmp_path, {"a": TINY_TRIAL}))
    threads: list[int] = []
    precisions: list[str] = []

    def trained(task: ReplicaTask) -> None:
        threads.append(used_threads())
        precisions.append(task.arithmetic.precision)

    monkeypatch.setattr("pipelines.training.replica.train_replica", trained)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    claim_folder(trial, tmp_path / "first")
    train(trial)
    assert threads == [1]
    train(replace(trial, recipe=replace(trial.recipe, training_precision="bf16")))
    assert precisions == ["fp32", "bf16"]
    with pytest.raises(UserError, match=rf"/a_3 was trained on {tmp_path}/first/dataset; choose another --work"):
        claim_folder(trial, tmp_path / "second")


def used_threads() -> int:
    """The threads of PyTorch once a replica has begun."""
    use_own_cpus()
    return torch.get_num_threads()


@pytest.mark.processes
def test_short_runs_are_trained_once_and_told_in_a_table(
    prepared_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unit_variance = {**TINY_TRIAL, "variant": "paper", "initialisation": "lsuv", "aux_heads": True}
    arguments = short_run_arguments(prepared_run, tmp_path, {"plain": TINY_TRIAL, "lsuv": unit_variance})
    main(arguments)
    first = capsys.readouterr().out
    plain, scaled = first.splitlines()[2:4]
    assert plain.startswith("| plain | ")
    assert scaled.count("of 2") == 3, "three classifiers"
    weights = sorted((tmp_path / "work").glob("*/replicas/0/weights.safetensors"))
    written = [path.stat().st_mtime_ns for path in weights]
    assert len(weights) == 4
    main(arguments)
    assert [path.stat().st_mtime_ns for path in weights] == written
    assert capsys.readouterr().out.splitlines()[:4] == first.splitlines()[:4]
    # If only the first of the two trainings had come to its end:
    told = row("plain", trials_of(arguments)[:1], seeds=2)
    assert ", 1 of 2 unfinished | logits: 0 of 2, ends at " in told
