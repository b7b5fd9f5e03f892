"""Script that evaluates a run on a cluster of two nodes, one of which dies; run by test_sharded_prediction.py.

python -m tests.pipelines.evaluation.two_nodes RUN
"""

import os
import sys
import threading
import time
from pathlib import Path

from ray.cluster_utils import Cluster

from pipelines.evaluation.evaluate import evaluate_run
from pipelines.job.ray_session import connected
from pipelines.report.write import write_report
from pipelines.run.directory import read_recipe
from pipelines.run.storage import Storage


def main(root: str) -> None:
    run = Storage.at(root)
    # Nodes are added and removed by the main thread only: Ray sets signal handlers there.
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 200_000_000})
    doomed = cluster.add_node(num_cpus=1, object_store_memory=200_000_000)
    os.environ["RAY_ADDRESS"] = cluster.address
    errors: list[BaseException] = []

    def evaluate() -> None:
        try:
            with connected():
                write_report(run, evaluate_run(run, read_recipe(run)))
        except BaseException as error:  # noqa: BLE001  # reported to the main thread
            errors.append(error)

    thread = threading.Thread(target=evaluate, daemon=True)
    thread.start()
    while thread.is_alive() and not list(Path(root, "predictions").glob("*.parquet")):
        time.sleep(0.05)
    at_death = len(list(Path(root, "predictions").glob("*.parquet")))
    cluster.remove_node(doomed, allow_graceful=False)
    thread.join(180)
    print(f"shards at the node's death: {at_death}, errors: {errors}, still running: {thread.is_alive()}", flush=True)
    os._exit(1 if errors or thread.is_alive() else 0)  # skip cleanup, which could hang on the dead node


if __name__ == "__main__":
    main(sys.argv[1])
