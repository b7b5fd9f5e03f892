"""Tests of an epoch's report: on a GPU, whose figures are read for many steps at once, it is that of a CPU."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from googlenet.training.data_parallel import ALONE, Share
from googlenet.training.health import HeadMonitor, NotFiniteError
from googlenet.training.loop import TakenStep
from pipelines.run.directory import MANIFEST
from pipelines.run.named_recipes import demo
from pipelines.run.storage import Storage
from pipelines.training.epoch_report import EpochReport
from pipelines.training.task import ReplicaTask

STEPS = 6000  # a line of the step log for every 60
MEASURED = ("seconds", "waiting_seconds", "lines")


def report_on(device: str, folder: Path, share: Share = ALONE) -> EpochReport:
    run = Storage.at(str(folder))
    run.write_json(MANIFEST, {})  # on a slow machine, a report is written while the test runs
    task = ReplicaTask(run, demo(), 0, device=device, share=share)
    return EpochReport(task, 0, STEPS, None, HeadMonitor(10, patience_steps=100))


def step(number: int, loss: float) -> TakenStep:
    return TakenStep(number, 32, ("logits",), 0.01, torch.tensor([loss, 1.0]))


def state(report: EpochReport) -> dict[str, Any]:
    lines = [(line["step"], line["step/loss_logits"]) for line in report.state()["lines"]]
    return {"lines": lines, **{k: v for k, v in report.state().items() if k not in MEASURED}}


def test_figures_that_are_read_at_once_make_the_same_report(tmp_path: Path) -> None:
    cpu, gpu = (report_on(device, tmp_path) for device in ("cpu", "cuda"))
    counted = []
    for number in range(1, 131):
        for report in (cpu, gpu):
            report.on_step(step(number, 2.3 + math.sin(number) / 10), waited_seconds=0.5)
        if gpu.state()["step"] == number:
            counted.append(number)
            assert state(gpu) == state(cpu)
            assert gpu.monitor.state() == cpu.monitor.state()
    assert counted == [50, 60, 100, 120]
    assert [line["step"] for line in gpu.state()["lines"]] == [60, 120]
    assert [line["step/waiting_seconds"] for line in gpu.state()["lines"]] == [30, 30]
    assert gpu.state()["waiting_seconds"] == 65
    gpu.read()  # for a checkpoint
    assert state(gpu) == state(cpu)


@pytest.mark.parametrize(
    ("device", "share", "noticed"), [("cpu", ALONE, 7), ("cuda", ALONE, 50), ("cuda", Share(0, 2), 50)]
)
def test_a_loss_that_is_not_finite_is_named_with_its_step(
    device: str, share: Share, noticed: int, tmp_path: Path
) -> None:
    report = report_on(device, tmp_path, share)
    for number in range(1, noticed):
        report.on_step(step(number, math.nan if number == 7 else 2.3))
        # The first of several workers must not end alone, before a checkpoint of its own: the others would wait for it.
        assert report.may_be_read == (share.workers == 1)
    with pytest.raises(NotFiniteError, match="the loss of the classifier is nan at step 7"):
        report.on_step(step(noticed, math.nan if noticed == 7 else 2.3))


def test_a_loss_that_is_not_finite_is_found_before_a_checkpoint(tmp_path: Path) -> None:
    report = report_on("cuda", tmp_path)
    report.on_step(step(1, math.nan))
    with pytest.raises(NotFiniteError, match="at step 1"):
        report.read()
