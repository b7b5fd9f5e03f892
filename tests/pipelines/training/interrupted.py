"""A replica whose training is interrupted after some steps, and what it has written."""

import json
from pathlib import Path

import pytest

import pipelines.training.replica
from googlenet.training.loop import TakenStep
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training.task import ReplicaTask


class Killed(Exception):  # noqa: N818
    """Stands for anything that ends a process: nothing after it runs."""


def task(run: Path, recipe: Recipe, checkpoint_seconds: float) -> ReplicaTask:
    return ReplicaTask(Storage.at(str(run)), recipe, 1, checkpoint_seconds)


def interrupt_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    taken = 0
    step = pipelines.training.replica.train_step

    def one_step(*arguments: object) -> TakenStep:
        nonlocal taken
        if taken == steps:
            raise Killed
        taken += 1
        return step(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pipelines.training.replica, "train_step", one_step)


def lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
