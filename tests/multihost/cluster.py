"""A cluster of three hosts, started by ``ray up`` from ``cluster/on_prem.yaml``, beside an S3 server.

A host that is cut off cannot reach the server.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.run.storage import Storage
from tests.multihost.hosts import OUTSIDE, Host, hosts, missing
from tests.project import ROOT
from tests.servers import BIN, free_port, s3_server, with_tools

ASKED_FOR = os.environ.get("GOOGLENET_MULTIHOST") == "1"
WHY_NOT = missing() if ASKED_FOR else "takes up to three quarters of an hour: make multihost"
MARKS = [pytest.mark.processes, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT), pytest.mark.timeout(2400)]

SIZE = "--crop-px 35 --width 0.125 --images-per-shard 64 --dead-head-epochs 0"
BUCKET = "multihost"
# Shorter than Ray's defaults, so that the test is shorter.
IMPATIENT = "RAY_health_check_period_ms=2000 RAY_health_check_failure_threshold=4"


def tell(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def wait_until(what: str, holds: Callable[[], Any], seconds: float = 600) -> None:
    give_up = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up, f"not within {seconds:.0f} s: {what}"
        time.sleep(1)
    tell(what)


@dataclass
class Cluster:
    """A cluster as its owner uses it: a YAML, a token, a forwarded dashboard."""

    hosts: list[Host]
    yaml: Path
    environment: dict[str, str]
    port: int

    def up(self) -> None:
        words = [BIN / "ray", "up", "--yes", "--no-config-cache", str(self.yaml)]
        ended = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=600, check=False)
        assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]

    def nodes(self) -> dict[str, str]:
        """Return the ids of the nodes that the cluster lists as alive, by host; none while the head does not answer."""
        token = Path(self.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/v0/nodes", headers={"Authorization": f"Bearer {token}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                rows = json.load(answer)["data"]["result"]["result"]
        except (OSError, ValueError, KeyError, HTTPException):
            return {}
        alive = {row["node_ip"]: row["node_id"] for row in rows if row["state"] == "ALIVE"}
        return {host.name: alive[host.address] for host in self.hosts if host.address in alive}

    @contextmanager
    def dashboard(self) -> Iterator[str]:
        """Forward the dashboard like ``ray dashboard``; reconnect after the connection or the head is lost."""
        ended = threading.Event()

        def forward() -> None:
            while not ended.is_set():
                words = ["ssh", "-q", "-N", "-i", str(self.hosts[0].key), "-o", "StrictHostKeyChecking=no"]
                words += ["-o", "UserKnownHostsFile=/dev/null", "-o", "ServerAliveInterval=5"]
                words += ["-L", f"{self.port}:127.0.0.1:8265", f"root@{self.hosts[0].address}"]
                tunnel = subprocess.Popen(words)
                while tunnel.poll() is None and not ended.wait(1):
                    pass
                tunnel.kill()
                tunnel.wait()
                ended.wait(2)

        thread = threading.Thread(target=forward)
        thread.start()
        try:
            yield f"http://127.0.0.1:{self.port}"
        finally:
            ended.set()
            thread.join()

    @contextmanager
    def submitted(self, run_dir: str, options: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
        """Run ``cluster/submit.py``, following a job."""
        words = [sys.executable, "cluster/submit.py", "--address", f"http://127.0.0.1:{self.port}"]
        with log.open("wb") as output:
            follower = subprocess.Popen(
                [*words, "--run-dir", run_dir, "--pause-seconds", "2", "--", *options.split()],
                cwd=ROOT,
                env=self.environment,
                stdout=output,
                stderr=output,
            )
            try:
                yield follower
            finally:
                follower.kill()
                follower.wait()


def on_these_hosts(made: list[Host], folder: Path, storage: dict[str, str]) -> Path:
    """Write ``cluster/on_prem.yaml`` with these addresses, without installing Python, and one CPU per worker."""
    config = yaml.safe_load((ROOT / "cluster/on_prem.yaml").read_text())
    head, *workers = made
    config["provider"] |= {"head_ip": head.address, "worker_ips": [host.address for host in workers]}
    config["auth"] = {"ssh_user": "root", "ssh_private_key": str(head.key)}
    config["file_mounts"]["~/.ray/auth_token"] = str(folder / "auth_token")
    exports = {**storage, "PATH": f"{BIN}:$PATH", "MLFLOW_DISABLE_TELEMETRY": "true"}
    profile = "; ".join(f"export {name}={value}" for name, value in exports.items())
    config["setup_commands"] = [f"echo '{profile}' > ~/.bashrc"]
    small = "--object-store-memory=300000000"
    for key, more in (("head_start_ray_commands", small), ("worker_start_ray_commands", f"--num-cpus=1 {small}")):
        config[key] = [
            line.replace("RAY_AUTH_MODE=token", f"{IMPATIENT} RAY_AUTH_MODE=token").replace(
                "ray start", f"ray start {more}"
            )
            for line in config[key]
        ]
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@contextmanager
def cluster_of_three() -> Iterator[Cluster]:
    """Start the hosts, the storage and the cluster."""
    with ExitStack() as stack:
        # A host has its own /tmp and cannot see this one.
        temporary = tempfile.TemporaryDirectory(prefix="multihost", dir="/var/tmp", ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(temporary))
        (folder / "auth_token").write_text("0123456789abcdef0123456789abcdef0123456789")
        made = stack.enter_context(hosts(("head", "worker1", "worker2"), folder))
        s3_port = stack.enter_context(s3_server(address="0.0.0.0"))  # noqa: S104
        storage = {
            "AWS_ENDPOINT_URL": f"http://{OUTSIDE}:{s3_port}",
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "something",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        os.environ.update(storage)
        import boto3

        boto3.resource("s3").Bucket(BUCKET).create()
        environment = with_tools(
            {
                **storage,
                "RAY_UP_enable_autoscaler_v2": "0",
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN_PATH": str(folder / "auth_token"),
            }
        )
        environment.pop("RAY_ADDRESS", None)
        made_cluster = Cluster(made, on_these_hosts(made, folder, storage), environment, free_port())
        made_cluster.up()
        with made_cluster.dashboard():
            wait_until("ray up: the head and both workers are in the cluster", lambda: len(made_cluster.nodes()) == 3)
            yield made_cluster


def hosts_of_epochs(run: Storage, replicas: int) -> dict[int, list[str]]:
    """Return the host on which each finished epoch of each replica was trained."""
    found = {}
    for k in range(replicas):
        name = f"replicas/{k}/metrics.jsonl"
        lines = run.read(name).decode().splitlines() if run.exists(name) else []
        found[k] = [json.loads(line)["host"] for line in lines]
    return found


def report_without_a_cluster(options: str, run_dir: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Run the same job on this machine alone; return its report."""
    words = [sys.executable, "pipelines/train_ensemble.py", *options.split(), "--run-dir", str(run_dir)]
    local = {**environment, "RAY_AUTH_MODE": "disabled"}
    subprocess.run(words, cwd=ROOT, env=local, check=True, timeout=1200, stdout=subprocess.DEVNULL)
    report: dict[str, Any] = json.loads((run_dir / "report/report.json").read_text())
    return without_id(report)


def without_id(report: dict[str, Any]) -> dict[str, Any]:
    """Return a report without the id of its run directory."""
    return {**report, "run": {**report["run"], "id": None}}
