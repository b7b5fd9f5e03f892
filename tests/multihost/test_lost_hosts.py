"""Jobs that lose hosts without notice.

make multihost
"""

import json
import time
from pathlib import Path

from pipelines.run.predictions import read_cost
from pipelines.run.storage import Storage
from tests.multihost.cluster import (
    BUCKET,
    MARKS,
    SIZE,
    Cluster,
    hosts_of_epochs,
    report_without_a_cluster,
    tell,
    wait_until,
    without_id,
)

pytestmark = MARKS


def predicted_on(predictions: Storage) -> set[str]:
    """Return the hosts that have written predictions."""
    return {read_cost(predictions, name).host for name in predictions.files("")}


def test_workers_that_are_cut_off_in_training_and_in_the_evaluation_cost_nothing_but_time(
    cluster: Cluster, tmp_path: Path
) -> None:
    options = f"--recipe demo --replicas 3 --epochs 8 {SIZE} --max-failures 0"
    run = Storage.at(f"s3://{BUCKET}/cut")
    _, worker1, worker2 = cluster.hosts
    with cluster.submitted(run.root, options, tmp_path / "submit.log") as follower:

        def follows() -> bool:
            assert follower.poll() is None, (tmp_path / "submit.log").read_text()[-3000:]
            return True

        def trained_on(name: str) -> bool:
            return follows() and any(name in found for found in hosts_of_epochs(run, 3).values())

        wait_until("replicas train on both workers", lambda: trained_on("worker1") and trained_on("worker2"))
        worker2.cut_off()
        tell("worker2 is cut off in training")
        wait_until(
            "the cluster has marked it as dead", lambda: follows() and set(cluster.nodes()) == {"head", "worker1"}
        )
        worker2.reconnect()
        wait_until("worker2 is back", lambda: follows() and "worker2" in cluster.nodes())
        predictions = run.below("predictions")
        wait_until("both workers evaluate", lambda: follows() and predicted_on(predictions) == {"worker1", "worker2"})
        worker1.cut_off()
        tell("worker1 is cut off in the evaluation")
        assert follower.wait(timeout=900) == 0, (tmp_path / "submit.log").read_text()[-3000:]
        worker1.reconnect()
    tell("the job has ended: " + json.dumps(run.read_json("report/cost.json")["shards_by_host"]))
    expected = report_without_a_cluster(options, tmp_path / "alone", cluster.environment)
    assert without_id(run.read_json("report/report.json")) == expected
    assert set(run.read_json("report/cost.json")["shards_by_host"]) == {"worker1", "worker2"}
    assert {name for found in hosts_of_epochs(run, 3).values() for name in found} == {"worker1", "worker2"}


def test_a_job_whose_head_dies_goes_on_when_the_head_is_there_again(cluster: Cluster, tmp_path: Path) -> None:
    options = f"--recipe demo --replicas 2 --epochs 8 --policies 1 {SIZE} --max-failures 5"
    run = Storage.at(f"s3://{BUCKET}/head")
    head = cluster.hosts[0]
    wait_until("both workers are back", lambda: len(cluster.nodes()) == 3)
    with cluster.submitted(run.root, options, tmp_path / "submit.log") as follower:
        wait_until("replicas train", lambda: any(hosts_of_epochs(run, 2).values()))
        head.kill()
        tell("the head is dead")
        time.sleep(5)
        head.start()
        cluster.up()
        tell("ray up again")
        assert follower.wait(timeout=900) == 0, (tmp_path / "submit.log").read_text()[-3000:]
    tell("the job has ended")
    assert "ended with 75; retry in" in (tmp_path / "submit.log").read_text()
    expected = report_without_a_cluster(options, tmp_path / "alone", cluster.environment)
    assert without_id(run.read_json("report/report.json")) == expected
