"""Runs the replicas of a run on the cluster, as many at a time as its resources hold.

A replica is one ``TorchTrainer.fit()`` inside a task that takes no CPU; only its worker does. The window bounds how
many are started: seven at once on a small machine would each start six processes and wait for the others.
"""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray

from pipelines.allocator import KEEP_FREED_MEMORY
from pipelines.errors import UserError
from pipelines.progress import ProgressBoard, ReplicaStatus, TrainingDisplay
from pipelines.recipes import Recipe
from pipelines.run_directory import ReplicaFiles, finished_replicas
from pipelines.storage import Storage

POLL_SECONDS = 1.0
RAY_SNAPSHOT = "checkpoint_manager_snapshot.json"
SECONDS_PER_MINUTE = 60.0


@dataclass(frozen=True)
class Resources:
    """What one replica's worker reserves, and what it does against failures.

    Attributes:
        cpus_per_replica: CPUs that the worker reserves, all of one node.
        gpus_per_replica: GPUs that the worker reserves.
        max_failures: how often a failed replica is started again from its newest checkpoint.
        checkpoint_minutes: time between two checkpoints within an epoch.
    """

    cpus_per_replica: float = 1.0
    gpus_per_replica: float = 0.0
    max_failures: int = 2
    checkpoint_minutes: float = 10.0

    def __post_init__(self) -> None:
        if self.cpus_per_replica <= 0 or self.gpus_per_replica < 0 or self.max_failures < 0:
            raise UserError(f"CPUs must be positive, GPUs and failures not negative, got {self}")
        if self.checkpoint_minutes <= 0:
            raise UserError(f"checkpoint_minutes must be positive, got {self.checkpoint_minutes}")


@dataclass(frozen=True)
class ReplicaFailure:
    """A replica that failed for good."""

    replica: int
    reason: str
    traceback: str


def train_replicas(
    run: Storage, recipe: Recipe, resources: Resources, on_poll: Callable[[dict[int, str]], None]
) -> list[ReplicaFailure]:
    """Train every replica of ``recipe`` that is not finished in ``run``; the failures, when all have ended.

    ``on_poll`` is called about once a second with the phase of each replica.

    Raises:
        UserError: the cluster can never hold a single replica.
    """
    finished = finished_replicas(run, recipe.replicas)
    waiting = [replica for replica in range(recipe.replicas) if replica not in finished]
    display = TrainingDisplay(recipe.replicas, recipe.epochs)
    phases = dict.fromkeys(finished, "done") | dict.fromkeys(waiting, "waiting")
    on_poll(phases)
    if not waiting:
        return []
    check_that_one_fits(resources)
    board = ProgressBoard.remote()  # type: ignore[attr-defined]
    running: dict[Any, int] = {}
    failures: list[ReplicaFailure] = []
    with display.showing():
        while waiting or running:
            # At least one: a cluster that has lost its nodes for the moment gets new ones, and Ray Train waits.
            while waiting and len(running) < max(1, window(resources)):
                replica = waiting.pop(0)
                running[_fit.remote(run, recipe, replica, resources, board)] = replica
                phases[replica] = "starting"
            for ref in ray.wait(list(running), timeout=POLL_SECONDS)[0]:
                replica = running.pop(ref)
                failure = _outcome(run, replica, ref)
                phases[replica] = "failed" if failure else "done"
                if failure:
                    failures.append(failure)
                    display.message(f"replica {replica} failed: {failure.reason} (see {run}/{_failure_file(replica)})")
            posted, warnings, board = _read(board)
            for warning in warnings:
                display.message(warning)
            for replica in running.values():
                phases[replica] = posted[replica].phase if replica in posted else "starting"
            display.update(posted, phases)
            on_poll(phases)
    ray.kill(board)
    return failures


def check_that_one_fits(resources: Resources) -> None:
    """Refuse what no node of the connected cluster can ever hold.

    Raises:
        UserError: it is so.
    """
    if window(resources) < 1:
        raise UserError(_too_small(resources))


def window(resources: Resources) -> int:
    """How many replicas the cluster's nodes hold at once, each on one node."""
    needs = {"CPU": resources.cpus_per_replica, "GPU": resources.gpus_per_replica}
    return sum(_fitting(node["Resources"], needs) for node in ray.nodes() if node["Alive"])


def _fitting(node: dict[str, float], needs: dict[str, float]) -> int:
    # A share of a thousandth is what fractions lose in floating point.
    return min(int(node.get(name, 0.0) / need + 1e-3) for name, need in needs.items() if need > 0)


def _too_small(resources: Resources) -> str:
    total = ray.cluster_resources()
    needs = {"CPU": resources.cpus_per_replica, "GPU": resources.gpus_per_replica}
    wanted = ", ".join(f"{need:g} {name}" for name, need in needs.items() if need > 0)
    has = ", ".join(f"{total.get(name, 0.0):g} {name}" for name in needs)
    return f"a replica reserves {wanted} on one node, the whole cluster has {has}: ask for less, or add nodes"


def _read(board: Any) -> tuple[dict[int, ReplicaStatus], list[str], Any]:
    """What workers posted, warnings, and the board; a new one where the old one went down with its node."""
    try:
        return *ray.get(board.read.remote()), board
    except ray.exceptions.RayActorError:
        return {}, [], ProgressBoard.remote()  # type: ignore[attr-defined]


def _outcome(run: Storage, replica: int, ref: Any) -> ReplicaFailure | None:
    try:
        report = ray.get(ref)
    except ray.exceptions.RayError as error:  # the task itself died, with its node or by a signal
        report = {"reason": type(error).__name__, "traceback": str(error)}
    if report is None:
        run.delete(_failure_file(replica))
        return None
    failure = ReplicaFailure(replica, **report)
    try:
        run.write(_failure_file(replica), failure.traceback.encode())
    except OSError:
        # Its folder may be what failed; the traceback is then on the terminal alone.
        print(failure.traceback, flush=True)
    return failure


def _failure_file(replica: int) -> str:
    return ReplicaFiles(replica).failure


@ray.remote(num_cpus=0, max_retries=0)  # type: ignore[untyped-decorator]
def _fit(run: Storage, recipe: Recipe, replica: int, resources: Resources, board: Any) -> dict[str, str] | None:
    """Fit one replica; None, or the reason and traceback of its failure."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    def train(config: dict[str, Any]) -> dict[str, str] | None:
        from googlenet.health import TrainingError
        from googlenet.records import RecordsError
        from pipelines.replica_task import ReplicaTask
        from pipelines.replica_training import train_replica

        try:
            train_replica(ReplicaTask(**config))
        except (TrainingError, RecordsError) as error:
            # Another try would end the same way. An error that is returned is not retried.
            return {"reason": str(error), "traceback": traceback.format_exc()}
        return None

    files = ReplicaFiles(replica)
    checkpoint_seconds = SECONDS_PER_MINUTE * resources.checkpoint_minutes
    reserved = {"CPU": resources.cpus_per_replica}
    if resources.gpus_per_replica:
        reserved["GPU"] = resources.gpus_per_replica
    try:
        # Ray Train's list of checkpoints is empty, since the replica keeps its own; a torn one would be refused.
        run.delete(f"{files.folder}/{RAY_SNAPSHOT}")
        result = TorchTrainer(
            train,
            train_loop_config={
                "run": run,
                "recipe": recipe,
                "replica": replica,
                "checkpoint_seconds": checkpoint_seconds,
                "board": board,
            },
            scaling_config=ScalingConfig(
                num_workers=1, use_gpu=resources.gpus_per_replica > 0, resources_per_worker=reserved
            ),
            run_config=RunConfig(
                worker_runtime_env={"env_vars": KEEP_FREED_MEMORY},
                # What Ray Train writes of its own: in the replica's folder.
                name=files.folder.rpartition("/")[2],
                storage_path=run.below(files.folder.rpartition("/")[0]).root,
                failure_config=FailureConfig(max_failures=resources.max_failures),
            ),
        ).fit()
    except Exception as error:  # noqa: BLE001  # whatever it is, the other replicas go on
        return {"reason": _root_cause(error), "traceback": traceback.format_exc()}
    failure: dict[str, str] | None = result.return_value
    return failure


def _root_cause(error: Exception) -> str:
    """One line: the worker's own exception rather than Ray's wrapping of it."""
    for inner in getattr(error, "worker_failures", {}).values():
        lines = str(inner).strip().splitlines()
        if lines:
            return lines[-1]
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
