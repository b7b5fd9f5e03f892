"""Claims: the plan of an evaluation counts the passes of its predictors and soups, and what they wait for."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from googlenet.evaluation.temperature import FOLDS
from pipelines.job.limits import Limits
from pipelines.job.meter import Meter
from pipelines.run.dataset import Counts
from pipelines.run.recipe import Recipe
from pipelines.run.soups import MOST_SOUPS
from pipelines.run.storage import Storage
from pipelines.training import plan, time_estimate
from pipelines.training.network import relative_operations
from pipelines.training.resources import Resources
from pipelines.training.time_estimate import Estimate
from pipelines.training.trial import Trial
from tests.picture_files import encode
from tests.pipelines.training.planned_runs import (
    MEASURED,
    estimated,
    estimated_evaluation,
    measure,
    predict,
    trained,
)


def test_soups_count_in_the_time_and_the_cost_until_they_are_there(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained(tmp_path, tiny_recipe, monkeypatch)

    def with_recipe(recipe: Recipe, *, soup: bool) -> Estimate:
        return estimated(run, recipe, Resources(), soup=soup)

    with_soup, without = (with_recipe(tiny_recipe, soup=soup) for soup in (True, False))
    # One network, and five centre crops of each image for the choice: of the three replicas, and of two with one more.
    assert with_soup.seconds - without.seconds == pytest.approx(
        without.evaluation_seconds / tiny_recipe.replicas + 5 * 42 / 100
    )
    # 42 images in 144 views, of which the other policies are a part, at 100 passes per second: a minute for a network.
    [line] = plan._soup_line(with_soup)
    assert line.startswith("soups: about 1:03 to choose them and predict the uniform one, up to 7:05 if")
    assert plan._soup_line(without) == []
    assert MOST_SOUPS == 2 + FOLDS
    assert with_recipe(replace(tiny_recipe, replicas=1), soup=True).soup_seconds == 0
    kept = {"are_predicted": True, "replicas": [0, 1, 2], "weights_digests": ["a", "b", "c"]}
    run.write_json("soup/soups.json", kept)
    assert with_recipe(tiny_recipe, soup=True).soup_seconds == 0
    run.write_json("soup/soups.json", {**kept, "replicas": [0, 2], "weights_digests": ["a", "c"]})
    assert with_recipe(tiny_recipe, soup=True).soup_seconds == with_soup.soup_seconds  # one has been trained since


def test_views_of_square_images_that_coincide_are_counted_once(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, asked = Storage.at(str(tmp_path)), []

    def run_trial(*of_trial: object) -> Trial:
        asked.append(of_trial[-2:])
        return MEASURED

    monkeypatch.setattr(time_estimate, "run_trial", run_trial)
    monkeypatch.setattr(time_estimate, "nodes_used", lambda *_: 2)
    monkeypatch.setattr(time_estimate, "replicas_at_once", lambda *_: 3)
    monkeypatch.setattr(time_estimate, "check_that_one_fits", lambda *_: None)
    encoded = [encode(Image.new("RGB", size), "PNG") for size in ((100, 100), (150, 100))]
    recipe = replace(tiny_recipe, policies=(1, 10, 144))
    found = estimated(run, recipe, Resources(), encoded=encoded)
    assert found.views_per_image == (48 + 144) / 2
    assert found.evaluation_seconds == pytest.approx(42 * 96 * recipe.replicas / 100)
    assert asked == [(2, 6)]  # of the three replicas that run at once, on two nodes; two epochs of three steps


@pytest.mark.parametrize(("resources", "threads"), [(Resources(8.0), 8), (Resources(8.0, 1.0), 1), (Resources(0.5), 1)])
def test_a_predictor_has_one_thread_however_many_a_worker_has(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resources: Resources, threads: int
) -> None:
    measure(monkeypatch)
    found = estimated(Storage.at(str(tmp_path)), tiny_recipe, resources)
    assert found.evaluation_seconds == pytest.approx(42 * 144 * tiny_recipe.replicas / (100 / threads))


@pytest.mark.parametrize(("gpus_per_worker", "gpus", "speed"), [(1, 1, 100), (1, 0.25, 25), (0.25, 0.25, 100)])
def test_predictors_that_share_a_gpu_share_its_speed(
    tiny_recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    gpus_per_worker: float,
    gpus: float,
    speed: float,
) -> None:
    measure(monkeypatch)
    found = estimated(Storage.at(str(tmp_path)), tiny_recipe, Resources(8, gpus_per_worker), gpus)
    assert found.evaluation_seconds == pytest.approx(42 * 144 * tiny_recipe.replicas / speed)


@pytest.mark.parametrize(
    ("resources", "gpus", "where"), [(Resources(), 1.0, "GPUs"), (Resources(8.0, 1.0), 0.0, "CPUs")]
)
def test_a_limit_keeps_nothing_back_for_predictors_that_a_trial_cannot_time(
    tiny_recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    resources: Resources,
    gpus: float,
    where: str,
) -> None:
    """By default predictors reserve GPUs and workers do not: the job would have stopped before its first step."""
    measure(monkeypatch)
    run = Storage.at(str(tmp_path))
    found = estimated(run, tiny_recipe, resources, gpus, Counts(24, 10**6, 3), soup=True)
    meter = Meter(Limits(max_hours=10.0), [], nodes=lambda: 1)
    meter.expect(found.seconds, found.evaluation_seconds, found.nodes)
    assert meter.why_stop() == ""
    assert found.seconds == found.training_seconds > 0
    assert plan._evaluation_line(tiny_recipe, found) == (
        f"evaluation: 432,000,000 forward passes with 1 predictor on {where}, which were not tried: "
        "no estimate of the time"
    )
    assert plan._soup_line(found) == []


@pytest.mark.parametrize(
    ("resources", "seconds_per_scaled_image", "expected"),
    [
        (Resources(), 2.0, 3 * 42 * 144 / 100 + 42 * 2),  # a predictor and what feeds it share a core
        (Resources(8, 1), 2.0, 3 * 42 * 144 / 100),  # while the GPU computes
        (Resources(8, 1), 60.0, 42 * 60 / 6),  # the GPU waits for six tasks
        (Resources(2, 1), 60.0, 42 * 60 / 2),  # which have two CPUs
    ],
)
def test_beside_a_gpu_images_are_scaled_while_it_computes(
    tiny_recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    resources: Resources,
    seconds_per_scaled_image: float,
    expected: float,
) -> None:
    measure(monkeypatch, seconds_per_scaled_image=seconds_per_scaled_image)
    found = estimated(Storage.at(str(tmp_path)), tiny_recipe, resources)
    assert found.evaluation_seconds == pytest.approx(expected)


def test_the_images_of_soups_are_chosen_on_and_scaled_once_for_all_of_them(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {"seconds_per_scaled_image": 1.0, "seconds_per_crop": 0.5, "start_seconds": 3.0}
    run = trained(tmp_path, tiny_recipe, monkeypatch, **times)
    found = estimated(run, tiny_recipe, Resources(), soup=True)
    one_network, once = 42 * 144 / 100, 42 + 5 * 42 * (1 / 100 + 0.5) + 4 * 3
    assert found.soup_seconds == pytest.approx(one_network + once)
    assert found.most_soup_seconds == pytest.approx(MOST_SOUPS * one_network + once)


def test_a_wider_replica_counts_by_its_operations(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    even = estimated_evaluation(tmp_path, tiny_recipe, monkeypatch)
    wide = replace(tiny_recipe, wide_replica_width=4 * tiny_recipe.width)
    one, *others, last = relative_operations(wide, 3)
    assert (one, others) == (1.0, [1.0])
    assert 8 < last < 16  # 16 times as many in most layers, 4 times in the first one
    assert estimated_evaluation(tmp_path, wide, monkeypatch) == pytest.approx(even * (2 + last) / 3)


def test_predictions_of_fewer_replicas_are_still_to_be_made(
    tiny_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Storage.at(str(tmp_path))
    left = {}
    for replicas in (2, 3):
        predict(run, replicas)
        left[replicas] = estimated_evaluation(tmp_path, tiny_recipe, monkeypatch)
    assert left == {2: pytest.approx(42 * 144 * 3 / 100), 3: 0.0}
