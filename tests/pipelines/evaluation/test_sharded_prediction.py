"""Tests of the sharded evaluation: exact with any number of predictors and after any kill; choice of arithmetic."""

import csv
import json
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray

import pipelines.evaluation.arithmetic_trial
import pipelines.evaluation.preflight
from googlenet.evaluation.averages import Prediction
from googlenet.evaluation.predictor import Predictor
from googlenet.images.scaled_image import ScaledImage
from googlenet.network.arithmetic import FP32
from pipelines.errors import UserError
from pipelines.evaluate_ensemble import Arguments, evaluate_elsewhere
from pipelines.evaluation.arithmetic_trial import ArithmeticTrial
from pipelines.evaluation.cost import cost_line
from pipelines.evaluation.evaluate import Settings, evaluate
from pipelines.evaluation.predictors import AS_MANY_AS_FIT, Predictors
from pipelines.evaluation.preflight import Preflight, Work, _little_work_here, _trial, decide, is_little
from pipelines.evaluation.sharded_prediction import PredictionTask, missing_shards, predict
from pipelines.report.write import write_report
from pipelines.run.dataset import read_manifest
from pipelines.run.predictions import EvaluatedEnsemble, read_ensemble
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from tests.servers import ray_processes

pytestmark = pytest.mark.timeout(300)
FILES = ("000000.parquet", "000001.parquet", "000002.parquet")  # 42 images


@pytest.fixture
def evaluated(finished_run: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished run with its predictions and report."""
    shutil.copytree(finished_run, tmp_path / "run")
    return tmp_path / "run"


def task_of(run: Path) -> PredictionTask:
    storage = Storage.at(str(run))
    ensemble = read_ensemble(storage.below("predictions"), FILES[0])
    assert ensemble is not None
    weights = tuple(f"replicas/{k}/weights.safetensors" for k in range(len(ensemble.replicas)))
    return PredictionTask(storage, storage, weights, ensemble, read_manifest(storage).splits["val"])


def work_of(task: PredictionTask) -> Work:
    return Work(task, "auto", task.split.images * len(task.ensemble.views) * len(task.weights), at_work=2)


def work_with_few_views(run: Path, policies: tuple[int, ...] = (1, 10)) -> Work:
    """Work whose arithmetics are timed on ten views of an image: bfloat16 that a CPU emulates takes long for 144."""
    task = task_of(run)
    return work_of(replace(task, ensemble=replace(task.ensemble, policies=policies)))


def tables(run: Path) -> list[dict[str, list[object]]]:
    return [pq.read_table(run / "predictions" / name).to_pydict() for name in FILES]


def test_one_predictor_with_all_memory_even_if_it_is_killed_gives_the_same_bits_as_two(
    ray_cluster: str, evaluated: Path
) -> None:
    assert (
        Predictors.that_fit(AS_MANY_AS_FIT, {"cpu": 0, "gpu": 0}).number == 2
    )  # so many made the finished run's predictions
    before, task = tables(evaluated), task_of(evaluated)
    shutil.rmtree(evaluated / "predictions")
    killed: list[int] = []

    def kill_the_first_predictor() -> None:
        while not list((evaluated / "predictions").glob("*")):
            time.sleep(0.01)
        process = next(ray_processes(ray_cluster, "MapWorker"))
        process.kill()
        killed.append(process.pid)

    killer = threading.Thread(target=kill_the_first_predictor, daemon=True)
    killer.start()
    # What feeds it finds no memory to reserve.
    predict(task, range(3), 42, Predictors(1, 0.0, memory_bytes=int(ray.cluster_resources()["memory"])))
    killer.join(10)
    assert killed
    assert tables(evaluated) == before


def test_only_missing_shards_are_done_again(evaluated: Path) -> None:
    task = task_of(evaluated)
    (evaluated / "predictions" / FILES[1]).unlink()
    (evaluated / "predictions" / FILES[2]).write_bytes(b"torn")
    for folder in ("predictions", "view_probabilities"):
        Storage.at(str(evaluated)).write(f"{folder}/{FILES[1]}.partial-0123", b"half")
    untouched = (evaluated / "predictions" / FILES[0]).stat().st_mtime_ns
    assert missing_shards(task, 42) == [1, 2]
    assert (evaluated / "predictions" / FILES[0]).stat().st_mtime_ns == untouched
    assert list(evaluated.rglob("*.partial-*")) == []


def test_little_work_is_done_in_fp32_without_a_trial(ray_cluster: str, finished_run: Path) -> None:
    kept = json.loads((finished_run / "preflight.json").read_text())["preflight"]
    assert kept["arithmetic"] == {"precision": "fp32", "compiled": False}
    assert kept["reason"] == "little work"
    assert kept["passes_per_second"] > 0


def test_little_work_is_told_by_its_time_not_by_its_operations(
    evaluated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The demo on two cores takes a minute or two; 14,400 passes of a wide network on a slow machine take ten minutes.
    assert is_little(240 * 144 * 7, passes_per_second=2 * 1569)
    assert is_little(240 * 144 * 7, passes_per_second=2 * 1000)
    assert not is_little(14_400, passes_per_second=2 * 12)
    work = work_of(task_of(evaluated))
    here = _little_work_here(work)
    assert here is not None
    assert (here.arithmetic, here.reason) == (FP32, "little work")
    monkeypatch.setattr(pipelines.evaluation.preflight, "LITTLE_WORK_SECONDS", 0.0)
    assert _little_work_here(work) is None  # as few operations, but too slow


@pytest.fixture
def long_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat all work as long and every CPU as one with bfloat16, without a compiler."""
    monkeypatch.setattr(pipelines.evaluation.preflight, "LITTLE_WORK_SECONDS", 0.0)
    monkeypatch.setattr(pipelines.evaluation.preflight, "profits_from_bf16", lambda _device: True)
    monkeypatch.setattr(pipelines.evaluation.preflight, "can_compile", lambda _device: False)
    monkeypatch.setattr(pipelines.evaluation.arithmetic_trial, "TIMED_SECONDS", 0.1)


def test_bf16_is_compared_and_timed_against_fp32(
    evaluated: Path, long_work: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Networks this narrow and hardly trained need not be within the bounds that users get.
    monkeypatch.setattr(pipelines.evaluation.arithmetic_trial, "LARGEST_DIFFERENCE", 0.5)
    monkeypatch.setattr(pipelines.evaluation.arithmetic_trial, "LEAST_AGREEMENT_PERCENT", 80.0)
    monkeypatch.setattr(pipelines.evaluation.arithmetic_trial, "LEAST_TOP5_AGREEMENT_PERCENT", 0.0)
    trials: list[ArithmeticTrial] = []
    monkeypatch.setattr(pipelines.evaluation.preflight, "_trial", lambda *a: trials.append(_trial(*a)) or trials[0])
    work = work_with_few_views(evaluated)
    found = decide(work)
    assert found.compared == 16 * 3
    assert found.largest_difference is not None
    assert 0 < found.largest_difference < 0.5
    assert "not compiled: no C++ compiler" in found.reason
    timings = list(trials[0]._timings.values())
    assert {timing.arithmetic.precision for timing in timings} == {"fp32", "bf16"}
    assert all(str(timing) in found.reason for timing in timings)
    # The set-up counts as well: of nearly equal ones, the slower may be done sooner.
    seconds = [t.set_up_seconds + work.passes / (t.passes_per_second * work.at_work) for t in timings]
    soonest = timings[seconds.index(min(seconds))]
    assert (found.arithmetic, found.passes_per_second) == (soonest.arithmetic, soonest.passes_per_second)


def test_an_arithmetic_is_timed_by_as_many_predictors_at_once_as_share_a_node(
    evaluated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody gets past the barrier unless three threads predict at the same time.
    together, predict_each = threading.Barrier(3, timeout=60), Predictor.predict_each
    passes: list[int] = []

    def predict_together(predictor: Predictor, images: list[ScaledImage]) -> list[Prediction]:
        together.wait()
        before = predictor.forward_passes
        found = list(predict_each(predictor, images))
        passes.append(predictor.forward_passes - before)
        return found

    monkeypatch.setattr(Predictor, "predict_each", predict_together)
    monkeypatch.setattr(pipelines.evaluation.preflight, "timed_at_once", lambda *_: 3)
    assert decide(work_of(task_of(evaluated))).reason == "little work"
    assert len(passes) % 3 == 0
    # In each round, each counts its own passes: the 48 or 144 distinct views of each image by one replica.
    rounds = {tuple(passes[first : first + 3]) for first in range(0, len(passes), 3)}
    assert rounds
    assert all(len(set(counts)) == 1 and counts[0] % 48 == 0 < counts[0] for counts in rounds)


@pytest.mark.parametrize(("bound", "value"), [("LARGEST_DIFFERENCE", 0.0), ("LEAST_AGREEMENT_PERCENT", 100.1)])
def test_bf16_that_differs_is_refused_with_its_measure(
    evaluated: Path, long_work: None, monkeypatch: pytest.MonkeyPatch, bound: str, value: float
) -> None:
    monkeypatch.setattr(pipelines.evaluation.arithmetic_trial, bound, value)
    found = decide(work_with_few_views(evaluated, (1,)))
    assert found.arithmetic == FP32
    assert "bf16 refused: " in found.reason
    assert "of 48 answers as in fp32" in found.reason


def test_a_processor_without_bf16_stays_with_fp32(
    evaluated: Path, long_work: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines.evaluation.preflight, "profits_from_bf16", lambda _device: False)
    found = decide(work_of(task_of(evaluated)))
    assert (found.arithmetic, found.reason) == (
        FP32,
        "no bfloat16 in hardware; not compiled: no C++ compiler",
    )


def test_the_precision_that_is_asked_for_is_taken_and_kept_apart(
    ray_cluster: str, predictions_here: None, evaluated: Path, tiny_recipe: Recipe
) -> None:
    run = Storage.at(str(evaluated))
    exact = json.loads((evaluated / "report/report.json").read_text())
    write_report(run, evaluate(run, run, range(3), read_manifest(run), Settings((1,), 35, "bf16")))
    reduced = json.loads((evaluated / "report/report.json").read_text())
    assert reduced["ensemble"]["arithmetic"] == {"precision": "bf16", "compiled": False}
    for found, wanted in zip(reduced["calibration"], (exact["calibration"][n] for n in (0, 3)), strict=True):
        assert found["brier_score"] == pytest.approx(wanted["brier_score"], abs=0.01)
    assert read_ensemble(run.below("predictions"), FILES[0]) != EvaluatedEnsemble.from_dict(exact["ensemble"])


def test_the_cost_line_counts_what_is_left(finished_run: Path) -> None:
    ensemble = task_of(finished_run).ensemble
    line = cost_line(Preflight(FP32, "little work", 100.0), ensemble, images=1000, done=250, num_predictors=4)
    # 1,000 images x 144 views x 3 replicas; 750 of the images at 400 passes per second take 810 seconds.
    assert (
        "cost: 432,000 forward passes (1,000 images, 250 already done, 144 views, 3 replicas), about 13:30 at" in line
    )
    assert "arithmetic: fp32, not compiled (little work)" in line
    # On square images, 48 of the 144 views are distinct.
    square = Preflight(FP32, "little work", 100.0, views_per_image=48.0)
    line = cost_line(square, ensemble, images=1000, done=250, num_predictors=4)
    assert (
        "cost: 144,000 forward passes (1,000 images, 250 already done, 144 views, 48 of them distinct, 3 replicas), "
        "about 4:30 at" in line
    )


def test_the_cost_line_does_not_promise_less_than_is_written(finished_run: Path) -> None:
    ensemble = task_of(finished_run).ensemble
    million = cost_line(Preflight(FP32, "", 1.0), ensemble, images=10**6, done=0, num_predictors=1)
    # 3 replicas x (3 policies + 1 maximum) x 3 classes, (3 + 1) x (144 views + 15 groups), 4 bytes each, per image.
    assert f"at most {4 * (3 * 4 * 3 + 4 * 159) / 1e3:.2f} GB of predictions" in million
    few = cost_line(Preflight(FP32, "", 1.0), ensemble, images=1000, done=0, num_predictors=1)
    assert "at most 2.7 MB of predictions" in few


def test_images_without_labels_get_the_ensembles_answers(
    ray_cluster: str, predictions_here: None, evaluated: Path, tiny_recipe: Recipe, photo_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "holiday"
    shutil.copytree(photo_folder / "val", folder / "any" / "names")
    (folder / 'one, with a "comma".jpg').write_bytes((photo_folder / "val/class_0/0.jpg").read_bytes())
    arguments = Arguments(str(evaluated), str(folder), unlabelled=True)
    text = evaluate_elsewhere(Storage.at(str(evaluated)), tiny_recipe, arguments)
    (answers,) = (evaluated / "evaluations").glob("holiday-*/answers")
    assert f"answers: {answers}/top5.csv" in text
    assert "and 33 more" in text
    table = pq.read_table(answers / "top5.parquet").to_pylist()
    with (answers / "top5.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["image_id"] for row in rows] == [row["image_id"] for row in table]
    assert len(rows) == 43
    assert rows[-1]["image_id"] == 'one, with a "comma".jpg'
    # The images are those of the run's own validation, and so are the probabilities, with the run's temperature.
    temperature = json.loads((evaluated / "calibration.json").read_text())["all_models"]["144"]
    own = {}
    for predicted in tables(evaluated):
        for number, image_id in enumerate(predicted["image_id"]):
            vectors = [predicted[f"replica_{k}/144_crops"][number] for k in range(3)]
            own[image_id] = np.array(vectors)
    for row in table[:-1]:
        vectors = own[row["image_id"].replace("any/names", "val")]
        mean = vectors.mean(axis=0, dtype=np.float64)
        order = np.argsort(-mean)
        assert [row[f"answer_{place}"] for place in (1, 2, 3)] == [f"class_{label}" for label in order]
        powers = mean ** (1 / temperature)
        assert row["probability_1"] == pytest.approx(powers.max() / powers.sum(), abs=1e-6)
        assert row["agreement"] == pytest.approx((vectors.argmax(axis=1) == order[0]).mean())
    assert "answer_4" not in table[0]


def test_a_folder_without_images_is_named(finished_run: Path, tiny_recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no images in .*/empty"):
        evaluate_elsewhere(
            Storage.at(str(finished_run)),
            tiny_recipe,
            Arguments(str(finished_run), str(tmp_path / "empty"), unlabelled=True),
        )


@pytest.mark.parametrize("policies", [(2,), ("34+50",), (1, 1), ("50+40",)])
def test_crops_that_do_not_exist_are_refused_before_anything_starts(
    finished_run: Path, tiny_recipe: Recipe, photo_folder: Path, policies: tuple[int | str, ...]
) -> None:
    with pytest.raises(UserError, match="crop polic"):
        replace(tiny_recipe, policies=policies)
    with pytest.raises(UserError, match="crop polic"):
        evaluate_elsewhere(
            Storage.at(str(finished_run)),
            tiny_recipe,
            Arguments(str(finished_run), str(photo_folder), policies=policies),
        )
