"""Scheduler that trains the replicas of a run on the cluster, as many at a time as fit.

The number started at once is bounded: on a small machine, seven replicas would each start six processes and wait for
the others.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pyarrow as pa
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from googlenet.network.arithmetic import Arithmetic
from pipelines.errors import UserError
from pipelines.job.progress import ReplicaStatus, TrainingDisplay
from pipelines.job.ray_session import STATE_TRACKING
from pipelines.run.directory import ReplicaFiles, check_run_directory, finished_replicas
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training.checkpoints import newest_step
from pipelines.training.failure import ReplicaFailure
from pipelines.training.handover import TrainingBoard
from pipelines.training.resources import Resources, check_that_one_fits, replicas_at_once, replicas_held
from pipelines.training.trainer import fit_replica

POLL_SECONDS = 1.0
UNPLACED_SECONDS = 60.0
# Pause before a restart, doubled for each failure in a row: whatever ended the replica may last for minutes.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 2.0, 300.0


class Tries:
    """Limit on restarts: none while a replica makes progress, ``most`` times in a row while it makes none.

    On machines that come and go, a run of weeks fails many times, each time further on.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._failures: Counter[int] = Counter()
        self._furthest: Counter[int] = Counter()

    def has_another(self, replica: int, step: int) -> bool:
        """Count a failure of ``replica``, whose newest checkpoint is of ``step``; return whether to restart it."""
        if step > self._furthest[replica]:
            self._furthest[replica], self._failures[replica] = step, 0
        self._failures[replica] += 1
        return self._failures[replica] <= self._most

    def pause_seconds(self, replica: int) -> float:
        """Return how long to wait before ``replica`` is restarted after its last failure."""
        doublings = max(0, self._failures[replica] - 1)
        return float(min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**doublings))


def train_replicas(
    run: Storage,
    recipe: Recipe,
    resources: Resources,
    arithmetic: Arithmetic,
    on_poll: Callable[[dict[int, str]], None],
) -> list[ReplicaFailure]:
    """Train every replica of ``recipe`` that is not finished in ``run``; return the final failures.

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
    board = _new_board()
    with display.showing():
        while schedule.waiting or schedule.running:
            schedule.fill(board)
            messages = schedule.collect() + schedule.unplaced()
            posted, warnings, asking, board = _read(board)
            schedule.hand_over(board, asking)
            for message in messages + warnings:
                display.message(message)
            schedule.take_phases(posted)
            display.update(posted, schedule.phases)
            on_poll(schedule.phases)
    ray.kill(board)
    return schedule.failures


class _Schedule:
    """State of the replicas: waiting, running, done or failed.

    Attributes:
        waiting: replicas not started yet, or to be restarted.
        running: replica that each fit trains, by the fit's reference.
        phases: phase by replica, for display.
        failures: final failures.
    """

    def __init__(
        self, run: Storage, recipe: Recipe, resources: Resources, arithmetic: Arithmetic, finished: list[int]
    ) -> None:
        self._run, self._recipe, self._resources, self._arithmetic = run, recipe, resources, arithmetic
        self.waiting = [replica for replica in range(recipe.replicas) if replica not in finished]
        self.phases = dict.fromkeys(finished, "done") | dict.fromkeys(self.waiting, "waiting")
        self.running: dict[Any, int] = {}
        self.failures: list[ReplicaFailure] = []
        self._tries, self._tries_if_not_finite = Tries(resources.max_failures), Tries(min(1, resources.max_failures))
        self._paused_until: dict[int, float] = {}
        self._held_at, self._told_unplaced = time.monotonic(), False
        # With the address given, Ray Train's helpers do not look for a cluster. They would take the address that a
        # killed cluster left in Ray's folder, and each replica would wait twelve seconds for its answer at the end.
        variables = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
        variables |= {name: os.environ[name] for name in (STATE_TRACKING,) if name in os.environ}
        self._fit = fit_replica.options(scheduling_strategy=_here(), runtime_env={"env_vars": variables})

    def fill(self, board: Any) -> None:
        """Start replicas while the cluster, with its current nodes, holds more."""
        while len(self.running) < self._window() and (replica := self._take_ready()) is not None:
            ref = self._fit.remote(self._run, self._recipe, replica, self._resources, self._arithmetic, board)
            self.running[ref] = replica

    def hand_over(self, board: Any, asking: Sequence[int]) -> None:
        """Give each worker that has trained a replica and asks for another one that is ready, or none."""
        for finished in asking:
            following = None
            # The fit may have ended since.
            for ref in [ref for ref, replica in self.running.items() if replica == finished]:
                following = self._take_ready() if len(self.running) <= self._window() else None
                if following is not None:
                    self._end(finished)
                    self.running[ref] = following
            board.answer.remote(finished, following)

    def _window(self) -> int:
        # At least one: a cluster that has lost its nodes may get new ones, and Ray Train waits for them.
        return max(1, replicas_at_once(self._recipe, self._resources))

    def _take_ready(self) -> int | None:
        """Return the first waiting replica that is not paused, which is about to start; None if there is none."""
        now = time.monotonic()
        for replica in self.waiting:
            if self._paused_until.get(replica, now) <= now:
                self.waiting.remove(replica)
                self.phases[replica] = "starting"
                return replica
        return None

    def collect(self) -> list[str]:
        """Wait a moment for replicas to end; return messages about those that failed."""
        messages: list[str] = []
        if not self.running:  # all that wait are paused
            time.sleep(POLL_SECONDS)
            return messages
        for ref in ray.wait(list(self.running), timeout=POLL_SECONDS)[0]:
            replica = self.running.pop(ref)
            ended = _outcome(replica, ref)
            failure = ended if isinstance(ended, ReplicaFailure) else None
            if not failure and ended != replica:  # the worker ended without knowing that it was to go on
                self.waiting.insert(0, replica)
                self.phases[replica] = "waiting"
                continue
            if failure and failure.may_pass and (pause_seconds := self._pause_before_restart(replica, failure)):
                self.waiting.insert(0, replica)
                self._paused_until[replica] = time.monotonic() + pause_seconds
                self.phases[replica] = "waiting"
                messages.append(f"warning: replica {replica}: {failure.reason}; restarting it in {pause_seconds:.0f} s")
                continue
            self._end(replica, failure)
            if failure:
                where = self._run.below(_failure_file(replica))
                messages.append(f"replica {replica} failed: {failure.reason} (see {where})")
        return messages

    def _end(self, replica: int, failure: ReplicaFailure | None = None) -> None:
        _keep(self._run, replica, failure)
        self.phases[replica] = "failed" if failure else "done"
        if failure:
            self.failures.append(failure)

    def _pause_before_restart(self, replica: int, failure: ReplicaFailure) -> float | None:
        """Count a failure that may pass; return the seconds to wait before a restart, None if there is to be none."""
        tries = self._tries_if_not_finite if failure.not_finite else self._tries
        return tries.pause_seconds(replica) if tries.has_another(replica, _step_reached(self._run, replica)) else None

    def unplaced(self) -> list[str]:
        """Return a warning, once, if the cluster has been unable to hold a replica for ``UNPLACED_SECONDS``."""
        now = time.monotonic()
        if replicas_held(self._recipe, self._resources):
            self._held_at, self._told_unplaced = now, False
            return []
        if self._told_unplaced or now - self._held_at < UNPLACED_SECONDS:
            return []
        self._told_unplaced = True
        return [f"warning: the cluster cannot hold a replica (workers of {self._resources}); waiting until it can"]

    def take_phases(self, posted: dict[int, ReplicaStatus]) -> None:
        """Update the phases of running replicas from what their workers posted."""
        for replica in self.running.values():
            # A board that is new, or cannot be read for the moment, holds nothing.
            if replica in posted:
                self.phases[replica] = posted[replica].phase


def _here() -> NodeAffinitySchedulingStrategy:
    """Return a strategy that prefers this node, whose death ends the job in any case."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)


def _new_board() -> Any:
    return ray.remote(num_cpus=0)(TrainingBoard).options(scheduling_strategy=_here()).remote()


def _read(board: Any) -> tuple[dict[int, ReplicaStatus], list[str], list[int], Any]:
    """Return what workers posted, warnings, finished replicas whose workers ask for others, and the board.

    If the board died with its node, a new one is returned.
    """
    try:
        (posted, warnings), asking = ray.get([board.read.remote(), board.asking.remote()])
    except ray.exceptions.ActorUnavailableError:  # temporary
        return {}, [], [], board
    except ray.exceptions.RayActorError:
        return {}, [], [], _new_board()
    return posted, warnings, asking, board


def _outcome(replica: int, ref: Any) -> int | ReplicaFailure:
    """Return the replica that a fit trained last, or the failure of ``replica``, which it was training."""
    try:
        ended: int | ReplicaFailure = ray.get(ref)
    except ray.exceptions.RayError as error:  # not a worker: the task of the fit died, with its node or by a signal
        return ReplicaFailure(replica, f"{type(error).__name__} outside the workers", str(error), may_pass=True)
    return replace(ended, replica=replica) if isinstance(ended, ReplicaFailure) else ended


def _step_reached(run: Storage, replica: int) -> int:
    """Return the step of the newest checkpoint; 0 if there is none or the storage does not respond."""
    with suppress(OSError, pa.ArrowException):
        return newest_step(run.below(ReplicaFiles(replica).checkpoints))
    return 0


def _keep(run: Storage, replica: int, failure: ReplicaFailure | None) -> None:
    """Write the traceback of a failure, or delete that of an earlier failure."""
    try:
        if failure is None:
            run.delete(_failure_file(replica))
            return
        check_run_directory(run)
        run.write(_failure_file(replica), failure.traceback.encode())
    except (OSError, UserError):
        # If the folder itself has failed, the traceback is only on the terminal.
        print(failure.traceback if failure else f"warning: {_failure_file(replica)} cannot be deleted", flush=True)


def _failure_file(replica: int) -> str:
    return ReplicaFiles(replica).failure
