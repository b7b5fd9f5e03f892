"""Temperatures in the report: judged on images that they never saw, kept with the run, used on other images."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from googlenet.evaluation.conformal import SetRule
from googlenet.evaluation.crops import chosen_policy
from googlenet.evaluation.kept_budget import KeptBudget
from googlenet.evaluation.kept_calibration import KeptCalibration
from googlenet.evaluation.metrics import subsets
from googlenet.evaluation.selective import MEASURES
from googlenet.evaluation.temperature import fit_temperature
from googlenet.network.arithmetic import FP32
from pipelines.report import temperatures
from pipelines.report.abstention import ReportedSets, set_rows
from pipelines.report.remarks import about_temperatures
from pipelines.report.temperatures import Calibrated, KeptProbabilities, calibrate, some_ensembles
from pipelines.report.write import write_report
from pipelines.run.calibration import read_calibration
from pipelines.run.predictions import EvaluatedEnsemble, Predicted
from tests.pipelines.report.made_runs import ENSEMBLE, cautious_rows, made_run, predict

THREE = EvaluatedEnsemble(("r0", "r1", "r2"), ("x", "y", "z"), (1, 144), 84, tuple("abcd"), "digest", FP32)


def part(rows: Predicted, places: slice) -> Predicted:
    arrays = {name: getattr(rows, name)[places] for name in Predicted.__dataclass_fields__}
    return Predicted(**arrays)


def kept_of(*parts: Predicted, images: int = 400) -> KeptProbabilities:
    kept = KeptProbabilities(THREE, images)
    for rows in parts:
        kept.update(rows)
    return kept


@cache
def fitted() -> Calibrated:
    """The calibration of all cautious rows; to make one takes two seconds."""
    calibrated = calibrate(kept_of(cautious_rows()), THREE, None)
    assert calibrated is not None
    return calibrated


def test_cautious_probabilities_become_accurate_for_every_number_of_models_and_policy() -> None:
    calibrated = fitted()
    cells = [(row["models"], row["policy"], row["ensembles"]) for row in calibrated.rows]
    assert cells == [(models, policy, number) for models, number in ((1, 3), (2, 3), (3, 1)) for policy in ("1", "144")]
    for row in calibrated.rows:
        assert row["temperature"] < 1
        assert row["judged_on"] == "other_folds"
        error = row["expected_calibration_error"]
        assert error["before"] > 0.3
        assert error["after"] < 0.06
    assert calibrated.calibration.images == 400
    kept = calibrated.calibration
    for row in calibrated.rows:
        assert kept.temperature(row["models"], row["policy"]) == row["temperature"]
    assert kept.temperature(4, "144") is None
    assert {"brier_score/2x144", "brier_score/2x144/calibrated"} < calibrated.scores.keys()


def test_the_temperature_of_a_size_suits_its_ensembles_and_those_of_other_sizes_differ() -> None:
    ids, probabilities, labels = kept_of(cautious_rows()).sorted()
    pairs = np.stack([probabilities[:, [a, b], 1].mean(axis=1, dtype=np.float64) for a, b in ((0, 1), (1, 2), (2, 0))])
    kept = fitted().calibration
    assert kept.temperature(2, 144) == fit_temperature(pairs, labels)
    assert len({kept.temperature(models, 144) for models in (1, 2, 3)}) == 3
    before = [row["brier_score"]["before"] for row in fitted().rows if (row["models"], row["policy"]) == (2, "144")]
    own = np.take_along_axis(pairs, np.broadcast_to(labels[:, None], (3, 400, 1)), axis=2)[..., 0]
    assert before == [pytest.approx((np.square(pairs).sum(axis=2) - 2 * own + 1).mean())]
    assert len(ids) == 400


@pytest.mark.parametrize(("replicas", "models"), [(1, 1), (7, 1), (7, 3), (7, 6), (7, 7), (4, 2)])
def test_each_replica_is_in_equally_many_of_the_ensembles_of_a_size(replicas: int, models: int) -> None:
    ensembles = some_ensembles(replicas, models)
    assert {len(set(members)) for members in ensembles} == {models}
    assert len(set(np.bincount(np.concatenate(ensembles), minlength=replicas))) == 1
    assert len(ensembles) <= replicas
    if models in (1, replicas):
        assert sorted(map(sorted, ensembles)) == [list(members) for members in subsets(replicas)[models]]


def test_an_ensemble_of_some_of_the_replicas_has_the_temperature_of_its_size_and_no_sets() -> None:
    kept = fitted().calibration
    assert kept.for_weights(("x", "y", "z")) is kept.for_weights(("z", "x", "y")) is kept
    for digests in (("x", "z"), ("y",)):
        some = kept.for_weights(digests)
        assert some is not None
        assert some.temperature(len(digests), 144) == kept.temperature(len(digests), 144)
        assert some.threshold(144, 0.9) is None
    for others in (("x", "other"), ("x", "x"), ("z", "y", "x", "other")):
        assert kept.for_weights(others) is None


def test_a_penalty_on_ranks_shapes_the_sets_of_the_report_and_is_named() -> None:
    generator, ten = np.random.default_rng(4), replace(THREE, classes=tuple("abcdefghij"))
    hard = generator.dirichlet(np.ones(10), 200)
    labels = np.concatenate([np.arange(200) % 10, [generator.choice(10, p=row) for row in hard]]).astype(np.int32)
    easy = np.where(np.arange(10) == labels[:200, None], 0.91, 0.01)
    everyone, folds = np.concatenate([easy, hard]), np.arange(400) % 5
    [plain, _] = set_rows(everyone, labels, folds, ten, None)
    [penalised, _] = set_rows(everyone, labels, folds, ten, None, ReportedSets(SetRule(10.0)))
    assert (plain["penalty"], penalised["penalty"]) == (0.0, 10.0)
    # Adaptive sets are short where the answer is sure; with a penalty that outweighs all, no longer.
    assert plain["single_answers"] > 40
    assert penalised["single_answers"] == 0
    assert min(plain["empirical_coverage"], penalised["empirical_coverage"]) > 86


def test_the_result_does_not_depend_on_which_shard_comes_first() -> None:
    rows = cautious_rows()
    first, last = part(rows, slice(0, 150)), part(rows, slice(150, 400))
    assert calibrate(kept_of(last, first), THREE, None) == fitted()


def test_temperatures_of_the_training_run_are_judged_as_they_are() -> None:
    ours = fitted()
    known = replace(ours.calibration, all_models={"144": 0.5}, images=77)
    again = calibrate(kept_of(cautious_rows()), THREE, known)
    assert again is not None
    assert again.calibration is known
    by_cell = {(row["models"], row["policy"]): row for row in again.rows}
    assert by_cell[3, "144"]["temperature"] == 0.5
    assert by_cell[3, "144"]["judged_on"] == "other_images"
    assert by_cell[3, "1"]["judged_on"] == "other_folds"  # not fitted for this policy


def with_chosen_views(known: KeptCalibration | None) -> tuple[str, Calibrated]:
    """One chosen view, which has a temperature with its order, and the calibration of images that answer by it."""
    chosen, order = chosen_policy([5]), (5, *(place for place in range(144) if place != 5))
    budget = KeptBudget(("x", "y", "z"), "d", 50, order, ((1, 1),), (1.0,), (0.7,) * 144, {})
    kept, ensemble = kept_of(part(cautious_rows(), slice(0, 60)), images=60), replace(THREE, policies=(chosen, 144))
    found = calibrate(kept, ensemble, known, known_budget=budget)
    assert found is not None
    return chosen, found


def test_chosen_views_have_the_temperature_kept_with_their_order_and_the_words_name_what_the_run_lacks() -> None:
    chosen, found = with_chosen_views(fitted().calibration)
    by_cell = {(row["models"], row["policy"]): row for row in found.rows}
    assert (by_cell[3, chosen]["temperature"], by_cell[3, chosen]["judged_on"]) == (0.7, "other_images")
    assert by_cell[1, chosen]["judged_on"] == "other_folds"
    report: Any = {"temperatures": found.rows}
    assert "the run keeps none for one model with one crop (best): there, each of 5 folds" in about_temperatures(report)
    report = {"temperatures": [row for row in found.rows if row["judged_on"] == "other_images"]}
    assert "(fitted on the validation images of the training run, which are other images;" in about_temperatures(report)


def test_a_run_without_a_calibration_keeps_none_of_probabilities_with_the_floor_of_its_budget() -> None:
    chosen, found = with_chosen_views(None)
    assert (3, chosen, 0.7) in {(row["models"], row["policy"], row["temperature"]) for row in found.rows}
    assert found.calibration.temperature(3, chosen) is None
    assert found.calibration.temperature(1, chosen) is not None
    assert found.calibration.label_mass.keys() == {"144"}


def test_too_few_images_have_no_temperature() -> None:
    assert calibrate(kept_of(part(cautious_rows(), slice(0, 39))), THREE, None) is None


@pytest.mark.parametrize(("limit", "number"), [("KEPT_NUMBERS", 3 * 2 * 4 * 100), ("KEPT_IMAGES", 100)])
def test_of_very_many_images_a_share_of_every_class_is_kept(
    monkeypatch: pytest.MonkeyPatch, limit: str, number: int
) -> None:
    monkeypatch.setattr(temperatures, limit, number)
    rows = cautious_rows()
    kept = kept_of(rows)
    assert 70 < kept.images < 130
    assert min(np.bincount(kept.sorted()[2])) > 12  # not the first ones by their ids, which are sorted by class
    assert kept.sorted()[0] == kept_of(part(rows, slice(200, 400)), part(rows, slice(0, 200))).sorted()[0]


def test_a_run_keeps_them_and_an_evaluation_of_other_images_uses_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temperatures, "FEWEST_IMAGES", 6)
    run, other = (made_run(tmp_path / name) for name in ("run", "other"))
    for one in (run, other):
        predict(one, list(range(6)))
    write_report(run, ENSEMBLE, with_pictures=False)
    kept = read_calibration(run, ENSEMBLE.weights_digests)
    assert kept is not None
    assert set(kept.all_models) == {"1", "10", "144"}
    assert read_calibration(run, ("x", "other")) is None
    write_report(other, ENSEMBLE, run, with_pictures=False)
    assert not other.exists("calibration.json")
    report: dict[str, Any] = other.read_json("report/report.json")
    assert {row["judged_on"] for row in report["temperatures"]} == {"other_images"}
    of_two = [row["temperature"] for row in report["temperatures"] if row["models"] == 2]
    assert of_two == list(kept.all_models.values())
    assert "given a temperature" in other.read("report/report.md").decode()
    assert json.loads(run.read("calibration.json"))["images"] == 6
    # If they are the run's validation images all the same, they are judged as in the run's own report.
    write_report(other, ENSEMBLE, run, with_pictures=False, has_fitted_images=True)
    again, own = (one.read_json("report/report.json") for one in (other, run))
    assert again["temperatures"] == own["temperatures"]
    assert "other images" not in other.read("report/report.md").decode()


def test_sets_hold_the_label_as_often_as_promised_and_the_surest_answers_err_least() -> None:
    calibrated = fitted()
    for row in calibrated.sets:
        low, high = row["empirical_coverage_ci95"]
        assert row["empirical_coverage"] > 100 * row["coverage"] - 4
        assert low <= row["empirical_coverage"] <= high
        assert sum(of_class["images"] for of_class in row["classes"]) == 400
    assert {row["measure"] for row in calibrated.selective} == set(MEASURES)
    for row in calibrated.selective:
        errors = dict(map(tuple, row["remaining_errors"]))
        assert errors[50.0] < errors[100.0]
        assert row["area_ci95"][0] <= row["area"] <= row["area_ci95"][1]


def test_sets_of_other_images_use_the_labels_of_the_training_run() -> None:
    ours = fitted()
    again = calibrate(kept_of(cautious_rows()), THREE, ours.calibration)
    assert again is not None
    assert {row["judged_on"] for row in again.sets} == {"other_images"}
    # On the very images of the threshold, the promise is kept to within one image.
    assert again.sets[0]["empirical_coverage"] >= 90
    assert ours.calibration.threshold("144", 0.9) == ours.calibration.threshold("144", 0.9, SetRule(0.0, 3))
    assert ours.calibration.threshold("10", 0.9) is None
