"""Claims: the plan counts only what there is."""

from dataclasses import replace
from pathlib import Path

import pytest

from googlenet.evaluation.temperature import FOLDS
from googlenet.network.arithmetic import FP32
from pipelines.run.dataset import Counts
from pipelines.run.directory import ReplicaFiles
from pipelines.run.recipe import Recipe
from pipelines.run.soups import MOST_SOUPS
from pipelines.run.storage import Storage
from pipelines.training import plan
from pipelines.training.plan import Estimate, estimate, placement_lines
from pipelines.training.resources import Resources
from pipelines.training.trial import Trial


@pytest.mark.parametrize(
    ("replicas", "line"),
    [(3, "plan: 3 replicas of 1 CPU each, 3 finished"), (1, "plan: 1 replica of 1 CPU, finished")],
)
def test_nothing_waits_where_all_is_finished(tmp_path: Path, replicas: int, line: str) -> None:
    run = Storage.at(str(tmp_path))
    for replica in range(replicas):
        run.write(ReplicaFiles(replica).weights, b"")
    assert placement_lines(run, Recipe(replicas=replicas), Resources(parallel_replicas=2)) == [line]


def test_soups_count_in_the_time_and_the_cost_until_they_are_there(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, trial = Storage.at(str(tmp_path)), Trial((FP32,), (0.5,), (0.0,), passes_per_second=100.0, parameters=1)
    monkeypatch.setattr(plan, "run_trial", lambda *_: trial)
    monkeypatch.setattr(plan, "nodes_used", lambda *_: 1)
    for replica in range(tiny_recipe.replicas):
        run.write(ReplicaFiles(replica).weights, b"")

    def estimated(recipe: Recipe, *, soup: bool) -> Estimate:
        return estimate(run, recipe, Resources(), Counts(24, 42, 3), lambda *_: 1, (), soup=soup)

    with_soup, without = (estimated(tiny_recipe, soup=soup) for soup in (True, False))
    assert with_soup.seconds - without.seconds == pytest.approx(without.evaluation_seconds / tiny_recipe.replicas)
    # 42 images in 144 views, of which the other policies are a part, at 100 passes per second.
    [line] = plan._soup_line(with_soup)
    assert line.startswith("soups: about 1:00 for the uniform one, up to 7:03 if")
    assert plan._soup_line(without) == []
    assert MOST_SOUPS == 2 + FOLDS
    assert estimated(replace(tiny_recipe, replicas=1), soup=True).soup_seconds == 0
    run.write_json("soup/soups.json", {"are_predicted": True})
    assert estimated(tiny_recipe, soup=True).soup_seconds == 0
