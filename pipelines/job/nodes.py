"""Nodes of the connected cluster: those that are about to leave it, and those that are lost."""

import socket
from collections.abc import Iterable
from typing import Any

CONNECTION_SECONDS = 2.0


def draining_nodes() -> set[str]:
    """Return the ids of nodes that are drained: they are taken away soon, and Ray starts nothing there any more."""
    # Ray has no public function for this; Ray Train and Ray Serve call this one.
    from ray._private.state import state

    return set(state.get_draining_nodes())


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
