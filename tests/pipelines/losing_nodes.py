"""A run that is trained and evaluated on nodes of which two die; a part of changing_cluster.py.

A node joins when training has started, the first node dies when a replica is being trained on each, and the second when
the first shard of images has been predicted. The first node's worker is stopped meanwhile: it would train all replicas
in turn before the other node has started.
"""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

from googlenet.network.arithmetic import FP32
from pipelines.evaluation.evaluate import evaluate_run
from pipelines.job.nodes import alive_nodes
from pipelines.report.write import write_report
from pipelines.run.directory import read_recipe
from pipelines.run.storage import Storage
from pipelines.training.resources import Resources
from pipelines.training.scheduler import train_replicas
from tests.servers import ray_processes

# No failure is allowed: that a node is lost is none.
RESOURCES = Resources(custom={"accelerator": 1}, checkpoint_minutes=1e-6, max_failures=0)
HEAD_AND_ONE = 2
PATIENCE_SECONDS = 200


def lose_nodes(cluster: Cluster, node: Mapping[str, Any], first: Any, root: Path) -> dict[str, object]:
    """Train and evaluate the run in ``root`` on a cluster of the node ``first``; return what was seen."""
    run = Storage.at(str(root))
    found: dict[str, object] = {"at_once": {}, "failures": None, "evaluated": False}
    while_there_is = "one"

    def work() -> None:
        at_once: dict[str, int] = {}

        def on_poll(phases: dict[int, str]) -> None:
            active = sum(phase in ("starting", "training") for phase in phases.values())
            at_once[while_there_is] = max(at_once.get(while_there_is, 0), active)
            found["at_once"] = dict(at_once)

        recipe = read_recipe(run)
        failures = train_replicas(run, recipe, RESOURCES, FP32, on_poll)
        found["failures"] = [failure.reason for failure in failures]
        write_report(run, evaluate_run(run, recipe), with_pictures=False)
        found["evaluated"] = True

    # Of the training before. To look for processes takes a while, on the cores on which these end.
    _wait_while(
        lambda: len(alive_nodes()) > HEAD_AND_ONE or any(ray_processes(cluster.address, "ray::RayTrainWorker")),
        pause_seconds=0.1,
    )
    thread = threading.Thread(target=work, daemon=True)
    thread.start()

    def wait_for(pattern: str) -> None:
        _wait_while(lambda: thread.is_alive() and not list(root.glob(pattern)))

    wait_for("replicas/0/checkpoints/*.safetensors")
    worker = next(ray_processes(cluster.address, "ray::RayTrainWorker"))
    worker.suspend()
    second = cluster.add_node(**node)
    while_there_is = "both"
    wait_for("replicas/1/checkpoints/*.safetensors")
    cluster.remove_node(first, allow_graceful=False)
    worker.kill()  # a stopped process does not notice that its node is gone
    while_there_is = "one again"
    wait_for("predictions/*.parquet")
    found["shards_at_second_death"] = len(list(root.glob("predictions/*.parquet")))
    cluster.remove_node(second, allow_graceful=False)
    thread.join(PATIENCE_SECONDS)
    return {**found, "still_running": thread.is_alive()}


def _wait_while(goes_on: Callable[[], bool], pause_seconds: float = 0.02) -> None:
    while goes_on():
        time.sleep(pause_seconds)
