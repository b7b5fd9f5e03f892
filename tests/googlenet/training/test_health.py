"""Alarms for classifiers that do not learn and losses that are not finite: one line, and never for one that learns."""

import json
import math
import random

import pytest

from googlenet.training.health import Advice, HeadMonitor, LossSum, TrainingError, is_dead, patience_steps
from googlenet.training.loop import StepResult

GUESSING = math.log(10)


def step(number: int, gradient_norm: float = 1.0, **losses: float) -> StepResult:
    return StepResult(number, 32, losses, 0.01, gradient_norm)


def summed(*losses: float) -> LossSum:
    total = LossSum()
    for loss in losses:
        total.add(loss)
    return total


def test_classifiers_that_stay_at_guessing_are_named_in_one_line_and_the_others_are_not() -> None:
    monitor = HeadMonitor(1000, patience_steps=1000, advice=Advice(dead="try a lower --learning-rate"))
    for number in range(1, 1001):
        noise = 0.05 * math.sin(number)
        monitor.observe(step(number, logits=6.908 + noise, aux_4a=6.9 - number / 500, aux_4d=6.91 + noise))
        assert number == 1000 or not monitor.alarm
    assert monitor.dead.keys() == {"logits", "aux_4d"}
    assert monitor.alarm == (
        "the classifier and auxiliary classifier 2 have learned nothing by step 1000: loss 6.908 and 6.910, "
        "guessing is ln(1000) = 6.908; try a lower --learning-rate"
    )


def test_an_auxiliary_classifier_that_is_dead_alone_does_not_hide_that_the_classifier_learns() -> None:
    monitor = HeadMonitor(10, patience_steps=10)
    for number in range(1, 11):
        monitor.observe(step(number, logits=1.5, aux_4a=2.31))
    assert monitor.alarm.startswith(
        "auxiliary classifier 1 has learned nothing by step 10, while the classifier learns"
    )


@pytest.mark.parametrize(
    ("earlier", "later", "dead"),
    [
        ((2.31, 2.30), (2.31, 2.30), True),
        ((2.31, 2.31), (2.29, 2.29), False),  # falling, if still close to guessing
        ((2.5, 2.5), (2.4, 2.4), False),  # falling from above guessing
        ((2.29, 2.29), (2.31, 2.31), True),  # rising
        ((2.9, 1.8), (2.7, 1.9), True),  # a fall that the noise explains
        ((2.3030, 2.3030), (2.3026, 2.3026), True),  # weights decay, nothing is learned
        ((2.31, 2.31), (2.2, 2.2), False),  # below guessing
    ],
)
def test_a_classifier_is_dead_if_its_loss_is_that_of_guessing_and_does_not_fall(
    earlier: tuple[float, ...], later: tuple[float, ...], dead: bool
) -> None:
    assert is_dead(summed(*earlier), summed(*later), 10) == dead


def test_a_loss_without_a_trend_is_dead_and_a_slow_fall_is_not_whatever_the_noise() -> None:
    noise = random.Random(0)  # noqa: S311
    for fall, most_alarms, least_alarms in ((0.0, 20, 17), (0.04, 0, 0)):
        alarms = 0
        for _ in range(20):
            monitor = HeadMonitor(10, patience_steps=200)
            for number in range(1, 201):
                monitor.observe(step(number, logits=GUESSING + 0.01 - fall * number / 200 + noise.gauss(0, 0.02)))
            alarms += bool(monitor.alarm)
        assert least_alarms <= alarms <= most_alarms


def test_the_warm_up_does_not_count() -> None:
    monitor = HeadMonitor(10, patience_steps=10, warmup_steps=100)
    for number in range(1, 110):
        monitor.observe(step(number, logits=2.31))
        assert not monitor.alarm
    monitor.observe(step(110, logits=2.31))
    assert monitor.alarm


def test_patience_is_counted_in_epochs_but_a_small_data_set_gets_a_hundred_steps() -> None:
    assert patience_steps(1, 40_037) == 40_037
    assert patience_steps(0.5, 1001) == 501
    assert patience_steps(1, 8) == 100
    assert patience_steps(0, 8) == 0


def test_a_classifier_that_comes_to_life_later_is_no_longer_called_dead() -> None:
    monitor = HeadMonitor(10, patience_steps=10)
    for number in range(1, 11):
        monitor.observe(step(number, logits=2.31))
    assert monitor.alarm
    for number in range(11, 21):
        monitor.observe(step(number, logits=1.9))
    assert not monitor.alarm
    assert not monitor.dead


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"logits": math.nan}, "the loss of the classifier is nan at step 7; try less"),
        ({"aux_4a": math.inf}, "the loss of auxiliary classifier 1 is inf at step 7; try less"),
        ({"gradient_norm": math.nan}, "the gradient is nan at step 7; try less"),
    ],
)
def test_what_is_not_finite_ends_training_at_once(bad: dict[str, float], message: str) -> None:
    with pytest.raises(TrainingError) as error:
        HeadMonitor(10, 100, advice=Advice(not_finite="try less")).observe(step(7, **bad))
    assert str(error.value) == message


def test_what_it_has_seen_survives_a_restart() -> None:
    whole, first, second = (HeadMonitor(10, patience_steps=10) for _ in range(3))
    for number in range(1, 14):
        whole.observe(step(number, logits=2.31))
        (first if number <= 6 else second).observe(step(number, logits=2.31))
        if number == 6:
            kept = json.dumps(first.state())
            first.observe(step(7, logits=2.31))  # training continues while a checkpoint is written
            second.load(json.loads(kept))
    assert whole.state() == second.state()
    assert second.alarm
    second.load(json.loads(json.dumps(whole.state())))
    assert whole.state() == second.state()


def test_the_state_of_an_older_version_begins_a_new_period() -> None:
    monitor = HeadMonitor(10, patience_steps=10)
    monitor.load(
        {"alarms": {"logits": "head logits has learned nothing by step 8"}, "sums": {"logits": 9.2}, "steps": 4}
    )
    assert not monitor.alarm
    for number in range(13, 23):
        monitor.observe(step(number, logits=2.31))
    assert "by step 22" in monitor.alarm


def test_no_patience_means_no_alarm() -> None:
    monitor = HeadMonitor(10, patience_steps=0)
    for number in range(1, 600):
        monitor.observe(step(number, logits=2.4))
    assert not monitor.alarm
