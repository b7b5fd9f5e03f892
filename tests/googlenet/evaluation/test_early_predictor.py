"""A prediction that stops early is the average of the passes it made; chosen views are the first of an order."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from googlenet import Ensemble
from googlenet.evaluation.cascade import NEVER, Fitted, Stop, ViewedImages, judge, stages_of
from googlenet.evaluation.crops import chosen_policy, chosen_positions, num_views, policy_scales_px, views_of
from googlenet.evaluation.early_predictor import EarlyPredictor
from googlenet.evaluation.kept_budget import EarlyStop, KeptBudget, named_policy
from googlenet.evaluation.predictor import Predictor
from googlenet.images.scaled_image import ScaledImage
from tests.googlenet.evaluation.test_predictor import CROP, decode, picture, replica
from tests.pages import example

ORDER = tuple(np.random.default_rng(1).permutation(144).tolist())
STAGES = stages_of(2, 144)


LAST = len(STAGES) - 1


def kept(fast: float, last: int = LAST) -> KeptBudget:
    ones, others = (1.0,) * len(STAGES), tuple(1 + n / 100 for n in range(144))
    return KeptBudget(("x", "y"), "data", 50, ORDER, STAGES, ones, others, {"fast": Stop(fast, last)})


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor([replica(0, "bn"), replica(1, "bn")], CROP, (144,))


@pytest.fixture(scope="module")
def image() -> ScaledImage:
    return decode(picture(60, 50))


@pytest.fixture(scope="module")
def views(predictor: Predictor, image: ScaledImage) -> np.ndarray:
    """The probabilities of all views of the image by each replica, which take a second."""
    return predictor.predict_views(image)


def test_it_stops_where_the_running_average_is_sure_and_has_made_no_other_pass(
    predictor: Predictor, image: ScaledImage, views: np.ndarray
) -> None:
    averages = [views[:models, list(ORDER[:number])].mean(axis=(0, 1)) for models, number in STAGES]
    sure = [average.max() for average in averages]
    for wanted in (0, 1, 3, len(STAGES) - 1):
        # Below by more than rounding: a batch of one and a batch of many may differ in the last digit.
        threshold = NEVER if wanted == len(STAGES) - 1 else sure[wanted] - 1e-5
        assert not any(abs(value - threshold) < 1e-6 for value in sure)
        first = next((place for place, value in enumerate(sure) if value > threshold), len(STAGES) - 1)
        early = EarlyPredictor(predictor, EarlyStop(kept(fast=float(threshold)), "fast"))
        before = predictor.forward_passes
        found = early.stopped(image)
        models, number = STAGES[first]
        assert (len(found.probabilities), found.views) == (models, number)
        np.testing.assert_allclose(found.probabilities.mean(axis=0), averages[first], atol=1e-6)
        assert predictor.forward_passes - before <= models * number
        assert early.all_passes >= predictor.forward_passes - before
    np.testing.assert_allclose(found.probabilities, predictor.predict(image).probabilities[:, 0], atol=1e-6)
    capped = EarlyPredictor(predictor, EarlyStop(kept(NEVER, last=2), "fast")).stopped(image)
    assert (len(capped.probabilities), capped.views) == STAGES[2]


def test_very_sure_answers_are_as_sure_in_use_as_they_were_judged() -> None:
    members = [replica(0, "bn"), replica(1, "bn")]
    for member in members:
        member.model.classifier.weight.data *= 60
    pixels = np.random.default_rng(60).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    views = Predictor(members, CROP, (144,)).predict(decode(picture(60, 50)), keep_views=True).by_view
    assert views is not None
    assert (views[0, ORDER[0]] == 0).sum() == 4  # of five classes: float16 holds no probability of the others
    fitted = Fitted(np.array(ORDER), (3.0,) * len(STAGES))
    [sure] = judge(ViewedImages.of(views[None], np.array([0])), fitted).confidence
    budget = replace(kept(0.0), temperatures=fitted.temperatures, chosen_temperatures=(3.0,) * 144)

    def answers(threshold: float) -> dict[str, object]:
        stops = {"fast": Stop(threshold, LAST)}
        return Ensemble(members, "abcde", CROP, budget=replace(budget, stops=stops)).answers(pixels, budget="fast")

    assert max(sure) == sure[0]
    assert (answers(sure[0] - 1e-5)["passes"], answers(sure[0] + 1e-5)["passes"]) == (1, 288)
    assert answers(sure[0] - 1e-5)["probability_1"] == pytest.approx(sure[0], abs=1e-6)
    both = Ensemble(members, "abcde", CROP, budget=budget).answers(pixels, "best:1")
    assert both["probability_1"] == pytest.approx(sure[1], abs=1e-4)


def test_pixels_go_to_the_device_once_and_no_window_is_computed_twice() -> None:
    class Counting(Predictor):
        sent = 0

        def on_device(self, image: ScaledImage) -> list[torch.Tensor]:
            self.sent += 1
            return super().on_device(image)

    predictor = Counting([replica(0, "bn"), replica(1, "bn")], CROP, (144,))
    early = EarlyPredictor(predictor, EarlyStop(kept(NEVER), "fast"))
    found = early.stopped(decode(picture(50, 50)))  # a square image has 48 different views, spread over all stages
    assert predictor.sent == 1
    assert found.passes == predictor.forward_passes == 2 * 48 == early.all_passes


def test_its_prediction_counts_the_views_of_the_replicas_that_were_asked(
    predictor: Predictor, image: ScaledImage
) -> None:
    early = EarlyPredictor(predictor, EarlyStop(kept(fast=0.0), "fast"))
    prediction = early.predict(image)
    assert prediction.num_views.tolist() == [[1], [0]]
    assert not prediction.probabilities[1].any()
    with pytest.raises(ValueError, match="no probabilities of all views"):
        early.predict(image, keep_views=True)


def test_single_views_are_kept_in_the_order_of_the_144(
    predictor: Predictor, image: ScaledImage, views: np.ndarray
) -> None:
    several = Predictor([replica(0, "bn")], CROP, (1, "45+50", 144))
    more = ScaledImage.decode(picture(60, 50), (40, 45, 50, 55))
    by_view = several.predict(more, keep_views=True).by_view
    assert by_view is not None
    np.testing.assert_allclose(by_view[0], views[0], atol=1e-3)
    assert predictor.predict(image).by_view is None


def test_the_best_views_are_the_first_of_the_order(views: np.ndarray) -> None:
    ensemble = Ensemble([replica(0, "bn"), replica(1, "bn")], "abcde", CROP, budget=kept(fast=0.0))
    pixels = np.asarray(Image.open(io.BytesIO(picture(60, 50))))
    expected = views[:, list(ORDER[:24])].mean(axis=1)
    np.testing.assert_allclose(ensemble.probabilities(pixels, "best:24"), expected, atol=1e-6)
    answers = ensemble.answers(pixels, "best:24")
    tempered = expected.mean(axis=0) ** (1 / 1.23)
    assert answers["probability_1"] == pytest.approx((tempered / tempered.sum()).max(), abs=1e-5)
    early = ensemble.answers(pixels, budget="fast")
    assert early["passes"] == 1
    assert early["probability_1"] == pytest.approx(views[0, ORDER[0]].max(), abs=1e-6)
    asked = example("docs/evaluation.md", "Ensemble.answers(")
    assert eval(asked, {"Ensemble": ensemble, "image": pixels}) == ensemble.answers(pixels, budget="balanced")  # noqa: S307
    with pytest.raises(ValueError, match="there is no budget 'cheap': the budgets are fast, balanced, best"):
        ensemble.answers(pixels, budget="cheap")
    with pytest.raises(ValueError, match="the crop policy best:145 must have 1 to 144 views"):
        ensemble.probabilities(pixels, "best:145")
    without = Ensemble([replica(0, "bn")], "abcde", CROP)
    with pytest.raises(ValueError, match="best:24 needs the order of the views that a run keeps"):
        without.probabilities(pixels, "best:24")
    with pytest.raises(ValueError, match="the budget fast needs a cascade"):
        without.answers(pixels, budget="fast")


@pytest.mark.parametrize("fast", [0.0, NEVER])
def test_replicas_in_another_order_join_in_the_order_of_the_cascade(fast: float) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    members = [replica(0, "bn"), replica(1, "bn")]
    expected = Ensemble(members, "abcde", CROP, budget=kept(fast))
    turned = Ensemble(members[::-1], "abcde", CROP, budget=kept(fast), cascade_order=kept(fast).order_of(["y", "x"]))
    assert turned.answers(pixels, budget="fast") == expected.answers(pixels, budget="fast")
    assert kept(fast).order_of(["x", "z"]) is None


def test_the_passes_of_replicas_in_another_order_are_counted_where_they_stand(image: ScaledImage) -> None:
    members = [replica(0, "bn"), replica(1, "bn")]
    found = EarlyPredictor(Predictor(members, CROP, (144,)), EarlyStop(kept(0.0), "fast"), [1, 0]).predict(image)
    assert found.num_views.tolist() == [[0], [1]]
    assert found.probabilities.any(axis=(1, 2)).tolist() == [False, True]


@pytest.mark.usefixtures("unchecked_types")
@pytest.mark.parametrize("policy", [1, 10, 144])
def test_a_policy_as_text_is_that_number_of_crops_not_a_scale(policy: int) -> None:
    for form in (str(policy), float(policy), np.int64(policy)):
        named = named_policy(form, None)
        assert (named, type(named)) == (policy, int)  # by which its temperature is found
    pixels = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    ensemble = Ensemble([replica(0, "bn")], "abcde", CROP)
    np.testing.assert_array_equal(ensemble.probabilities(pixels, str(policy)), ensemble.probabilities(pixels, policy))


def test_a_policy_of_chosen_views_names_them_itself() -> None:
    policy = chosen_policy((3, 0, 143))
    assert chosen_positions(policy) == (0, 3, 143)
    assert num_views(policy) == 3
    every = views_of(144, 224)
    assert views_of(policy, 224) == (every[0], every[3], every[143])
    assert policy_scales_px(policy, 224) == (256, 352)
    assert named_policy(policy, None) == policy
    assert named_policy(144, None) == 144
    for wrong in (policy.replace("best:3", "best:4"), "best:24", "best:0:0"):
        with pytest.raises(ValueError, match=wrong):
            num_views(wrong)


def test_what_is_kept_survives_json(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = kept(fast=0.5)
    assert KeptBudget.from_dict(budget.to_dict()) == budget
    assert budget.stop("fast") == Stop(0.5, LAST)
    assert budget.stop("best") == Stop(NEVER, LAST)
    assert budget.promised_points == {}  # as in the files of earlier versions
    assert EarlyStop(budget, "fast").key != EarlyStop(kept(fast=0.6), "fast").key
    before = EarlyStop(budget, "fast").key
    monkeypatch.setattr("googlenet.evaluation.kept_budget.LEAST_KEPT", 1e-7)  # which decides where it stops, too
    assert EarlyStop(budget, "fast").key != before
