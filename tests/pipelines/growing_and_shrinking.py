"""A replica that is trained on one node, then on two, then on one again; a part of changing_cluster.py.

A node joins while the first trains alone; its worker receives SIGTERM and the replica goes on with two. The node that
joined is drained, and the replica goes on alone, until the job is told to stop. No failure is allowed. Every step's
checkpoint is kept in a folder of its own.
"""

import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster
from ray.scripts.scripts import cli

from googlenet.network.arithmetic import FP32
from pipelines.run.directory import read_recipe
from pipelines.run.json_lines import read_steps
from pipelines.run.storage import Storage
from pipelines.training.resources import Resources
from pipelines.training.scheduler import train_replicas
from pipelines.training.validation_plan import ValidationPlan
from tests.servers import ray_processes

RESOURCES = Resources(
    custom={"accelerator": 1}, max_failures=0, checkpoint_minutes=1e-6, validation=ValidationPlan(every_epochs=10**6)
)
STEPS_EACH = 3
NOTICE_SECONDS = 200


def grow_and_shrink(cluster: Cluster, node: Mapping[str, Any], root: Path, kept: Path) -> dict[str, object]:
    """Train the run in ``root`` on a cluster of one node; return its failures, and the workers of each step.

    The node that joins is removed in the end.
    """
    run = Storage.at(str(root))
    failures: list[str] = []
    stop: list[str] = []

    def work() -> None:
        ended = train_replicas(run, read_recipe(run), RESOURCES, FP32, lambda _: None, lambda: "".join(stop))
        failures.extend(failure.reason for failure in ended)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    keeper = threading.Thread(target=_keep_checkpoints, args=(root, kept, thread), daemon=True)
    keeper.start()

    last = 0

    def wait_for_further_steps_of(workers: int) -> None:
        nonlocal last
        taken = 0
        while thread.is_alive() and taken < STEPS_EACH:
            for line in read_steps(run, 0, last):
                last, taken = line["step"], taken + (line["step/workers"] == workers)
            time.sleep(0.1)

    wait_for_further_steps_of(1)
    worker = next(ray_processes(cluster.address, "ray::RayTrainWorker"))
    worker.suspend()  # it would take steps on the cores on which the node starts
    joined = cluster.add_node(wait=False, **node)
    cluster.wait_for_nodes(timeout=120)
    worker.terminate()
    worker.resume()
    wait_for_further_steps_of(2)
    _drain(cluster.address, joined.node_id)
    wait_for_further_steps_of(1)
    stop.append("the test has seen enough")
    thread.join()
    keeper.join()
    cluster.remove_node(joined)
    return {"failures": failures, "steps": [(line["step"], line["step/workers"]) for line in read_steps(run, 0, 0)]}


def _keep_checkpoints(root: Path, kept: Path, training: threading.Thread) -> None:
    is_last = False
    while not is_last:
        is_last = not training.is_alive()
        for path in root.glob("replicas/0/checkpoints/*.safetensors"):
            with suppress(FileExistsError, FileNotFoundError):
                os.link(path, kept / path.name)
        time.sleep(0.03)  # the newest two are always there


def _drain(address: str, node_id: str) -> None:
    """Run the command `ray drain-node` in this process."""
    words = ["drain-node", "--address", address, "--node-id", node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    words += ["--reason-message", "spot", "--deadline-remaining-seconds", str(NOTICE_SECONDS)]
    cli.main(words, standalone_mode=False)
