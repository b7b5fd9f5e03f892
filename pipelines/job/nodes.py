"""Nodes of the connected cluster: how much each holds, those that are about to leave it, and those that are lost."""

import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipelines.errors import TryAgainError
from pipelines.job.console import count, size

CONNECTION_SECONDS = 2.0
# Ray's name of the memory that tasks reserve. A node offers what other programs left when it started.
MEMORY = "memory"


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


def alive_nodes(*, with_leaving: bool = False) -> list[dict[str, float]]:
    """Return the resources of each live node of the connected cluster; of drained ones only ``with_leaving``."""
    import ray

    leaving = set() if with_leaving else draining_nodes()
    return [node["Resources"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in leaving]


def usable_gpus(node: Mapping[str, float]) -> float:
    """Return the GPUs of a node with these resources, none without a CPU for the worker or predictor of a GPU."""
    return node.get("GPU", 0.0) if node.get("CPU", 0.0) >= 1 else 0.0


def amounts_line(amounts: Mapping[str, float]) -> str:
    """Return amounts of resources for display: 1 CPU, 2.10 GB memory."""
    return ", ".join(f"{size(amount) if name == MEMORY else f'{amount:g}'} {name}" for name, amount in amounts.items())


def affordable_memory(
    need_bytes: int, needs: Mapping[str, float], nodes: Sequence[Mapping[str, float]], workers: int = 1
) -> int:
    """Return ``need_bytes``, or the most with which ``workers`` workers fit, if their other needs allow that.

    Otherwise it is 0: what a node will have that joins on demand is unknown.
    """
    shares = {
        float(int(node.get(MEMORY, 0.0) / share))
        for node in nodes
        if held_by(node, needs)
        for share in range(1, workers + 1)
    }
    for memory in sorted((m for m in {float(need_bytes), *shares} if 0 < m <= need_bytes), reverse=True):
        if sum(held_by(node, {**needs, MEMORY: memory}) for node in nodes) >= workers:
            return int(memory)
    return 0


def memory_warning(process: str, needed_bytes: int, reserved_bytes: int) -> str:
    """Return a warning if less memory can be reserved than a process needs; empty if it is enough, or unknown."""
    if not 0 < reserved_bytes < needed_bytes:
        return ""
    return (
        f"{process} needs about {size(needed_bytes)} of memory, but only {size(reserved_bytes)} is available for each: "
        "the operating system may kill it; use a machine with more memory"
    )


def held_by(node: Mapping[str, float], needs: Mapping[str, float]) -> int:
    """Return how many workers that each reserve ``needs`` fit on a node with these resources."""
    return min(held(name, node.get(name, 0.0), need) for name, need in needs.items())


def held(name: str, amount: float, need: float) -> int:
    """Return how many workers that each reserve ``need`` of a resource fit on a node with ``amount`` of it."""
    if name == MEMORY:  # in bytes, of which Ray misses not one
        return int(amount / need)
    # Adding a thousandth compensates for rounding of fractions.
    if name == "GPU" and need < 1:  # a share is of one GPU; the remainders of two do not add up
        return int(amount) * int(1 / need + 1e-3)
    return int(amount / need + 1e-3)
