"""Tests of the choice of an arithmetic: which one, what is kept of it, and the comparison of two.

Which one is fastest depends on the processor, so speeds are given here. What is measured is in test_sharded_prediction.
"""

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from googlenet.network.arithmetic import FP32, Arithmetic
from pipelines.errors import UserError
from pipelines.evaluation.arithmetic_trial import Agreement, Timing, agreement_percent
from pipelines.evaluation.preflight import (
    FORMAT,
    Preflight,
    Work,
    choose,
    kept_preflight,
    timed_at_once,
)
from pipelines.evaluation.sharded_prediction import PredictionTask
from pipelines.job.node_limits import NodeLimits
from pipelines.run.dataset import Shard, Split
from pipelines.run.predictions import EvaluatedEnsemble, file_name
from pipelines.run.recipe import PrecisionChoice
from pipelines.run.storage import Storage

IMAGES = 20  # two shards of predictions


def interrupted(folder: Path, arithmetic: Arithmetic, done: int, **kept: Any) -> PredictionTask:
    """An evaluation with ``done`` shards of predictions and a kept choice."""
    run = Storage.at(str(folder))
    ensemble = EvaluatedEnsemble(("replica_0",), ("digest",), (1,), 64, ("a", "b"), "data", arithmetic)
    for shard in range(done):
        with run.writing(f"predictions/{file_name(shard)}") as stream:
            pq.write_table(ensemble.schema().empty_table(), stream)
    run.write_json("preflight.json", {"key": "key", "preflight": asdict(Preflight(arithmetic, "faster", 9.0)), **kept})
    split = Split((Shard("val/00000.parquet", IMAGES, "digest"),), {"a": IMAGES})
    return PredictionTask(run, run, ("weights",), ensemble, split)


def test_predictions_with_the_classifier_of_an_earlier_version_are_not_continued(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = interrupted(tmp_path, Arithmetic("bf16"), done=1)
    assert kept_preflight(task, "key") is None
    assert task.predictions.files("") == []
    assert "computed again" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arithmetic", "done", "kept"),
    [
        (Arithmetic("bf16"), 1, {"format": FORMAT}),  # the classifier of today
        (Arithmetic("bf16"), 2, {}),  # a finished evaluation stays as it is
        (FP32, 1, {}),  # the classifier was always fp32 there
    ],
)
def test_other_predictions_are_continued(
    tmp_path: Path, arithmetic: Arithmetic, done: int, kept: dict[str, int]
) -> None:
    task = interrupted(tmp_path, arithmetic, done, **kept)
    choice = kept_preflight(task, "key")
    assert choice is not None
    assert choice.arithmetic == arithmetic
    assert len(task.predictions.files("")) == done
    assert kept_preflight(task, "key of other weights") is None


def test_a_precision_that_nothing_computes_in_is_not_taken_from_a_file(tmp_path: Path) -> None:
    task = interrupted(tmp_path, FP32, done=1)
    stored = task.run.read_json("preflight.json")
    stored["preflight"]["arithmetic"]["precision"] = "fp8"
    task.run.write_json("preflight.json", stored)
    with pytest.raises(UserError, match=r"/preflight\.json is damaged \(precision must be .*, got 'fp8'\)"):
        kept_preflight(task, "key")


EAGER32, EAGER16 = FP32, Arithmetic("bf16")
COMPILED32, COMPILED16 = Arithmetic("fp32", compiled=True), Arithmetic("bf16", compiled=True)
CLOSE, FAR = Agreement(100.0, 100.0, 0.01, 48), Agreement(99.0, 100.0, 0.01, 48)
LONG = 10**6


class GivenSpeeds:
    """A trial whose outcome is given: passes a second by arithmetic, 0 where the compiler fails."""

    def __init__(self, speeds: dict[Arithmetic, float], agreement: Agreement = CLOSE) -> None:
        self._speeds, self._agreement = speeds, agreement
        self.timed: list[Arithmetic] = []

    def agreement(self, arithmetic: Arithmetic) -> Agreement:
        assert arithmetic.precision == "bf16"
        return self._agreement

    def timing(self, arithmetic: Arithmetic) -> Timing:
        self.timed.append(arithmetic)
        failure = "" if self._speeds[arithmetic] else "no header"
        return Timing(arithmetic, self._speeds[arithmetic], 40.0 if arithmetic.compiled else 1.0, failure)


def chosen(
    monkeypatch: pytest.MonkeyPatch,
    trial: GivenSpeeds,
    asked: PrecisionChoice = "auto",
    passes: int = LONG,
    *,
    stops_early: bool = False,
) -> Preflight:
    monkeypatch.setattr("pipelines.evaluation.preflight.profits_from_bf16", lambda _device: True)
    monkeypatch.setattr("pipelines.evaluation.preflight.can_compile", lambda _device: True)
    task: Any = None
    return choose(trial, "cpu", Work(task, asked, passes, at_work=2, stops_early=stops_early))


def test_the_fastest_arithmetic_that_answers_like_fp32_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    # Half width at 84 px, and full width at 224 px, as measured on one core of a Xeon.
    narrow = GivenSpeeds({EAGER32: 724, EAGER16: 532, COMPILED32: 302})
    found = chosen(monkeypatch, narrow)
    assert (found.arithmetic, found.passes_per_second) == (EAGER32, 724)
    assert "timed: fp32, not compiled 724 passes/s, bf16, not compiled 532 passes/s, fp32, compiled 302" in found.reason
    assert found.agreement_percent == 100.0  # bf16 was compared, though it is not the fastest
    wide = GivenSpeeds({EAGER32: 18, EAGER16: 72, COMPILED16: 100})
    assert chosen(monkeypatch, wide).arithmetic == COMPILED16
    assert COMPILED32 not in wide.timed  # to compile takes long


def test_an_arithmetic_that_answers_differently_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = GivenSpeeds({EAGER32: 18, COMPILED32: 23}, FAR)
    found = chosen(monkeypatch, trial)
    assert found.arithmetic == COMPILED32
    assert "bf16 refused: 99.0 % of 48 answers as in fp32" in found.reason
    assert trial.timed == [EAGER32, COMPILED32]


def test_compilation_has_to_save_more_than_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two predictors: 10,000 passes take 50 s at 100 a second, and 25 s at 200 after 39 s more of compilation.
    speeds = {EAGER32: 50, EAGER16: 100, COMPILED16: 200}
    assert chosen(monkeypatch, GivenSpeeds(speeds), passes=10_000).arithmetic == EAGER16
    assert chosen(monkeypatch, GivenSpeeds(speeds), passes=40_000).arithmetic == COMPILED16


def test_the_precision_that_is_asked_for_is_compiled_where_that_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(monkeypatch, GivenSpeeds({EAGER32: 724, COMPILED32: 302}), "fp32").arithmetic == EAGER32
    assert chosen(monkeypatch, GivenSpeeds({EAGER16: 72, COMPILED16: 100}), "bf16").arithmetic == COMPILED16


def test_an_evaluation_whose_answers_stop_early_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = GivenSpeeds({EAGER32: 18, EAGER16: 72, COMPILED16: 100})
    found = chosen(monkeypatch, trial, stops_early=True)
    assert (found.arithmetic, found.passes_per_second) == (EAGER16, 72)
    assert COMPILED16 not in trial.timed
    assert "not compiled: compiled networks need full batches" in found.reason


@pytest.mark.parametrize(
    ("cpus", "free_gb", "device", "number"),
    [(16, 64.0, "cpu", 6), (4, 64.0, "cpu", 4), (16, 5.0, "cpu", 3), (16, 0.1, "cpu", 1), (16, 64.0, "cuda", 1)],
)
def test_no_more_predictors_are_timed_together_than_this_machine_can_hold(
    monkeypatch: pytest.MonkeyPatch, cpus: int, free_gb: float, device: str, number: int
) -> None:
    memory = SimpleNamespace(available=int(free_gb * 1e9))
    monkeypatch.setattr("pipelines.evaluation.preflight.psutil.virtual_memory", lambda: memory)
    monkeypatch.setattr("pipelines.evaluation.preflight.node_limits", lambda: NodeLimits(cpus, 10**12, cpus, 10**12))
    task: Any = None
    work = Work(task, "auto", LONG, at_work=12, per_node=6, memory_bytes=1_500_000_000)
    assert timed_at_once(work, device) == number


def test_a_compiler_that_fails_is_named_and_costs_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    found = chosen(monkeypatch, GivenSpeeds({EAGER32: 18, EAGER16: 72, COMPILED16: 0}))
    assert found.arithmetic == EAGER16
    assert "bf16, compiled failed (no header)" in found.reason


def test_agreement_is_of_sets_of_answers_and_ties_go_to_the_lower_class() -> None:
    exact = np.array([[5, 4, 3, 2, 1, 0.9, 0], [5, 4, 3, 2, 1, 0.9, 0]], np.float32)
    tied = np.array([[4, 5, 3, 2, 1, 1, 0], [5, 4, 3, 2, 0.9, 1, 0]], np.float32)
    assert agreement_percent(exact, tied, answers=1) == 50  # the first two answers of the first image change places
    assert agreement_percent(exact, tied, answers=5) == 50  # the fifth and sixth of the second do
    assert agreement_percent(exact[None], tied[None], answers=7) == 100
