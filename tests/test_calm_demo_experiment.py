"""The experiment on the demo's seeds: its errors are those of the report, and it says which orders hold."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from experiments import calm_demo
from experiments.calm_demo import Arguments, Errors, evaluate, print_table, trials_of
from pipelines.run.recipe import Recipe


def test_errors_are_those_of_the_same_replicas_in_their_report(
    finished_run: Path, tiny_recipe: Recipe, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(tiny_recipe.to_dict()))
    trials = trials_of(Arguments(tmp_path / "work", (0,), str(recipe)), 0)
    for replica, trial in enumerate(trials):
        (trial.folder / "replicas").mkdir(parents=True)
        (trial.folder / "dataset").symlink_to(finished_run / "dataset")
        shutil.copytree(finished_run / f"replicas/{replica}", trial.folder / "replicas/0")
    table = json.loads((finished_run / "report/report.json").read_text())["table"]
    errors = evaluate(trials)
    for place, policy in enumerate(tiny_recipe.policies):
        of_policy = {row["models"]: row["top1_error"] for row in table if row["policy"] == str(policy)}
        assert errors.single[:, place].mean() == pytest.approx(of_policy[1])
        assert errors.together[place] == pytest.approx(of_policy[tiny_recipe.replicas])


def test_replicas_differ_in_their_sampling_and_seeds_in_everything(tmp_path: Path) -> None:
    recipes = [trial.recipe for seed in (0, 5) for trial in trials_of(Arguments(tmp_path), seed)]
    assert [recipe.sampling_seed for recipe in recipes] == [*range(7), *range(5, 12)]
    assert {(recipe.data_seed, recipe.weights_seed) for recipe in recipes} == {(0, 0), (5, 5)}


def test_the_table_says_in_how_many_seeds_the_orders_hold(capsys: pytest.CaptureFixture[str]) -> None:
    single = np.array([[20.0, 18.0, 16.0], [24.0, 20.0, 18.0]])
    calm = Errors(single, np.array([15.0, 14.2, 14.7]))
    assert (round(calm.farthest, 3), calm.keeps_order, round(calm.above_lowest, 6)) == (9.091, True, 0.5)
    unordered = Errors(single[:, ::-1], np.array([15.0, 14.0, 14.6]))
    apart = Errors(single * [[1], [3]], np.array([15.0, 14.0, 14.0]))
    print_table({0: calm, 1: unordered, 2: apart}, "demo")
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| 0 | 22.00 | 19.00 | 17.00 | 15.00 | 14.20 | 14.70 | 20.0 - 24.0 | 9 % |"
    assert [line.rpartition(": ")[2] for line in lines[-3:]] == ["2 of 3", "2 of 3", "2 of 3"]


@pytest.mark.processes  # git tells the commit
def test_seeds_are_prepared_and_trained_once(
    prepared_run: Path, tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({**tiny_recipe.to_dict(), "replicas": 2, "epochs": 1, "policies": [1]}))
    arguments = Arguments(tmp_path / "work", (0,), str(recipe))
    # One after the other, in this process; test_short_runs_experiment.py has processes.
    monkeypatch.setattr(calm_demo, "ProcessPoolExecutor", lambda *_, **__: ThreadPoolExecutor(1))
    with monkeypatch.context() as patched:
        patched.setattr(
            calm_demo, "prepare", lambda asked, seed: shutil.copytree(prepared_run, calm_demo.images_of(asked, seed))
        )
        calm_demo.main(arguments)
    first = capsys.readouterr().out
    assert [line.partition(":")[0] for line in first.splitlines()[:2]] == ["seed0_replica0", "seed0_replica1"]
    calm_demo.main(arguments)  # the images are there
    again = capsys.readouterr().out
    assert again.splitlines()[:6] == first.splitlines()[2:8]
