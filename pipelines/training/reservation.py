"""Note of what a fit has reserved on the cluster, left on the board by Ray Train's controller.

The controller frees it at the end. Ray Train's own way for a controller that was killed is a process beside each fit,
which asks once a second whether the controller lives; here the scheduler frees it once the fit has failed.
"""

from contextlib import suppress
from typing import Any

from ray.exceptions import RayError
from ray.train.v2._internal.execution.callback import WorkerGroupCallback


class NoteReservation(WorkerGroupCallback):  # type: ignore[misc]
    """Leaves the placement group of the workers on the board, under ``replica``, with which their fit began."""

    def __init__(self, board: Any, replica: int) -> None:
        self._board, self._replica = board, replica

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Note the group before its workers train."""
        # A later Ray may have other names, and the board may have died: the replica trains all the same.
        with suppress(AttributeError, RayError):
            group = worker_group.get_worker_group_state().placement_group_handle.placement_group
            self._board.note_reservation.remote(self._replica, group)
