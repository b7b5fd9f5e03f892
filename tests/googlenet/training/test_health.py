"""Alarms for heads that do not learn and losses that are not finite: early, with the name of the head."""

import math

import pytest

from googlenet.training.health import HeadMonitor, TrainingError
from googlenet.training.loop import StepResult


def step(number: int, gradient_norm: float = 1.0, **losses: float) -> StepResult:
    return StepResult(number, 32, losses, 0.01, gradient_norm)


def test_a_head_that_stays_at_guessing_is_named_and_the_others_are_not() -> None:
    monitor = HeadMonitor(1000, patience_steps=1000)
    for number in range(1, 1001):
        noise = 0.05 * math.sin(number)
        monitor.observe(step(number, logits=6.908 + noise, aux_4a=6.9 - number / 500, aux_4d=6.91 + noise))
        assert number == 1000 or not monitor.alarms
    assert monitor.alarms.keys() == {"logits", "aux_4d"}
    assert "ln(1000) = 6.908" in monitor.alarms["logits"]
    assert "--learning-rate" in monitor.alarms["logits"]


def test_a_head_that_comes_to_life_later_is_no_longer_called_dead() -> None:
    monitor = HeadMonitor(10, patience_steps=10)
    for number in range(1, 11):
        monitor.observe(step(number, logits=2.31))
    assert monitor.alarms
    for number in range(11, 21):
        monitor.observe(step(number, logits=1.9))
    assert not monitor.alarms


@pytest.mark.parametrize("bad", [{"logits": math.nan}, {"aux_4a": math.inf}, {"gradient_norm": math.nan}])
def test_what_is_not_finite_ends_training_at_once(bad: dict[str, float]) -> None:
    with pytest.raises(TrainingError, match=r"(logits|aux_4a|gradient) is (nan|inf) at step 7"):
        HeadMonitor(10, 100).observe(step(7, **bad))


def test_what_it_has_seen_survives_a_restart() -> None:
    whole, first, second = (HeadMonitor(10, patience_steps=10) for _ in range(3))
    for number in range(1, 11):
        whole.observe(step(number, logits=2.31))
        (first if number <= 6 else second).observe(step(number, logits=2.31))
        if number == 6:
            kept = first.state()
            first.observe(step(7, logits=2.31))  # training continues while a checkpoint is written
            second.load(kept)
    assert whole.alarms == second.alarms
    assert second.alarms


def test_no_patience_means_no_alarm() -> None:
    monitor = HeadMonitor(10, patience_steps=0)
    for number in range(1, 600):
        monitor.observe(step(number, logits=2.4))
    assert not monitor.alarms
