"""A job whose worker receives SIGTERM, and whose host is drained by ``ray drain-node`` and then lost.

A failure would end its replica for good (``--max-failures 0``).
"""

import json
import re
import time
from pathlib import Path
from typing import Any

from pipelines.run.json_lines import read_steps
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
from tests.multihost.hosts import Host

pytestmark = MARKS
# Shorter than the notice of any cloud.
NOTICE_SECONDS = 20
# An epoch takes long enough to be interrupted, and the step log has all its steps.
OPTIONS = f"--recipe demo --replicas 2 --epochs 4 --batch-size 16 --policies 1 {SIZE} --max-failures 0"
TERMINATED, DRAINED = "its worker received SIGTERM", "its node is about to be taken away"


def test_a_replica_that_gets_notice_does_no_step_twice_and_its_lost_host_is_no_failure(
    cluster: Cluster, tmp_path: Path
) -> None:
    run, log = Storage.at(f"s3://{BUCKET}/notice"), tmp_path / "submit.log"
    head, worker1, worker2 = cluster.hosts
    wait_until("both workers are there", lambda: len(cluster.nodes()) == 3)
    with cluster.submitted(run.root, OPTIONS, log) as follower:

        def follows() -> bool:
            assert follower.poll() is None, log.read_text()[-3000:]
            return True

        def trained_on(host: Host) -> list[int]:
            return [k for k, found in hosts_of_epochs(run, 2).items() if follows() and host.name in found]

        def steps_before(reason: str) -> dict[tuple[int, int], int]:
            """Return the steps logged when a replica has ended for ``reason``, of its own none after its checkpoint."""
            [(replica, step)] = checkpoints_written(log, reason)
            wait_until(f"replica {replica} has logged step {step}", lambda: (replica, step) in steps_logged(run))
            steps = steps_logged(run)
            assert max(at for k, at in steps if k == replica) == step
            return steps

        wait_until("replicas train on both workers", lambda: trained_on(worker1) and trained_on(worker2))
        [terminated], [drained] = trained_on(worker1), trained_on(worker2)
        worker1.run("pkill -TERM -f ^ray::RayTrainWorker")
        tell("the worker on worker1 has received SIGTERM")
        wait_until("its replica has written a checkpoint", lambda: follows() and checkpoints_written(log, TERMINATED))
        kept = steps_before(TERMINATED)
        epochs = len(hosts_of_epochs(run, 2)[terminated])
        wait_until("its replica goes on", lambda: follows() and len(hosts_of_epochs(run, 2)[terminated]) > epochs)

        head.run(drain_command(head, cluster.nodes()["worker2"]))
        deadline = time.monotonic() + NOTICE_SECONDS
        tell(f"worker2 is drained, with a notice of {NOTICE_SECONDS} s")
        wait_until(
            "its replica has written a checkpoint",
            lambda: follows() and checkpoints_written(log, DRAINED),
            NOTICE_SECONDS,
        )
        kept |= steps_before(DRAINED)
        time.sleep(max(0.0, deadline - time.monotonic()))
        worker2.cut_off()
        tell("worker2 is cut off")
        assert follower.wait(timeout=900) == 0, log.read_text()[-3000:]
        worker2.reconnect()
    tell("the job has ended")
    assert kept.items() <= steps_logged(run).items()  # a step that is done again is logged at another time
    for reason, expected_replica in ((TERMINATED, terminated), (DRAINED, drained)):
        [(replica, step)] = checkpoints_written(log, reason)
        assert replica == expected_replica
        assert interruptions(run, replica) == [f"step {step}: {reason}"]
    assert set(hosts_of_epochs(run, 2)[drained]) == {"worker1", "worker2"}
    expected = report_without_a_cluster(OPTIONS, tmp_path / "alone", cluster.environment)
    assert without_id(run.read_json("report/report.json")) == expected


def checkpoints_written(log: Path, reason: str) -> list[tuple[int, int]]:
    """Return replica and step of each checkpoint that the job says a replica has written for ``reason``."""
    words = re.sub(r"\s+", " ", log.read_text())  # lines are wrapped
    found = re.findall(
        rf"replica (\d+): {reason}; it wrote a checkpoint of step (\d+) and will continue from there", words
    )
    return [(int(replica), int(step)) for replica, step in found]


def steps_logged(run: Storage) -> dict[tuple[int, int], int]:
    """Return when each step of each replica was taken, in milliseconds."""
    return {(k, line["step"]): line["time_ms"] for k in range(2) for line in read_steps(run, k, 0)}


def interruptions(run: Storage, replica: int) -> list[str]:
    lines: list[dict[str, Any]] = [
        json.loads(line) for line in run.read(f"replicas/{replica}/metrics.jsonl").decode().splitlines()
    ]
    return [line["interrupted_at"] for line in lines if "interrupted_at" in line]


def drain_command(head: Host, node_id: str) -> str:
    reason = "--reason DRAIN_NODE_REASON_PREEMPTION --reason-message spot"
    return (
        f"RAY_AUTH_MODE=token ray drain-node --address {head.address}:6379 --node-id {node_id} {reason}"
        f" --deadline-remaining-seconds {NOTICE_SECONDS}"
    )
