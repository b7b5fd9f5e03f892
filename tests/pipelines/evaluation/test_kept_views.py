"""The way from single views that predictors keep to a budget, and to answers that stop early; without a cluster."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from googlenet import Ensemble, GoogLeNet
from googlenet.evaluation.cascade import NEVER, Stop
from googlenet.evaluation.kept_budget import EarlyStop
from googlenet.network.arithmetic import FP32
from googlenet.network.initialisation import initialise
from googlenet.network.preprocessing import SCRATCH_PREPROCESSING
from googlenet.network.weights import to_safetensors
from googlenet.randomness import torch_generator
from pipelines.errors import UserError
from pipelines.evaluation.evaluate import _digests_and_memory
from pipelines.evaluation.sharded_prediction import PredictionTask, ShardPredictor, load_shard
from pipelines.report.answers import write_answers
from pipelines.report.write import write_report
from pipelines.run.budget import budget_in_use, read_budget, with_chosen_views
from pipelines.run.dataset import open_records, read_manifest
from pipelines.run.predictions import EvaluatedEnsemble, file_name, read_costs, read_predictions
from pipelines.run.storage import Storage
from pipelines.run.view_probabilities import read_views

pytestmark = pytest.mark.timeout(300)
IMAGES, SHARDS, CROP_PX = 42, 3, 35


@pytest.fixture(scope="module")
def task(prepared_run: Path, tmp_path_factory: pytest.TempPathFactory) -> PredictionTask:
    """A run with the predictions and the report, without pictures, of two networks that were not trained."""
    folder = tmp_path_factory.mktemp("views") / "run"
    shutil.copytree(prepared_run, folder)
    run, manifest = Storage.at(str(folder)), read_manifest(Storage.at(str(folder)))
    weights = tuple(f"replicas/{replica}/weights.safetensors" for replica in range(2))
    for seed, name in enumerate(weights):
        model = GoogLeNet(3, "bn", False, 0.05)
        initialise(model, "he", torch_generator(seed, "initial_weights"))
        more = {"classes": manifest.classes, "crop_px": CROP_PX}
        run.write(name, to_safetensors(model, model.state_dict(), SCRATCH_PREPROCESSING, **more))
    digests, _ = _digests_and_memory(run, weights, CROP_PX)
    names = ("replica_0", "replica_1")
    ensemble = EvaluatedEnsemble(names, digests, (1, 144), CROP_PX, manifest.classes, manifest.digest, FP32)
    made = PredictionTask(run, run, weights, ensemble, manifest.splits["val"], keep_views=True)
    predictor = ShardPredictor(made)
    for shard in range(SHARDS):
        predictor(load_shard(made, shard, IMAGES))
    write_report(run, ensemble, with_pictures=False)
    return made


def test_the_kept_views_average_to_the_predictions(task: PredictionTask) -> None:
    views = read_views(task.run, task.ensemble)
    assert views is not None
    assert views.probabilities.shape == (IMAGES, 2, 144, 3)
    names = [file_name(shard) for shard in range(SHARDS)]
    rows = [row for part in read_predictions(task.predictions, names, task.ensemble) for row in
            zip(part.image_ids, part.probabilities[:, :, -1], strict=True)]  # fmt: skip
    averages = dict(zip(views.image_ids, views.probabilities.astype(np.float64).mean(axis=2), strict=True))
    for image_id, expected in rows:
        np.testing.assert_allclose(averages[image_id], expected, atol=1e-3)
    report = json.loads(task.run.read("report/report.json"))
    assert {row["way"] for row in report["spending"]} == {
        "replicas",
        "replicas_and_views",
        "views",
        "chosen_views",
        "cascade",
    }
    assert [row["images"] for row in report["budgets"]] == [IMAGES, IMAGES]


def test_a_predictor_without_a_gpu_of_its_own_predicts_on_the_cpu(
    task: PredictionTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray shows the GPUs of a node to processes that reserve none; here there is none to be found."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    elsewhere = replace(task, run=Storage.at(str(tmp_path)), images=task.run)
    ShardPredictor(elsewhere)(load_shard(elsewhere, 2, IMAGES))
    [predicted] = read_predictions(elsewhere.predictions, [file_name(2)], task.ensemble)
    [before] = read_predictions(task.predictions, [file_name(2)], task.ensemble)
    np.testing.assert_array_equal(predicted.probabilities, before.probabilities)


def test_a_run_that_keeps_no_order_says_how_to_get_one(task: PredictionTask, tmp_path: Path) -> None:
    kept = read_budget(task.run, task.ensemble.weights_digests)
    assert kept is not None
    [best, one] = with_chosen_views(task.run, range(2), ("best:5", 1))
    assert str(best).startswith("best:5:")
    assert one == 1
    shutil.copytree(task.run.root, tmp_path / "old", ignore=shutil.ignore_patterns("budget.json"))
    needs = r"--policies best:5 needs .*budget\.json .* repeat the evaluation .* delete .*predictions first"
    with pytest.raises(UserError, match=needs):
        with_chosen_views(Storage.at(str(tmp_path / "old")), range(2), ("best:5",))
    with pytest.raises(UserError, match="must have 1 to 144 views"):
        with_chosen_views(task.run, range(2), ("best:0",))


def test_a_predictor_within_a_budget_answers_like_the_ensemble_and_counts_fewer_passes(task: PredictionTask) -> None:
    kept = budget_in_use(task.run, range(2), "--budget fast")
    views = read_views(task.run, task.ensemble)
    assert views is not None
    # A threshold that some images reach with their first pass, and others never.
    surest = views.probabilities[:, 0, kept.view_order[0]].max(axis=1)
    # Those that never reach it make all passes, which takes long: let them be few.
    stop = Stop(float(np.quantile(surest, 0.15)), len(kept.stages) - 1)
    kept = replace(kept, temperatures=(1.0,) * len(kept.stages), stops={"fast": stop})
    early = EarlyStop(kept, "fast")
    ensemble = replace(task.ensemble, policies=(144,), budget=early.key)
    run = task.run.below("evaluations/early")
    shutil.copytree(Path(task.run.root) / "dataset", Path(run.root) / "dataset")
    limited = replace(task, run=run, ensemble=ensemble, keep_views=False, early_stop=early)
    predictor = ShardPredictor(limited)
    for shard in range(SHARDS):
        predictor(load_shard(limited, shard, IMAGES))
    run.write_json("preflight.json", {"key": "", "preflight": {"passes_per_second": 100.0}})
    text = write_answers(run, ensemble, budget=kept)
    assert "budget fast: " in text
    replicas = Ensemble.load([f"{task.run.root}/{name}" for name in task.weights])
    replicas.budget = kept
    records = open_records(run, task.split)
    answers = pq.read_table(f"{run.root}/answers/top5.parquet").to_pylist()
    assert len(answers) == IMAGES
    longest = max(range(IMAGES), key=lambda index: answers[index]["passes"])
    some = {*range(0, IMAGES, 6), longest}  # of every shard
    assert len({answers[index]["passes"] for index in some}) > 1
    for index in some:
        row, expected = answers[index], replicas.answers(records[index].image, budget="fast")
        assert (row["answer_1"], row["passes"]) == (expected["answer_1"], expected["passes"])
        assert row["probability_1"] == pytest.approx(expected["probability_1"], abs=1e-5)
    assert sum(row["passes"] for row in answers) == sum(cost.forward_passes for cost in read_costs(limited.predictions))
    assert {row["passes"] for row in answers} >= {1}
    assert max(row["passes"] for row in answers) > 1
    assert stop.threshold < NEVER
    with pytest.raises(ValueError, match=r"^the budget fast decides how many of the 144 views are computed"):
        replicas.answers(records[0].image, 10, budget="fast")
