"""Script that trains a replica on one node, then on three, then on two; run by test_elastic_replica.py.

python -m tests.pipelines.elastic_cluster RUN KEPT

Two nodes join while the first trains alone; its worker receives SIGTERM and the replica goes on with three. One node is
drained, and the replica goes on with two, until the job is told to stop. No failure is allowed. Every step's checkpoint
is kept in the folder KEPT.
"""

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from ray.cluster_utils import Cluster

from googlenet.network.arithmetic import FP32
from pipelines.job.ray_session import connected
from pipelines.run.directory import read_recipe, read_steps
from pipelines.run.storage import Storage
from pipelines.training.resources import Resources
from pipelines.training.scheduler import train_replicas
from pipelines.training.validation_plan import ValidationPlan
from tests.servers import BIN, ray_processes

HEAD = {"num_cpus": 0, "object_store_memory": 100_000_000, "include_dashboard": False}
NODE = {"num_cpus": 1, "object_store_memory": 100_000_000}
RESOURCES = Resources(max_failures=0, checkpoint_minutes=1e-6, validation=ValidationPlan(every_epochs=10**6))
STEPS_EACH = 3
NOTICE_SECONDS = 200


def main(root: str, kept: str) -> None:
    run, cluster = Storage.at(root), Cluster(initialize_head=True, head_node_args=HEAD)
    cluster.add_node(**NODE)
    os.environ["RAY_ADDRESS"] = cluster.address
    failures: list[str] = []
    stop: list[str] = []

    def work() -> None:
        with connected():
            ended = train_replicas(run, read_recipe(run), RESOURCES, FP32, lambda _: None, lambda: "".join(stop))
            failures.extend(failure.reason for failure in ended)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    threading.Thread(target=_keep_checkpoints, args=(Path(root), Path(kept)), daemon=True).start()

    def wait_for_steps_of(workers: int) -> None:
        def taken() -> int:
            return sum(line["step/workers"] == workers for line in read_steps(run, 0, 0))

        while thread.is_alive() and taken() < STEPS_EACH:
            time.sleep(0.2)

    wait_for_steps_of(1)
    leaving, _ = cluster.add_node(**NODE), cluster.add_node(**NODE)
    next(ray_processes(cluster.address, "ray::RayTrainWorker")).terminate()
    wait_for_steps_of(3)
    _drain(cluster.address, leaving.node_id)
    wait_for_steps_of(2)
    stop.append("the test has seen enough")
    thread.join()
    time.sleep(1)  # for the last checkpoint to be kept
    steps = [(line["step"], line["step/workers"]) for line in read_steps(run, 0, 0)]
    print(json.dumps({"failures": failures, "steps": steps}), flush=True)
    os._exit(0)  # skip cleanup, which could hang on the drained node


def _keep_checkpoints(root: Path, kept: Path) -> None:
    while True:
        for path in root.glob("replicas/0/checkpoints/*.safetensors"):
            with suppress(FileExistsError, FileNotFoundError):
                os.link(path, kept / path.name)
        time.sleep(0.01)


def _drain(address: str, node_id: str) -> None:
    words = ["drain-node", "--address", address, "--node-id", node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    words += ["--reason-message", "spot", "--deadline-remaining-seconds", str(NOTICE_SECONDS)]
    subprocess.run([BIN / "ray", *words], check=True, timeout=100)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
