"""Claims: what has more networks than a report can judge is refused in a line if there is a report, and else used."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.errors import UserError
from pipelines.evaluate_ensemble import Arguments
from pipelines.evaluation.evaluate import replicas_to_evaluate
from pipelines.evaluation.external_weights import check_outputs
from pipelines.run.claims import claim
from pipelines.run.directory import ReplicaFiles, read_recipe
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.train_ensemble import run_job
from tests.commands import run_script
from tests.pipelines.jobs import arguments as job_arguments


def test_more_networks_than_a_report_can_judge_are_refused_if_there_is_a_report() -> None:
    paths, arguments = [f"{number}.npz" for number in range(13)], Arguments("run", "photos")
    with pytest.raises(UserError, match=r"^--weights must name at most 12 networks, got 13: .* would be 8,191$"):
        check_outputs(paths, [3] * 13, 3, arguments)
    check_outputs(paths[1:], [3] * 12, 3, arguments)
    check_outputs(paths, [3] * 13, 3, replace(arguments, unlabelled=True))


def test_a_run_of_more_replicas_than_a_report_can_judge_is_read_and_answers_but_gets_no_report(tmp_path: Path) -> None:
    run, recipe = Storage.at(str(tmp_path)), Recipe(replicas=13)  # as earlier versions trained
    claim(run, "recipe", recipe.to_dict())
    for replica in range(recipe.replicas):
        run.write(ReplicaFiles(replica).weights, b"")
    assert read_recipe(run) == recipe
    assert replicas_to_evaluate(run, recipe, are_judged=False) == list(range(13))
    named = r"has 13 finished replicas, too many for a report: .* would be 8,191; they still answer"
    for words in ((), ("--data", "photos")):
        refused = run_script("pipelines/evaluate_ensemble.py", "--run-dir", run.root, *words)
        assert (refused.code, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
        assert re.search(named, refused.stderr)
    with pytest.raises(UserError, match=r"^--replicas must be at most 12, got 13: .* would be 8,191$"):
        run_job(job_arguments(tmp_path / "new", recipe))
    run.delete(ReplicaFiles(12).weights)
    assert replicas_to_evaluate(run, recipe) == list(range(12))
