"""Claims: the plan counts only what there is."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from googlenet.evaluation.temperature import FOLDS
from googlenet.network.arithmetic import FP32
from pipelines.run.dataset import Counts
from pipelines.run.directory import ReplicaFiles
from pipelines.run.recipe import Recipe
from pipelines.run.soups import MOST_SOUPS
from pipelines.run.storage import Storage
from pipelines.training import plan, trial
from pipelines.training.plan import Estimate, estimate, placement_lines
from pipelines.training.resources import Resources
from pipelines.training.trial import Trial
from tests.picture_files import encode


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
    run, measured = Storage.at(str(tmp_path)), Trial((FP32,), (0.5,), (0.0,), passes_per_second=100.0, parameters=1)
    monkeypatch.setattr(plan, "run_trial", lambda *_: measured)
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


def test_views_of_square_images_that_coincide_are_counted_once(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, asked = Storage.at(str(tmp_path)), []

    def run_trial(*of_trial: object) -> Trial:
        asked.append(of_trial[-1])
        return Trial((FP32,), (0.5,), (0.0,), passes_per_second=100.0, parameters=1)

    monkeypatch.setattr(plan, "run_trial", run_trial)
    monkeypatch.setattr(plan, "nodes_used", lambda *_: 2)
    monkeypatch.setattr(plan, "replicas_at_once", lambda *_: 3)
    monkeypatch.setattr(plan, "check_that_one_fits", lambda *_: None)
    encoded = [encode(Image.new("RGB", size), "PNG") for size in ((100, 100), (150, 100))]
    recipe = replace(tiny_recipe, policies=(1, 10, 144))
    found = estimate(run, recipe, Resources(), Counts(24, 42, 3), lambda *_: 1, encoded, soup=False)
    assert found.views_per_image == (48 + 144) / 2
    assert found.evaluation_seconds == pytest.approx(42 * 96 * recipe.replicas / 100)
    assert asked == [2]  # of the three replicas that run at once, on two nodes


def test_workers_of_one_trial_count_by_their_means() -> None:
    one = Trial((FP32,), (0.4,), (1.0,), 90.0, 7, seconds_per_sample=0.1, seconds_per_crop=0.2, memory_bytes=5)
    other = replace(one, seconds_per_step=(0.6,), passes_per_second=110.0, seconds_per_sample=0.3, memory_bytes=6)
    both = trial._means([one, other])
    assert both.seconds_per_step == (0.5,)
    assert (both.passes_per_second, both.seconds_per_sample, both.memory_bytes) == (100.0, pytest.approx(0.2), 6)
