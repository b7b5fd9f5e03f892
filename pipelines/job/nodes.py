"""Nodes of the connected cluster: those that are about to leave it, and those that are lost."""

import socket
from collections.abc import Iterable, Mapping
from typing import Any

from pipelines.errors import TryAgainError
from pipelines.job.console import count

CONNECTION_SECONDS = 2.0


class NodesMissingError(TryAgainError):
    """Nodes have not joined yet, or are about to be taken away; the same command works once others have joined."""


def has_only_its_head(nodes: Iterable[Mapping[str, float]]) -> bool:
    """Return whether a cluster of nodes with these resources has only a head without CPUs, as one that just started."""
    return not any(node.get("CPU") for node in nodes)


def until_nodes_join(option: str) -> str:
    """Return what to do where only the head has joined; ``option`` makes a cluster grow that grows on demand."""
    return (
        f"set {option} if nodes join on demand: without it, the cluster adds none; otherwise run the same command "
        "again once nodes have joined"
    )


def failures_to_answer() -> tuple[type[Exception], ...]:
    """Return what Ray raises if the cluster does not answer a question about its nodes; anything else is a bug."""
    from ray.exceptions import RayError

    # Ray's core, in C++, has no class for its failures: they arrive as errors of these two kinds.
    return RayError, RuntimeError, OSError


def draining_nodes() -> set[str]:
    """Return the ids of nodes that are drained: they are taken away soon, and Ray starts nothing there any more."""
    # Ray has no public function for this; Ray Train and Ray Serve call this one.
    from ray._private.state import state

    return set(state.get_draining_nodes())


def check_that_a_node_stays() -> None:
    """Refuse to start on a connected cluster whose nodes are all drained.

    Raises:
        NodesMissingError: all nodes are drained.
    """
    import ray

    # A head without CPUs stays, and starts nothing.
    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")}
    if alive and alive <= draining_nodes():
        raise NodesMissingError(
            f"all nodes of the cluster are being drained ({count(len(alive), 'node')}), so Ray starts nothing on them: "
            "run the same command again once other nodes have joined"
        )


def any_lost(nodes: Iterable[str]) -> bool:
    """Return whether one of the nodes with these ids is gone.

    The cluster needs half a minute to notice that a node died, and its processes are missed earlier: a node whose Ray
    does not answer counts as lost, too.
    """
    import ray

    alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    return any(node not in alive or not _answers(alive[node]) for node in nodes)


def _answers(node: dict[str, Any]) -> bool:
    address = node["NodeManagerAddress"], node["NodeManagerPort"]
    try:
        socket.create_connection(address, timeout=CONNECTION_SECONDS).close()
    except OSError:
        return False
    return True
