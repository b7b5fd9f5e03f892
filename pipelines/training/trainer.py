"""Fit of a replica: a Ray task without CPUs that runs a Ray Train trainer, whose workers do the work.

PyTorch is imported by the workers alone: of the four processes that a fit starts, three do without it. A fit goes on
with further replicas where that saves the start of another one.
"""

import gc
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict

import ray
from ray.exceptions import RayError

from googlenet.images.records import ShardDamagedError
from googlenet.network.arithmetic import Arithmetic
from pipelines.errors import UserError
from pipelines.run.directory import ReplicaFiles, check_run_directory
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.run.storage_failures import storage_failure
from pipelines.training.failure import ReplicaFailure
from pipelines.training.handover import next_replica, trains_in_turn
from pipelines.training.resources import Resources
from pipelines.training.validation_plan import ValidationPlan

if TYPE_CHECKING:
    from pipelines.training.ray_reports import RayReports
    from pipelines.training.task import ReplicaTask

# Callbacks of Ray Train that start a process for each fit, with two to four seconds of processor time, and have nothing
# to do here: workers read shards instead of Ray Data's data sets, and the scheduler frees what a dead fit had reserved.
NOT_NEEDED = ("DatasetsCallback", "PlacementGroupCleanerCallback")
SECONDS_PER_MINUTE = 60.0
LONGEST_COUNT_SECONDS = 10.0


class LoopConfig(TypedDict):
    """What Ray Train hands to each worker: the fields of its :class:`ReplicaTask`, but its device and its share."""

    run: Storage
    recipe: Recipe
    replica: int
    checkpoint_seconds: float
    shard_cache_bytes: int | None
    arithmetic: Arithmetic
    loader_processes: int
    validation: ValidationPlan
    gpu_augmentation: bool
    cuda_graphs: bool
    board: Any


@ray.remote(num_cpus=0, max_retries=0)  # type: ignore[untyped-decorator]
def fit_replica(
    run: Storage, recipe: Recipe, replica: int, resources: Resources, arithmetic: Arithmetic, board: Any
) -> int | ReplicaFailure:
    """Fit ``replica``, and further ones that the scheduler names; return the last one, or the first failure.

    A failure that no worker returned names ``replica``, whichever was being trained.
    """
    config: LoopConfig = {
        "run": run,
        "recipe": recipe,
        "replica": replica,
        "checkpoint_seconds": SECONDS_PER_MINUTE * resources.checkpoint_minutes,
        "shard_cache_bytes": resources.shard_cache_bytes,
        "arithmetic": arithmetic,
        "loader_processes": resources.loader_processes,
        "validation": resources.validation,
        "gpu_augmentation": resources.gpu_augmentation,
        "cuda_graphs": resources.cuda_graphs,
        "board": board,
    }
    loop = _train_in_turn if trains_in_turn(recipe, resources, arithmetic) else _train_one
    files = ReplicaFiles(replica)
    try:
        check_run_directory(run)  # Ray Train would create a new one
        # Ray Train's record is for readers only, since the replica keeps its own; a truncated one would be refused.
        run.delete(files.ray_snapshot)
        if recipe.least_workers < recipe.workers_per_replica:
            _make_ray_count_nodes()
        ended: int | ReplicaFailure = _trainer(loop, run, recipe, files, resources, config).fit().return_value
    except Exception as error:  # noqa: BLE001  # the other replicas continue after any error
        return _failure(replica, error)
    return ended


def _failure(replica: int, error: Exception) -> ReplicaFailure:
    """Return the failure of a fit that ended with ``error``, which is being handled."""
    causes, told = _causes(error), traceback.format_exc()
    for final in (cause for cause in causes if isinstance(cause, UserError | ShardDamagedError)):
        return ReplicaFailure(replica, _line(final), told, is_explained=True)
    is_explained = all(storage_failure(cause) for cause in causes)
    return ReplicaFailure(replica, _root_cause(causes), told, may_pass=True, is_explained=is_explained)


def _make_ray_count_nodes() -> None:
    """Make Ray Train see the nodes that are there now; by itself it looks for them every 20 seconds.

    With a list of nodes that is up to 20 seconds old, it would add workers on newer nodes a minute later, without
    writing a checkpoint first, and wait a minute for room on nodes that are gone. There is no public way to do this. If
    a later Ray lacks the private one of Ray 2.60, a replica waits as it would without this call; nothing else changes.
    """
    with suppress(ImportError, AttributeError, TypeError, RayError):
        from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
            get_or_create_autoscaling_coordinator,
        )

        coordinator = get_or_create_autoscaling_coordinator()
        ray.get(coordinator.get_reserved_resources.remote("", recompute=True), timeout=LONGEST_COUNT_SECONDS)


def _trainer(
    loop: Callable[[LoopConfig], int | ReplicaFailure],
    run: Storage,
    recipe: Recipe,
    files: ReplicaFiles,
    resources: Resources,
    config: LoopConfig,
) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig

    least, most = recipe.least_workers, recipe.workers_per_replica
    # Ray Train's own files go into the replica's folder.
    parent, _, name = files.folder.rpartition("/")
    trainer_class = _trainer_class(one_worker=least == most == 1, gpu=resources.gpus_per_worker > 0)
    return _with_fewer_processes(trainer_class, config["board"], config["replica"])(
        loop,
        train_loop_config=config,
        scaling_config=ScalingConfig(
            num_workers=most if least == most else (least, most),
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker=resources.per_worker,
        ),
        run_config=RunConfig(
            name=name,
            storage_path=run.path(parent),
            storage_filesystem=run.filesystem,
            worker_runtime_env={"env_vars": resources.environment},
            # The scheduler restarts replicas: it knows their progress, and which one a worker trains by now.
            failure_config=FailureConfig(max_failures=0, max_preemption_failures=0),
        ),
    )


def _trainer_class(*, one_worker: bool, gpu: bool) -> Any:
    """Return TorchTrainer, or its base where a worker needs neither a process group nor a GPU of PyTorch's.

    TorchTrainer would import PyTorch in the task of the fit and in Ray Train's controller: four seconds of processor
    time for each replica.
    """
    if one_worker and not gpu:
        from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

        return DataParallelTrainer
    from ray.train.torch import TorchTrainer

    return TorchTrainer


def _with_fewer_processes(trainer_class: Any, board: Any, replica: int) -> Any:
    """Return a trainer of the class that notes what it reserves on the board, without callbacks that are `NOT_NEEDED`.

    The note is written for Ray 2.60; where a later Ray has no place for it, Ray Train frees them in its own way.
    """
    try:
        from pipelines.training.reservation import NoteReservation
    except ImportError:
        return trainer_class

    class Trainer(trainer_class):  # type: ignore[misc]
        """A trainer that starts its controller, what synchronises checkpoints, and its workers."""

        def _create_default_callbacks(self) -> list[Any]:
            callbacks = super()._create_default_callbacks()
            return [
                NoteReservation(board, replica),
                *(callback for callback in callbacks if type(callback).__name__ not in NOT_NEEDED),
            ]

    return Trainer


def _train_in_turn(config: LoopConfig) -> int | ReplicaFailure:
    """Train one replica after the other, until one fails or the scheduler has no other."""
    from pipelines.training.ray_reports import RayReports

    task = _task(config)
    reports = RayReports(task.replica)
    while True:
        if failure := _train(task, reports):
            return failure
        following = next_replica(task.board, task.replica)
        if following is None:
            return task.replica
        task = replace(task, replica=following)
        gc.collect()  # the network and its optimiser refer to each other


def _train_one(config: LoopConfig) -> int | ReplicaFailure:
    """Train a replica as one of its workers."""
    from pipelines.training.ray_reports import RayReports

    task = _task(config)
    return _train(task, RayReports(task.replica)) or task.replica


def _task(config: LoopConfig) -> "ReplicaTask":
    import ray.train.torch

    from googlenet.training.data_parallel import Share
    from pipelines.training.notice import take_sigterm_as_notice
    from pipelines.training.task import ReplicaTask

    context = ray.train.get_context()
    share = Share(context.get_world_rank(), context.get_world_size())
    # This is a thread of the worker; handlers of signals are set in the main one, which runs its methods.
    ray.get(ray.get_runtime_context().current_actor.__ray_call__.remote(take_sigterm_as_notice))
    return ReplicaTask(**config, device=str(ray.train.torch.get_device()), share=share)


def _train(task: "ReplicaTask", reports: "RayReports") -> ReplicaFailure | None:
    """Train as one of the replica's workers. A raised error may be retried, a returned one is final."""
    import ray.train

    from googlenet.images.records import RecordsError
    from googlenet.training.health import NotFiniteError, TrainingError
    from pipelines.job.system_log import system_log
    from pipelines.training.notice import EndedByNoticeError
    from pipelines.training.replica import train_replica

    node = ray.get_runtime_context().get_node_id()
    task.board.place.remote(task.replica, task.share.rank, task.share.workers, node)
    try:
        # One worker on each node records its system metrics.
        with (
            system_log(task.run, task.files.system) if ray.train.get_context().get_local_rank() == 0 else nullcontext()
        ):
            train_replica(task, partial(reports.send, task))
    except EndedByNoticeError as ended:
        return ReplicaFailure(task.replica, str(ended), "", may_pass=True, noticed=True)
    except (TrainingError, RecordsError, UserError) as error:
        may_pass = isinstance(error, RecordsError) and not isinstance(error, ShardDamagedError)
        # A TrainingError occurs in all workers alike; other errors are raised, or the rest would wait for this one.
        if may_pass or (task.share.workers > 1 and not isinstance(error, TrainingError)):
            raise
        not_finite = isinstance(error, NotFiniteError)
        # On a CPU the same steps would end the same.
        may_pass = not_finite and task.device.startswith("cuda")
        told = traceback.format_exc()
        return ReplicaFailure(task.replica, _line(error), told, may_pass, not_finite, is_explained=True)
    return None


def _root_cause(causes: Sequence[Exception]) -> str:
    """Return in one line what the workers raised, without Ray's wrapping, and the death of a worker first.

    The replica's other workers may only report that they lost it.
    """
    deaths_first = sorted(causes, key=lambda cause: not isinstance(cause, ray.exceptions.RayError))
    return "; ".join(dict.fromkeys(map(_one_line, deaths_first)))


def _causes(error: Exception) -> list[Exception]:
    """Return what the workers raised; the error itself if none of them did."""
    return list(getattr(error, "worker_failures", {}).values()) or [error]


def _one_line(error: BaseException) -> str:
    line, name = _line(error), type(error).__name__
    return name if not line else line if line.startswith(name) else f"{name}: {line}"


def _line(error: BaseException) -> str:
    """Return the last line of an error's message; Ray's own ends with the cause."""
    return next(reversed(str(error).strip().splitlines()), "")
