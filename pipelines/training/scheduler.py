"""Scheduler that trains the replicas of a run on the cluster, as many at a time as fit.

The number started at once is bounded: on a small machine, seven replicas would each start four processes and wait for
the others.
"""

import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pyarrow as pa
import ray

from googlenet.network.arithmetic import Arithmetic
from pipelines.errors import UserError
from pipelines.job.console import say
from pipelines.job.nodes import any_lost, draining_nodes
from pipelines.job.progress import TrainingDisplay
from pipelines.job.ray_session import TRAIN_SETTINGS
from pipelines.job.unplaced import Unplaced
from pipelines.run.directory import ReplicaFiles, check_run_directory, finished_replicas
from pipelines.run.recipe import Recipe
from pipelines.run.storage import Storage
from pipelines.training.board import BoardState, here, new_board, read_board, reservation_on
from pipelines.training.checkpoints import newest_step
from pipelines.training.failure import ReplicaFailure
from pipelines.training.resources import Resources, check_that_one_fits, replicas_at_once, replicas_held
from pipelines.training.restarts import Tries
from pipelines.training.trainer import fit_replica

POLL_SECONDS = 1.0
# Time for the replicas to write checkpoints and end when the job is to stop.
STOPPING_SECONDS = 120.0


def train_replicas(
    run: Storage,
    recipe: Recipe,
    resources: Resources,
    arithmetic: Arithmetic,
    on_poll: Callable[[dict[int, str]], None],
    why_stop: Callable[[], str] = str,
) -> list[ReplicaFailure]:
    """Train every replica of ``recipe`` that is not finished in ``run``; return the final failures.

    ``on_poll`` is called about once a second with the phase of each replica. Once ``why_stop`` returns a reason to
    stop, the running replicas write checkpoints and end, and the others are not started.

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
    board = new_board()
    with display.showing():
        while schedule.goes_on:
            ended = schedule.stop_if(why_stop(), board)
            schedule.fill(board)
            board.tell.remote(draining_nodes(), schedule.stopping)
            messages = ended + schedule.collect(board) + schedule.unplaced()
            state, board = read_board(board)
            schedule.take(state)
            schedule.hand_over(board, state.asking)
            for message in state.warnings + messages:
                display.message(message)
            display.update(state.statuses, schedule.phases)
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
        stopping: why no replica is started any more; empty while some are.
    """

    def __init__(
        self, run: Storage, recipe: Recipe, resources: Resources, arithmetic: Arithmetic, finished: list[int]
    ) -> None:
        self._run, self._recipe, self._resources, self._arithmetic = run, recipe, resources, arithmetic
        self.waiting = [replica for replica in range(recipe.replicas) if replica not in finished]
        self.phases = dict.fromkeys(finished, "done") | dict.fromkeys(self.waiting, "waiting")
        self.running: dict[Any, int] = {}
        self.failures: list[ReplicaFailure] = []
        self.stopping, self._stop_by = "", math.inf
        self._places: dict[int, list[str]] = {}
        # The replica with which each fit began, by the fit's reference.
        self._began: dict[Any, int] = {}
        # What the board had before it died.
        self._reservations: dict[int, Any] = {}
        self._tries, self._tries_if_not_finite = Tries(resources.max_failures), Tries(min(1, resources.max_failures))
        self._paused_until: dict[int, float] = {}
        self._unplaced = Unplaced()
        # With the address given, Ray Train's helpers do not look for a cluster. They would take the address that a
        # killed cluster left in Ray's folder, and each replica would wait twelve seconds for its answer at the end.
        variables = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
        # On a cluster that was there before, Ray Train's processes do not have the environment of this one.
        variables |= {name: os.environ[name] for name in TRAIN_SETTINGS if name in os.environ}
        self._fit = fit_replica.options(scheduling_strategy=here(), runtime_env={"env_vars": variables})

    @property
    def goes_on(self) -> bool:
        """Whether there is something to start or to wait for."""
        return bool(self.running or (self.waiting and not self.stopping))

    def stop_if(self, reason: str, board: Any) -> list[str]:
        """Start nothing more if there is a ``reason``; return messages about what had to be ended.

        That is what has not ended by itself within ``STOPPING_SECONDS``.
        """
        if reason and not self.stopping:
            self.stopping, self._stop_by = reason, time.monotonic() + STOPPING_SECONDS
        if time.monotonic() <= self._stop_by:
            return []
        messages = []
        for ref, replica in self.running.items():
            # Its workers do not answer, or never got a place: such a request stays until the job ends.
            ray.cancel(ref, force=True)
            self._free(board, self._began.pop(ref, replica))
            self._wait_again(replica)
            step = _step_reached(self._run, replica)
            kept = f"it will continue from its checkpoint of step {step}" if step else "it has no checkpoint"
            late = f"the replica did not stop within {STOPPING_SECONDS:.0f} s"
            messages.append(f"warning: replica {replica} was ended, since {self.stopping} and {late}; {kept}")
        self.running.clear()
        return messages

    def fill(self, board: Any) -> None:
        """Start replicas while the cluster, with its current nodes, holds more."""
        while len(self.running) < self._window() and (replica := self._take_ready(board)) is not None:
            ref = self._fit.remote(self._run, self._recipe, replica, self._resources, self._arithmetic, board)
            self.running[ref] = self._began[ref] = replica

    def hand_over(self, board: Any, asking: Sequence[int]) -> None:
        """Give each worker that has trained a replica and asks for another one that is ready, or none."""
        leaving = draining_nodes() if asking else set()
        for finished in asking:
            following = None
            # The fit may have ended since.
            for ref in [ref for ref, replica in self.running.items() if replica == finished]:
                may_go_on = len(self.running) <= self._window() and not leaving & set(self._places.get(finished, ()))
                following = self._take_ready(board) if may_go_on else None
                if following is not None:
                    self._end(finished)
                    self.running[ref] = following
            board.answer.remote(finished, following)

    def _window(self) -> int:
        # At least one: a cluster that has lost its nodes may get new ones, and Ray Train waits for them.
        return max(1, replicas_at_once(self._recipe, self._resources))

    def _take_ready(self, board: Any) -> int | None:
        """Return the first waiting replica that is not paused, which is about to start; None if there is none."""
        now = time.monotonic()
        for replica in () if self.stopping else self.waiting:
            if self._paused_until.get(replica, now) <= now:
                self.waiting.remove(replica)
                self.phases[replica] = "starting"
                # A failure before its workers are placed has nothing to do with the nodes of an earlier attempt.
                self._places.pop(replica, None)
                board.forget.remote(replica)
                return replica
        return None

    def collect(self, board: Any) -> list[str]:
        """Wait a moment for replicas to end; return messages about those that failed."""
        messages: list[str] = []
        if not self.running:  # all that wait are paused
            time.sleep(POLL_SECONDS)
            return messages
        for ref in ray.wait(list(self.running), timeout=POLL_SECONDS)[0]:
            replica = self.running.pop(ref)
            began, ended = self._began.pop(ref, replica), _outcome(replica, ref)
            if isinstance(ended, ReplicaFailure):
                self._free(board, began)
                messages += self._after_failure(ended)
            elif ended == replica:
                self._end(replica)
            else:  # the worker ended without knowing that it was to go on
                self._wait_again(replica)
        return messages

    def _after_failure(self, failure: ReplicaFailure) -> list[str]:
        """Let a replica that failed wait for another attempt, or give it up; return messages about that."""
        replica = failure.replica
        if failure.noticed:  # its worker has said so
            self._wait_again(replica)
            return []
        if failure.may_pass and any_lost(self._places.get(replica, ())):
            self._wait_again(replica)
            return [f"warning: replica {replica}: its node is lost; it goes on from its newest checkpoint"]
        if failure.may_pass and (pause_seconds := self._pause_before_restart(replica, failure)):
            self._wait_again(replica)
            self._paused_until[replica] = time.monotonic() + pause_seconds
            again = f"restarting it in {pause_seconds:.0f} s"
            if self.stopping:
                again = f"it is not restarted, since {self.stopping}"
            return [f"warning: replica {replica}: {failure.reason}; {again}"]
        self._end(replica, failure)
        return [f"replica {replica} failed: {failure.reason} (see {self._run.below(_failure_file(replica))})"]

    def _free(self, board: Any, began: int) -> None:
        """Free what the fit that began with this replica had reserved; its controller has not if it was killed."""
        group = reservation_on(board, began) or self._reservations.get(began)
        if group is not None:
            ray.util.remove_placement_group(group)

    def _wait_again(self, replica: int) -> None:
        self.waiting.insert(0, replica)
        self.phases[replica] = "waiting"

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
        """Return a warning, once, if the cluster has been unable to hold a replica for a while."""
        if not self._unplaced.is_to_be_told(is_held=replicas_held(self._recipe, self._resources) > 0):
            return []
        return [f"warning: the cluster cannot hold a replica (workers of {self._resources}); waiting until it can"]

    def take(self, state: BoardState) -> None:
        """Take over the phases of running replicas, and their nodes, from what their workers left on the board."""
        # A board that is new, or cannot be read for the moment, holds nothing.
        self._places.update(state.places)
        self._reservations.update(state.reservations)
        for replica in self.running.values():
            if replica in state.statuses:
                self.phases[replica] = state.statuses[replica].phase


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
        if failure is None:
            say(f"warning: {_failure_file(replica)} cannot be deleted")
        elif not failure.is_explained:
            say(failure.traceback, wrap=False)


def _failure_file(replica: int) -> str:
    return ReplicaFiles(replica).failure
