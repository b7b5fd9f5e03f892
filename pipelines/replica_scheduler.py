"""Runs the replicas of a run on the cluster, as many at a time as its resources hold.

A replica is one ``TorchTrainer.fit()`` inside a task that takes no CPU; only its worker does. The window bounds how
many are started: seven at once on a small machine would each start six processes and wait for the others.
"""

import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from googlenet.arithmetic import Arithmetic
from pipelines.allocator import KEEP_FREED_MEMORY
from pipelines.dataset import check_run_directory
from pipelines.errors import UserError
from pipelines.progress import ProgressBoard, ReplicaStatus, TrainingDisplay
from pipelines.recipe import Recipe
from pipelines.resources import Resources, check_that_one_fits, replicas_at_once
from pipelines.run_directory import ReplicaFiles, finished_replicas
from pipelines.storage import Storage

POLL_SECONDS = 1.0
RAY_SNAPSHOT = "checkpoint_manager_snapshot.json"
SECONDS_PER_MINUTE = 60.0


@dataclass(frozen=True)
class ReplicaFailure:
    """A replica that failed for good."""

    replica: int
    reason: str
    traceback: str


class _Lost(ReplicaFailure):
    """A replica whose fit ended without a word; another try may go better."""


def train_replicas(
    run: Storage,
    recipe: Recipe,
    resources: Resources,
    arithmetic: Arithmetic,
    on_poll: Callable[[dict[int, str]], None],
) -> list[ReplicaFailure]:
    """Train every replica of ``recipe`` that is not finished in ``run``; the failures, when all have ended.

    ``on_poll`` is called about once a second with the phase of each replica.

    Raises:
        UserError: the cluster can never hold a single replica.
    """
    finished = finished_replicas(run, recipe.replicas)
    schedule = _Schedule(run, recipe, resources, arithmetic, finished)
    on_poll(schedule.phases)
    if not schedule.waiting:
        return []
    check_that_one_fits(recipe, resources)
    display = TrainingDisplay(recipe.replicas, recipe.epochs)
    board = ProgressBoard.remote()  # type: ignore[attr-defined]
    with display.showing():
        while schedule.waiting or schedule.running:
            schedule.fill(board)
            messages = schedule.collect()
            posted, warnings, board = _read(board)
            for message in messages + warnings:
                display.message(message)
            schedule.take_phases(posted)
            display.update(posted, schedule.phases)
            on_poll(schedule.phases)
    ray.kill(board)
    return schedule.failures


class _Schedule:
    """Which replicas wait, run, are done and have failed.

    Attributes:
        waiting: not started yet, or to be started again.
        running: by the reference of the fit.
        phases: by replica, for people.
        failures: for good.
    """

    def __init__(
        self, run: Storage, recipe: Recipe, resources: Resources, arithmetic: Arithmetic, finished: list[int]
    ) -> None:
        self._run, self._recipe, self._resources, self._arithmetic = run, recipe, resources, arithmetic
        self.waiting = [replica for replica in range(recipe.replicas) if replica not in finished]
        self.phases = dict.fromkeys(finished, "done") | dict.fromkeys(self.waiting, "waiting")
        self.running: dict[Any, int] = {}
        self.failures: list[ReplicaFailure] = []
        self._lost: Counter[int] = Counter()
        # On this node, if possible: it is the one whose death ends the job in any case.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        # Told which cluster this is, Ray Train's helpers do not look for one. They would take the address that a killed
        # cluster has left in Ray's folder, and every replica's end would wait twelve seconds for its answer.
        address = {"env_vars": {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}}
        self._fit = _fit.options(scheduling_strategy=here, runtime_env=address)

    def fill(self, board: Any) -> None:
        """Start replicas while the cluster holds more, however many nodes it has by now."""
        # At least one: a cluster that has lost its nodes for the moment gets new ones, and Ray Train waits.
        while self.waiting and len(self.running) < max(1, replicas_at_once(self._recipe, self._resources)):
            replica = self.waiting.pop(0)
            ref = self._fit.remote(self._run, self._recipe, replica, self._resources, self._arithmetic, board)
            self.running[ref] = replica
            self.phases[replica] = "starting"

    def collect(self) -> list[str]:
        """Wait a moment for replicas that have ended; what people should know of them."""
        messages = []
        for ref in ray.wait(list(self.running), timeout=POLL_SECONDS)[0]:
            replica = self.running.pop(ref)
            failure = _outcome(replica, ref)
            if isinstance(failure, _Lost) and self._lost[replica] < self._resources.max_failures:
                self._lost[replica] += 1
                self.waiting.insert(0, replica)
                self.phases[replica] = "waiting"
                messages.append(f"warning: replica {replica}: {failure.reason}; it is started again")
                continue
            _keep(self._run, replica, failure)
            self.phases[replica] = "failed" if failure else "done"
            if failure:
                self.failures.append(failure)
                where = self._run.below(_failure_file(replica))
                messages.append(f"replica {replica} failed: {failure.reason} (see {where})")
        return messages

    def take_phases(self, posted: dict[int, ReplicaStatus]) -> None:
        """What the workers of running replicas say they do."""
        for replica in self.running.values():
            # A board that cannot be read for the moment, or is new, says nothing.
            if replica in posted:
                self.phases[replica] = posted[replica].phase


def _read(board: Any) -> tuple[dict[int, ReplicaStatus], list[str], Any]:
    """What workers posted, warnings, and the board; a new one where the old one went down with its node."""
    try:
        return *ray.get(board.read.remote()), board
    except ray.exceptions.ActorUnavailableError:  # for the moment
        return {}, [], board
    except ray.exceptions.RayActorError:
        return {}, [], ProgressBoard.remote()  # type: ignore[attr-defined]


def _outcome(replica: int, ref: Any) -> ReplicaFailure | None:
    try:
        report = ray.get(ref)
    except ray.exceptions.RayError as error:  # not the worker: the task that fits it, with its node or by a signal
        return _Lost(replica, f"{type(error).__name__} outside of its worker", str(error))
    return None if report is None else ReplicaFailure(replica, **report)


def _keep(run: Storage, replica: int, failure: ReplicaFailure | None) -> None:
    """Write the traceback of a failure, or delete the one of an earlier failure."""
    try:
        if failure is None:
            run.delete(_failure_file(replica))
            return
        check_run_directory(run)
        run.write(_failure_file(replica), failure.traceback.encode())
    except (OSError, UserError):
        # The folder may be what failed; the traceback is then on the terminal alone.
        print(failure.traceback if failure else f"warning: {_failure_file(replica)} cannot be deleted", flush=True)


def _failure_file(replica: int) -> str:
    return ReplicaFiles(replica).failure


@ray.remote(num_cpus=0, max_retries=0)  # type: ignore[untyped-decorator]
def _fit(
    run: Storage, recipe: Recipe, replica: int, resources: Resources, arithmetic: Arithmetic, board: Any
) -> dict[str, str] | None:
    """Fit one replica; None, or the reason and traceback of its failure."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    def train(config: dict[str, Any]) -> dict[str, str] | None:
        import ray.train.torch

        from googlenet.data_parallel import Share
        from googlenet.health import TrainingError
        from googlenet.records import RecordsError
        from pipelines.errors import UserError
        from pipelines.replica_task import ReplicaTask
        from pipelines.replica_training import train_replica
        from pipelines.system_log import system_log

        context = ray.train.get_context()
        share = Share(context.get_world_rank(), context.get_world_size())
        task = ReplicaTask(**config, device=str(ray.train.torch.get_device()), share=share)
        try:
            # One of the workers on a node speaks for it.
            with system_log(task.run, task.files.system) if context.get_local_rank() == 0 else nullcontext():
                train_replica(task)
        except (TrainingError, RecordsError, UserError) as error:
            may_pass = isinstance(error, RecordsError) and not error.is_damaged
            # Errors of training meet all workers alike; of others the rest would not know, and wait.
            if may_pass or (share.workers > 1 and not isinstance(error, TrainingError)):
                raise
            # Another try would end the same way. An error that is returned is not retried.
            return {"reason": str(error).strip().splitlines()[-1], "traceback": traceback.format_exc()}
        return None

    files = ReplicaFiles(replica)
    least, most = recipe.least_workers, recipe.workers_per_replica
    try:
        # Ray Train's list of checkpoints is empty, since the replica keeps its own; a torn one would be refused.
        run.delete(f"{files.folder}/{RAY_SNAPSHOT}")
        result = TorchTrainer(
            train,
            train_loop_config={
                "run": run,
                "recipe": recipe,
                "replica": replica,
                "checkpoint_seconds": SECONDS_PER_MINUTE * resources.checkpoint_minutes,
                "shard_cache_bytes": resources.shard_cache_bytes,
                "arithmetic": arithmetic,
                "loader_processes": resources.loader_processes,
                "board": board,
            },
            scaling_config=ScalingConfig(
                num_workers=most if least == most else (least, most),
                use_gpu=resources.gpus_per_worker > 0,
                resources_per_worker=resources.per_worker,
            ),
            run_config=RunConfig(
                worker_runtime_env={"env_vars": KEEP_FREED_MEMORY},
                # What Ray Train writes of its own: in the replica's folder.
                name=files.folder.rpartition("/")[2],
                storage_path=run.path(files.folder.rpartition("/")[0]),
                storage_filesystem=run.filesystem,
                failure_config=FailureConfig(max_failures=resources.max_failures),
            ),
        ).fit()
    except Exception as error:  # noqa: BLE001  # whatever it is, the other replicas go on
        return {"reason": _root_cause(error), "traceback": traceback.format_exc()}
    failure: dict[str, str] | None = result.return_value
    return failure


def _root_cause(error: Exception) -> str:
    """One line: what the workers raised rather than Ray's wrapping of it, the death of a worker first.

    The others of a replica may only say that they have lost it.
    """
    failures = sorted(
        getattr(error, "worker_failures", {}).values(), key=lambda inner: not isinstance(inner, ray.exceptions.RayError)
    )
    reasons = dict.fromkeys(_one_line(inner) for inner in failures)
    return "; ".join(reasons) or _one_line(error)


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    name = type(error).__name__
    return name if not lines else lines[-1] if lines[-1].startswith(name) else f"{name}: {lines[-1]}"
