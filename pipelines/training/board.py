"""Board that the scheduler shares with the workers: progress, handover, and notice that a replica has to end.

Workers post and ask; the scheduler reads about once a second. It runs as an actor without CPUs beside the job.
"""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines.job.progress import ProgressBoard, ReplicaStatus

DRAINED = "its node is about to be taken away"
LONGEST_ANSWER_SECONDS = 10.0


@dataclass(frozen=True)
class Answer:
    """The replica that a worker is to train next; None to end."""

    following: int | None


@dataclass(frozen=True)
class BoardState:
    """What workers have left on the board.

    Attributes:
        statuses: latest status by replica.
        warnings: warnings since the last reading.
        asking: finished replicas whose workers ask for others.
        places: ids of the nodes on which the workers of each replica run, or ran last.
        reservations: placement group of the workers of each fit, by the replica with which it began.
    """

    statuses: dict[int, ReplicaStatus] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    asking: list[int] = field(default_factory=list)
    places: dict[int, list[str]] = field(default_factory=dict)
    reservations: dict[int, Any] = field(default_factory=dict)


class TrainingBoard(ProgressBoard):
    """Progress board with questions and answers of workers; a repeated question or answer does no harm."""

    def __init__(self) -> None:
        super().__init__()
        # Answers by the replica that the asking worker has finished.
        self._answers: dict[int, Answer | None] = {}
        # Nodes by replica and worker.
        self._nodes: dict[int, dict[int, str]] = {}
        # Placement groups by the replica with which a fit began.
        self._reservations: dict[int, Any] = {}
        self._leaving: frozenset[str] = frozenset()
        self._stop = ""

    def state(self) -> BoardState:
        """Return everything that the scheduler reads."""
        statuses, warnings = self.read()
        places = {replica: list(nodes.values()) for replica, nodes in self._nodes.items()}
        return BoardState(statuses, warnings, self.asking(), places, self._reservations)

    def ask(self, finished: int) -> None:
        """Ask for the replica to train after ``finished``."""
        self._answers[finished] = None

    def asking(self) -> list[int]:
        """Return the finished replicas whose workers wait for an answer."""
        return [finished for finished, answer in self._answers.items() if answer is None]

    def answer(self, finished: int, following: int | None) -> None:
        """Answer the worker that has trained ``finished``; None ends it."""
        self._answers[finished] = Answer(following)

    def answer_after(self, finished: int) -> Answer | None:
        """Return the answer for the worker that has trained ``finished``; None if it has to wait."""
        return self._answers.get(finished)

    def place(self, replica: int, rank: int, workers: int, node: str) -> None:
        """Note that worker ``rank`` of ``workers`` of ``replica`` runs on ``node``."""
        others = {other: at for other, at in self._nodes.get(replica, {}).items() if other < workers}
        self._nodes[replica] = {**others, rank: node}

    def note_reservation(self, replica: int, group: Any) -> None:
        """Note the placement group of the workers of the fit that began with ``replica``."""
        self._reservations[replica] = group

    def reservation(self, replica: int) -> Any:
        """Return the newest placement group of the fit that began with ``replica``; None if it has had none."""
        return self._reservations.get(replica)

    def forget(self, replica: int) -> None:
        """Forget where ``replica`` ran and what it did, as it is about to start; until its worker does, it waits."""
        super().forget(replica)
        self._nodes.pop(replica, None)

    def tell(self, leaving: Collection[str], stop: str) -> None:
        """Replace the ids of nodes that are about to be taken away, and the reason why all replicas have to end."""
        self._leaving, self._stop = frozenset(leaving), stop

    def notice(self, replica: int) -> str:
        """Return why ``replica`` has to write a checkpoint and end now; empty if it may go on."""
        if self._stop:
            return self._stop
        return DRAINED if self._leaving & set(self._nodes.get(replica, {}).values()) else ""


def new_board() -> Any:
    """Start a board on this node; return its handle."""
    return ray.remote(num_cpus=0)(TrainingBoard).options(scheduling_strategy=here()).remote()


def read_board(board: Any) -> tuple[BoardState, Any]:
    """Return the state of the board, and the board; if it died with its node, a new one."""
    try:
        return ray.get(board.state.remote()), board
    except ray.exceptions.ActorUnavailableError:  # temporary
        return BoardState(), board
    except ray.exceptions.RayActorError:
        return BoardState(), new_board()


def reservation_on(board: Any, replica: int) -> Any:
    """Return the newest placement group of the fit that began with ``replica``; None if the board knows of none."""
    with suppress(ray.exceptions.RayError):  # a board that has died
        return ray.get(board.reservation.remote(replica), timeout=LONGEST_ANSWER_SECONDS)
    return None


def here() -> NodeAffinitySchedulingStrategy:
    """Return a strategy that prefers this node, whose death ends the job in any case."""
    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
