"""Nodes as Ray describes them: one with GPUs, one without, and any other."""

from collections.abc import Mapping

GPU_NODE = {"CPU": 16.0, "GPU": 4.0, "accelerator_type:A100": 1.0}
CPU_NODE = {"CPU": 6.0}
DRAINING = "ray._private.state.state.get_draining_nodes"


def node(resources: Mapping[str, float], name: str = "") -> dict[str, object]:
    """A node that is alive."""
    return {"NodeID": name, "Alive": True, "Resources": resources}
