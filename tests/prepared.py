"""Stages of a run in the process of the tests, without a cluster."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from googlenet.network.arithmetic import FP32, Arithmetic
from pipelines.data.prepare import prepare
from pipelines.data.shards import _finished_shard, write_shard
from pipelines.evaluation.predictors import Predictors
from pipelines.evaluation.sharded_prediction import PredictionTask, ShardPredictor, load_shard
from pipelines.run.claims import claim
from pipelines.run.dataset import BadImages
from pipelines.run.directory import finished_replicas
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training.failure import ReplicaFailure
from pipelines.training.replica import train_replica
from pipelines.training.resources import Resources
from pipelines.training.task import ReplicaTask
from pipelines.training.trial import Trial
from pipelines.training.trial import _try as trial_here

# A user's estimate takes five seconds of steps and as many of predictions; here its lines count, not its precision.
ESTIMATE_SECONDS = 0.2


def some_weights(number: int = 0) -> bytes:
    """Return a file of weights of no network, for what only has to know that a replica is finished, and its digest."""
    return save({"number": np.array([number])})


def prepare_here(run: Storage, recipe: Recipe, bad_images: BadImages = "stop") -> None:
    """Prepare the data set of a run without a cluster."""
    with preparing_here():
        prepare(run, recipe, bad_images)


@contextmanager
def preparing_here() -> Iterator[None]:
    """Write shards in the process of the tests, one after the other, without a cluster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "pipelines.data.prepare.write_shards",
            lambda run, reader, plans: [_finished_shard(run, plan) or write_shard(run, reader, plan) for plan in plans],
        )
        yield


@contextmanager
def predicting_here() -> Iterator[None]:
    """Prepare and predict in the process of the tests, one shard after the other; reports have no pictures.

    To draw those takes a second for each report. The finished run, and runs made by hand, have theirs.
    """

    def predict(task: PredictionTask, shards: Sequence[int], images: int, predictors: Predictors) -> None:
        predictor = ShardPredictor(task)
        for shard in shards:
            predictor(load_shard(task, shard, images))

    with preparing_here(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.evaluation.evaluate.predict", predict)
        patch.setattr("pipelines.evaluation.arithmetic_trial.TIMED_SECONDS", 0.1)
        patch.setattr(Predictors, "that_fit", lambda _options, _memory_bytes: Predictors(1, 0.0))
        patch.setattr("pipelines.report.write._pictures", lambda *_: {})
        yield


@contextmanager
def trying_here() -> Iterator[None]:
    """Take a trial's steps in the process of the tests, without a cluster; test_train_ensemble.py has one on it."""

    def run_trial(recipe: Recipe, _resources: object, classes: int, *what: Any) -> Trial:
        precisions, encoded, _at_once, _steps = what
        return trial_here(recipe, classes, precisions, "cpu", encoded, least_seconds=ESTIMATE_SECONDS)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.training.time_estimate.run_trial", run_trial)
        yield


def train_here(run: Storage, recipe: Recipe) -> None:
    """Train all replicas of a prepared run without a cluster."""
    claim(run, "recipe", recipe.to_dict())
    assert _train(run, recipe, Resources(), FP32, lambda _: None) == []


@contextmanager
def training_here() -> Iterator[None]:
    """Train in the process of the tests, one replica after the other, without a cluster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.training.scheduler.train_replicas", _train)
        yield


def _train(
    run: Storage, recipe: Recipe, resources: Resources, arithmetic: Arithmetic,
    on_poll: Callable[[dict[int, str]], None], _why_stop: Callable[[], str] = str,
) -> list[ReplicaFailure]:  # fmt: skip
    """Train the replicas that are not finished, with one thread, as a worker of one CPU does."""
    torch.set_num_threads(1)
    phases, failures = dict.fromkeys(range(recipe.replicas), "waiting"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.training.replica.use_own_cpus", lambda: None)
        for replica in phases:
            phases[replica] = "done"
            if replica not in finished_replicas(run, recipe.replicas):
                task = ReplicaTask(run, recipe, replica, arithmetic=arithmetic, validation=resources.validation)
                try:
                    train_replica(task)
                except OSError as error:  # as the task of a fit does
                    from pipelines.training.trainer import _failure

                    failures.append(_failure(replica, error))
                    phases[replica] = "failed"
            on_poll(dict(phases))
    return failures
