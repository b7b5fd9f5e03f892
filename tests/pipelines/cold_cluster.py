"""Script that evaluates a run on a cluster that is still empty; run by test_cold_cluster.py.

python -m tests.pipelines.cold_cluster RUN

The head has no CPUs. A node with two CPUs and three GPUs, which are pretended, joins when the evaluation has started.
Its memory holds one training worker.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

from ray.cluster_utils import Cluster

import pipelines.job.unplaced
from pipelines.evaluation.evaluate import evaluate_run
from pipelines.evaluation.predictors import PredictorOptions, Predictors
from pipelines.job.ray_session import connected
from pipelines.run.directory import read_recipe
from pipelines.run.storage import Storage
from pipelines.training.resources import Resources, replicas_at_once, reserving_memory

HEAD = {"num_cpus": 0, "object_store_memory": 200_000_000, "include_dashboard": False}
# Less memory than two training workers need, and more than one does.
NODE = {"num_cpus": 2, "num_gpus": 3, "memory": 2_000_000_000, "object_store_memory": 200_000_000}
PATIENCE_SECONDS = 200
SECONDS_ALONE = 5


def main(root: str) -> None:
    pipelines.job.unplaced.TOLD_AFTER_SECONDS = 1.0
    cluster = Cluster(initialize_head=True, head_node_args=HEAD)
    os.environ["RAY_ADDRESS"] = cluster.address
    started = threading.Event()
    seen: dict[str, int] = {}

    def work() -> None:
        run, options = Storage.at(root), PredictorOptions(number=3, gpus=1.0)
        with connected():
            print(Predictors.that_fit(options, {"cpu": 0, "gpu": 0}).remark, flush=True)
            started.set()
            recipe = read_recipe(run)
            evaluate_run(run, recipe, options)
            resources = reserving_memory(recipe, Resources(), classes=3)
            seen["replicas_at_once"] = replicas_at_once(recipe, resources)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    started.wait(PATIENCE_SECONDS)
    time.sleep(SECONDS_ALONE)
    early = len(list(Path(root).glob("predictions/*.parquet")))
    cluster.add_node(**NODE)
    thread.join(PATIENCE_SECONDS)
    print(json.dumps({**seen, "shards_before_a_node_joined": early, "is_running": thread.is_alive()}), flush=True)
    os._exit(0)  # skip cleanup, which could hang on a thread that still runs


if __name__ == "__main__":
    main(sys.argv[1])
