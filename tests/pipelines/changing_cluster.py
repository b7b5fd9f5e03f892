"""Script that trains and evaluates on a cluster whose nodes join, are drained and die; run by test_changing_cluster.py.

python -m tests.pipelines.changing_cluster ELASTIC_RUN KEPT RUN

Each node has one "accelerator", which stands for a GPU: each training worker reserves one. A replica grows and shrinks
first, then another run loses its nodes: both on one cluster, whose processes take longer to start than the replicas to
train.
"""

import json
import os
import sys
from pathlib import Path

from ray.cluster_utils import Cluster

from pipelines.job.ray_session import connected
from tests.pipelines.growing_and_shrinking import grow_and_shrink
from tests.pipelines.losing_nodes import lose_nodes
from tests.servers import LEAN_HEAD

HEAD = {"num_cpus": 1, **LEAN_HEAD}
NODE = {"num_cpus": 1, "resources": {"accelerator": 1}, "object_store_memory": 200_000_000}
# Ray declares a node dead after five checks that fail: by default after 15 seconds, for each of the nodes. A check of a
# node that is only slow fails after ten seconds.
HEALTH_CHECKS = {"RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "3"}
# Ray Train would keep its state for a dashboard, in a process of its own.
NO_STATE = {"RAY_TRAIN_ENABLE_STATE_TRACKING": "0"}


def main(elastic_run: str, kept: str, run: str) -> None:
    os.environ.update(HEALTH_CHECKS | NO_STATE)
    # Nodes are added and removed by the main thread only: Ray sets signal handlers there.
    cluster = Cluster(initialize_head=True, head_node_args=HEAD)
    first = cluster.add_node(**NODE)
    os.environ["RAY_ADDRESS"] = cluster.address
    with connected():
        elastic = grow_and_shrink(cluster, NODE, Path(elastic_run), Path(kept))
        lost = lose_nodes(cluster, NODE, first, Path(run))
        print(json.dumps({"elastic": elastic, "lost": lost}), flush=True)
        os._exit(0)  # skip cleanup, which could hang on the dead nodes


if __name__ == "__main__":
    main(*sys.argv[1:])
