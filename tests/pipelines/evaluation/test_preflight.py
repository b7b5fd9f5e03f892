"""Tests of the choice of an arithmetic: what is kept of it, and the comparison of two, against sets counted by hand."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from googlenet.network.arithmetic import FP32, Arithmetic
from pipelines.evaluation.preflight import FORMAT, Preflight, agreement_percent, kept_preflight
from pipelines.evaluation.sharded_prediction import PredictionTask
from pipelines.run.dataset import Shard, Split
from pipelines.run.predictions import EvaluatedEnsemble, file_name
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


def test_agreement_is_of_sets_of_answers_and_ties_go_to_the_lower_class() -> None:
    exact = np.array([[5, 4, 3, 2, 1, 0.9, 0], [5, 4, 3, 2, 1, 0.9, 0]], np.float32)
    tied = np.array([[4, 5, 3, 2, 1, 1, 0], [5, 4, 3, 2, 0.9, 1, 0]], np.float32)
    assert agreement_percent(exact, tied, answers=1) == 50  # the first two answers of the first image change places
    assert agreement_percent(exact, tied, answers=5) == 50  # the fifth and sixth of the second do
    assert agreement_percent(exact[None], tied[None], answers=7) == 100
