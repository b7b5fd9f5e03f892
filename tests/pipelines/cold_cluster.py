"""Script that evaluates runs on a cluster that is empty when each begins; run by test_cold_cluster.py.

python -m tests.pipelines.cold_cluster RUN RUN ...

The head has no CPUs. A node with two CPUs and three GPUs, which are pretended, joins when the evaluation has said that
it waits, and leaves at its end. Its memory holds one training worker. A line of JSON ends what is printed of each run.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from pipelines.evaluation.evaluate import evaluate_run
from pipelines.evaluation.predictors import PredictorOptions, Predictors
from pipelines.job import unplaced
from pipelines.job.nodes import alive_nodes
from pipelines.job.ray_session import connected
from pipelines.run.directory import read_recipe
from pipelines.run.storage import Storage
from pipelines.training.resources import Resources, replicas_at_once, reserving_memory
from tests.servers import LEAN_HEAD

HEAD = {"num_cpus": 0, **LEAN_HEAD}
# Less memory than two training workers need, and more than one does.
NODE = {"num_cpus": 2, "num_gpus": 3, "memory": 2_000_000_000, "object_store_memory": 200_000_000}
# Ray starts no node with more GPUs than are visible. No machine has these, so that PyTorch finds none.
PRETENDED_GPUS = "97,98,99"
PATIENCE_SECONDS = 120


def main(*roots: str) -> None:
    unplaced.TOLD_AFTER_SECONDS = 1.0
    cluster = Cluster(initialize_head=True, head_node_args=HEAD)
    os.environ["RAY_ADDRESS"] = cluster.address
    os.environ["CUDA_VISIBLE_DEVICES"] = PRETENDED_GPUS
    with connected():
        # What a preflight waits for does not depend on the number of predictors, of which it starts one.
        for root, number in zip(roots, (1, 3), strict=True):
            print(json.dumps(on_an_empty_cluster(cluster, root, number)), flush=True)
        os._exit(0)  # skip cleanup, which could hang on a thread that still runs


def on_an_empty_cluster(cluster: Cluster, root: str, number: int) -> dict[str, int]:
    """Evaluate a run; return how far it was when the node joined, whether it has not ended, and what fits on it."""
    seen: dict[str, int] = {}

    def work() -> None:
        run, options = Storage.at(root), PredictorOptions(number=number, gpus=1.0)
        print(Predictors.that_fit(options, {"cpu": 0, "gpu": 0}).remark, flush=True)
        recipe = read_recipe(run)
        evaluate_run(run, recipe, options)
        resources = reserving_memory(recipe, Resources(), classes=3)
        seen["replicas_at_once"] = replicas_at_once(recipe, resources)

    told, waiting_line = threading.Event(), unplaced._waiting_line

    def line(*of_work: object) -> str:
        told.set()
        return waiting_line(*of_work)  # type: ignore[arg-type]

    thread = threading.Thread(target=work, daemon=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unplaced, "_waiting_line", line)
        thread.start()
        told.wait(PATIENCE_SECONDS)
        early = len(list(Path(root).glob("predictions/*.parquet")))
        node = cluster.add_node(**NODE)
        thread.join(PATIENCE_SECONDS)
    cluster.remove_node(node)
    while len(alive_nodes()) > 1:  # the cluster notices it a little later
        time.sleep(0.1)
    return {**seen, "shards_before_a_node_joined": early, "is_running": thread.is_alive()}


if __name__ == "__main__":
    main(*sys.argv[1:])
