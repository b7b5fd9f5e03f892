"""Tests of what is said about failed replicas."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
import torch
from ray.exceptions import ActorDiedError, NodeDiedError, OutOfMemoryError, RayTaskError, RuntimeEnvSetupError
from ray.train import WorkerGroupError

import pipelines.training.trainer
from googlenet.images.records import RecordsError, ShardDamagedError
from googlenet.network.arithmetic import FP32
from pipelines.errors import UserError
from pipelines.job.nodes import NodesMissingError
from pipelines.run.directory import MANIFEST
from pipelines.run.named_recipes import demo
from pipelines.run.storage import Storage
from pipelines.training.failure import ReplicaFailure, summary_of_failures, tell_failures
from pipelines.training.resources import Resources
from pipelines.training.trial_workers import trial_workers


@pytest.mark.parametrize(
    ("failed", "replicas", "summary"),
    [
        ([0, 1], 2, "2 of 2 replicas failed (0, 1). Run the same command again to retry them."),
        ([0], 1, "1 of 1 replica failed (0). Run the same command again to retry it."),
        ([3], 7, "1 of 7 replicas failed (3); the other 6 are finished and kept. Run the same command "),
        ([0, 2], 3, "2 of 3 replicas failed (0, 2); the other one is finished and kept. Run the same command "),
    ],
)
def test_the_rest_is_finished_only_if_there_is_a_rest(failed: list[int], replicas: int, summary: str) -> None:
    failures = [ReplicaFailure(replica, reason="", traceback="") for replica in failed]
    assert summary_of_failures(failures, replicas - len(failures), replicas).startswith(summary)


def test_a_job_that_ends_at_a_limit_names_what_failed_and_does_not_advise_to_run_into_it_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tell_failures([], finished=2, replicas=7, at_limit=True)
    assert capsys.readouterr().out == ""
    tell_failures([ReplicaFailure(3, "the loss is not finite", "")], finished=2, replicas=7, at_limit=True)
    told = capsys.readouterr().out
    assert "replica 3 failed: the loss is not finite" in told
    assert told.splitlines()[-1] == "1 of 7 replicas failed (3); 2 are finished and kept."


def test_a_failure_that_its_line_explains_has_no_traceback_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    line = "OSError: [Errno 28] No space left on device: '/run/replicas/0/checkpoints/1'"
    for is_explained in (True, False):
        tell_failures([ReplicaFailure(0, line, "Traceback of a bug", is_explained=is_explained)], 0, 1)
        told = capsys.readouterr().out
        assert "No space left on device" in told
        assert ("Traceback of a bug" in told) is not is_explained


@pytest.mark.parametrize(
    ("error", "is_final"),
    [
        (UserError("no checkpoint in runs/1 is complete: check the storage"), True),
        (ShardDamagedError("shard 3 is damaged: prepare the run again"), True),
        (RecordsError("shard 3 cannot be reached"), False),
    ],
)
def test_what_another_attempt_cannot_help_is_final_whichever_of_several_workers_raised_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, is_final: bool
) -> None:
    run = Storage.at(str(tmp_path))
    run.write_json(MANIFEST, {})

    def fit() -> None:
        raise WorkerGroupError("two workers", {0: RuntimeError("Connection closed by peer"), 1: error})

    monkeypatch.setattr(pipelines.training.trainer, "_trainer", lambda *_: SimpleNamespace(fit=fit))
    ended = pipelines.training.trainer.fit_replica._function(run, demo(), 0, Resources(), FP32, None)
    assert isinstance(ended, ReplicaFailure)
    assert (ended.may_pass, ended.is_explained) == (not is_final, is_final)
    assert str(error) in ended.reason
    assert (ended.reason == str(error)) is is_final


def of_task(cause: Exception) -> Exception:
    """Return an exception as ``ray.get`` raises it."""
    raised: Exception = RayTaskError("_try", "Traceback", cause).as_instanceof_cause()
    return raised


@pytest.mark.parametrize(
    ("error", "expected", "told"),
    [
        (
            ActorDiedError(),
            NodesMissingError,
            "the trial's process is gone: its node was lost, or the system killed it",
        ),
        (NodeDiedError("gone"), NodesMissingError, "its node was lost"),
        (
            OutOfMemoryError("the node is full"),
            UserError,
            r"does not fit in memory \(the node is full\): choose a smaller",
        ),
        (
            of_task(torch.OutOfMemoryError("CUDA out of memory. Tried")),
            UserError,
            "a smaller --batch-size or --crop-px",
        ),
        (of_task(MemoryError("no memory")), UserError, "a smaller --batch-size or --crop-px"),
        (
            of_task(RuntimeError("DefaultCPUAllocator: can't allocate")),
            UserError,
            "a smaller --batch-size or --crop-px",
        ),
        (of_task(KeyError("a bug")), KeyError, "Traceback"),
        (RuntimeEnvSetupError("no index"), RuntimeEnvSetupError, "no index"),
    ],
)
def test_what_ended_a_trial_is_told_in_one_line_with_what_to_do(
    error: Exception, expected: type[Exception], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[str] = []
    monkeypatch.setattr(ray, "kill", killed.append)
    with pytest.raises(expected, match=told) as raised, trial_workers(["one", "other"]):
        raise error
    assert getattr(raised.value, "exit_code", 0) == {NodesMissingError: 75, UserError: 2}.get(expected, 0)
    assert killed == ["one", "other"]
