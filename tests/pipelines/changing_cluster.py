"""Script that trains and evaluates a run on a cluster whose nodes come and go; run by test_lost_nodes.py.

python -m tests.pipelines.changing_cluster RUN

Each node has one "accelerator", which stands for a GPU: each replica reserves one. A node joins when training has
started, the first node dies when a replica is being trained on each, and the second when the first shard of images has
been predicted. The first node's worker is stopped meanwhile: it would train all replicas in turn before the other node
has started.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

from ray.cluster_utils import Cluster

from googlenet.network.arithmetic import FP32
from pipelines.evaluation.evaluate import evaluate_run
from pipelines.job.ray_session import connected
from pipelines.report.write import write_report
from pipelines.run.directory import read_recipe
from pipelines.run.storage import Storage
from pipelines.training.resources import Resources
from pipelines.training.scheduler import train_replicas
from tests.servers import ray_processes

HEAD = {"num_cpus": 1, "object_store_memory": 200_000_000, "include_dashboard": False}
NODE = {"num_cpus": 1, "resources": {"accelerator": 1}, "object_store_memory": 200_000_000}
# No failure is allowed: that a node is lost is none.
RESOURCES = Resources(custom={"accelerator": 1}, checkpoint_minutes=1e-6, max_failures=0)
PATIENCE_SECONDS = 200
# Ray declares a node dead after five checks without an answer: by default 15 seconds, for each of the two nodes.
HEALTH_CHECKS = {"RAY_health_check_period_ms": "500"}


def main(root: str) -> None:
    run = Storage.at(root)
    # Nodes are added and removed by the main thread only: Ray sets signal handlers there.
    os.environ.update(HEALTH_CHECKS)
    cluster = Cluster(initialize_head=True, head_node_args=HEAD)
    first = cluster.add_node(**NODE)
    os.environ["RAY_ADDRESS"] = cluster.address
    found: dict[str, object] = {"at_once": {}, "failures": None, "evaluated": False}
    while_there_is = "one"

    def work() -> None:
        at_once: dict[str, int] = {}

        def on_poll(phases: dict[int, str]) -> None:
            active = sum(phase in ("starting", "training") for phase in phases.values())
            at_once[while_there_is] = max(at_once.get(while_there_is, 0), active)
            found["at_once"] = dict(at_once)

        with connected():
            recipe = read_recipe(run)
            failures = train_replicas(run, recipe, RESOURCES, FP32, on_poll)
            found["failures"] = [failure.reason for failure in failures]
            write_report(run, evaluate_run(run, recipe))
            found["evaluated"] = True

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    _wait_for(thread, root, "replicas/0/checkpoints/*.safetensors")
    worker = next(ray_processes(cluster.address, "ray::RayTrainWorker"))
    worker.suspend()
    second = cluster.add_node(**NODE)
    while_there_is = "both"
    _wait_for(thread, root, "replicas/1/checkpoints/*.safetensors")
    cluster.remove_node(first, allow_graceful=False)
    worker.kill()  # a stopped process does not notice that its node is gone
    while_there_is = "one again"
    _wait_for(thread, root, "predictions/*.parquet")
    found["shards_at_second_death"] = len(list(Path(root).glob("predictions/*.parquet")))
    cluster.remove_node(second, allow_graceful=False)
    thread.join(PATIENCE_SECONDS)
    print(json.dumps({**found, "still_running": thread.is_alive()}), flush=True)
    os._exit(0)  # skip cleanup, which could hang on the dead node


def _wait_for(thread: threading.Thread, root: str, pattern: str) -> None:
    while thread.is_alive() and not list(Path(root).glob(pattern)):
        time.sleep(0.02)


if __name__ == "__main__":
    main(sys.argv[1])
